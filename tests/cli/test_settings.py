"""What the environment and the flags may say, and what is said of a slip."""

import argparse
import os
import re
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import SecretStr, ValidationError
from serving import ASKER, COMMAND, PATIENCE, ROOT, Process, environment

from lstm_serve.errors import SettingsError
from lstm_serve.settings import Settings, add_flags, read

MODEL = {"LSTMSERVE_MODEL": "model.h5"}


# What Kubernetes puts into a pod for a Service of this name: https://kubernetes.io/docs/concepts/services-networking/service/
def of_a_service(name: str) -> dict[str, str]:
    return {
        f"{name}_SERVICE_HOST": "10.0.0.7",
        f"{name}_SERVICE_PORT": "8080",
        f"{name}_SERVICE_PORT_HTTP": "8080",
        f"{name}_PORT": "tcp://10.0.0.7:8080",
        f"{name}_PORT_8080_TCP": "tcp://10.0.0.7:8080",
        f"{name}_PORT_8080_TCP_PROTO": "tcp",
        f"{name}_PORT_8080_TCP_PORT": "8080",
        f"{name}_PORT_8080_TCP_ADDR": "10.0.0.7",
    }


def test_defaults() -> None:
    settings = read(MODEL | {"PATH": "/bin", "lstmserve_port": "x"}, {})
    assert settings == Settings(model=Path("model.h5"))
    assert (settings.host, settings.port, settings.access_log) == ("127.0.0.1", 8080, True)
    with pytest.raises(ValidationError):
        settings.port = 1


def test_a_flag_wins_over_a_variable_and_none_is_no_flag() -> None:
    environ = MODEL | {"LSTMSERVE_PORT": "1", "LSTMSERVE_ACCESS_LOG": "false", "LSTMSERVE_DRAIN_SECONDS": "2.5"}
    settings = read(environ, {"port": "2", "host": None, "model": "other.h5"})
    assert (settings.port, settings.model, settings.access_log) == (2, Path("other.h5"), False)
    assert (settings.host, settings.drain_seconds) == ("127.0.0.1", 2.5)


@pytest.mark.parametrize(
    ("environ", "flags", "said"),
    [
        ({}, {}, "no model: .* LSTMSERVE_MODEL"),
        (MODEL | {"LSTMSERVE_PROT": "1"}, {}, "^LSTMSERVE_PROT is not a setting. Did you mean LSTMSERVE_PORT?"),
        (MODEL | {"LSTMSERVE_XYZZY": "1"}, {}, "^LSTMSERVE_XYZZY is not a setting. '"),
        (MODEL | {"LSTMSERVE_PORT": "secret"}, {}, "^LSTMSERVE_PORT: expected a whole number$"),
        (MODEL | {"LSTMSERVE_PORT": "65536"}, {}, "^LSTMSERVE_PORT: .*expected at most 65535, got 65536$"),
        (MODEL | {"LSTMSERVE_PORT": "-1"}, {}, "^LSTMSERVE_PORT: .*expected 0 or more, got -1$"),
        (MODEL | {"LSTMSERVE_HOST": ""}, {}, "^LSTMSERVE_HOST: expected a text that is not empty$"),
        (MODEL | {"LSTMSERVE_MAX_ROWS": "0"}, {}, "^LSTMSERVE_MAX_ROWS: expected more than 0, got 0$"),
        (
            MODEL | {"LSTMSERVE_MAX_BATCH_ROWS": "99999999"},
            {},
            "^LSTMSERVE_MAX_BATCH_ROWS: expected at most 16384, got 99999999$",
        ),
        (MODEL, {"drift_rows": "100"}, "^--drift-rows: expected 1000 or more, got 100$"),
        (MODEL | {"LSTMSERVE_GRACE_SECONDS": "inf"}, {}, "^LSTMSERVE_GRACE_SECONDS: expected a finite number$"),
        (MODEL | {"LSTMSERVE_DEADLINE_SECONDS": "0"}, {}, "^LSTMSERVE_DEADLINE_SECONDS: expected more than 0, got 0$"),
        (MODEL | {"LSTMSERVE_ACCESS_LOG": "secret"}, {}, "^LSTMSERVE_ACCESS_LOG: expected true or false$"),
        (MODEL | {"LSTMSERVE_PORT": "1"}, {"port": "secret"}, "^--port: expected a whole number$"),
        *(
            (
                MODEL | {"LSTMSERVE_CORS_ORIGINS": wrong},
                {},
                "^LSTMSERVE_CORS_ORIGINS: expected origins as browsers send them, such as",
            )
            for wrong in (
                "",
                "secret",
                "https://secret/",
                "https://a,",
                "*,https://a",
                "https://*.a",
                "https://a b",
                "https://secret:443",
                "http://secret:80",
                "https://a/",
            )
        ),
        (
            {},
            {"port": "secret.h5"},
            "^--port: expected a whole number; no model: .* Has --port taken it for its value?",
        ),
        (MODEL, {"port": "8081", "admin_port": "8081"}, "^LSTMSERVE_ADMIN_PORT and LSTMSERVE_PORT are both 8081: "),
        (MODEL, {"max_queue_rows": "1023"}, r"^LSTMSERVE_MAX_ROWS \(1024\) is over LSTMSERVE_MAX_QUEUE_ROWS \(1023\)"),
    ],
)
def test_a_slip_is_named_and_its_value_is_not(environ: dict[str, str], flags: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        read(environ, flags)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_wrong_is_said_in_our_words() -> None:
    for name in Settings.model_fields.keys() - {"model", "api_keys", "api_keys_file", "tls_certfile", "tls_keyfile"}:
        for value in ("", "secret words", "-1", "nan", "9" * 30, "9" * 5000, "1.5"):
            said = refusal({name: value})
            ours = rf"--{name.replace('_', '-')}: expected |LSTMSERVE_MAX_(ROWS|BODY_BYTES) .*would never fit"
            assert said is None or re.match(ours, said), said


def refusal(flags: dict[str, Any]) -> str | None:
    """What is said of a setting that is refused."""
    try:
        read(MODEL, flags)
    except SettingsError as error:
        return str(error)
    return None


@pytest.mark.parametrize("service", ["LSTMSERVE", "LSTMSERVE_MODEL", "LSTMSERVE_CANARY"])
def test_a_service_whose_variables_look_like_settings_is_told_apart(service: str) -> None:
    for variable, value in of_a_service(service).items():
        with pytest.raises(
            SettingsError, match=f"^{variable} was set by Kubernetes, .* Rename the Service, or set enable"
        ):
            read(MODEL | {variable: value}, {})


def test_every_setting_is_a_flag_that_says_what_it_does() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    text = " ".join(parser.format_help().split())
    shown = set(re.findall(r"--[a-z-]+", text))
    for name, known in Settings.model_fields.items():
        assert known.description
        secret = SecretStr in (known.annotation, *get_args(known.annotation))
        has_flag = name != "model" and not secret
        assert (f"--{name.replace('_', '-')}" in shown) == has_flag
        if has_flag:
            assert f"{known.description} (default {known.default})" in text
    given = vars(parser.parse_args(["--port", "1", "--no-access-log", "--grace-seconds", "3"]))
    settings = read(MODEL, given)
    assert (settings.port, settings.access_log, settings.grace_seconds) == (1, False, 3)
    assert read(MODEL, vars(parser.parse_args([]))) == Settings(model=Path("model.h5"))


def test_it_starts_in_a_pod_beside_a_service_of_its_name() -> None:
    with Process(ASKER / "k215_model.h5", **of_a_service("LSTM_SERVE"), KUBERNETES_SERVICE_HOST="10.0.0.1") as process:
        assert process.port


@pytest.mark.parametrize("variable", ["LSTMSERVE_PROT", "LSTMSERVE_PORT_8080_TCP"])
def test_an_unknown_variable_ends_the_process_with_a_line_that_names_it(variable: str) -> None:
    variables = environment(**MODEL, **{variable: "tcp://10.0.0.7:8080"})
    ended = subprocess.run(
        COMMAND, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert ended.returncode != 0
    assert ended.stdout == ""
    assert variable in ended.stderr.splitlines()[-1]
    assert os.environ.get(variable) is None


def test_origins() -> None:
    with pytest.raises(SettingsError, match=r"a slash at the end, or the scheme's own port \(443 of https"):
        read(MODEL | {"LSTMSERVE_CORS_ORIGINS": "https://a.example:443"}, {})
    for given in ("*", "https://a.example", "http://localhost:443,https://a:80,tauri://localhost,http://[::1]:5000"):
        assert read(MODEL | {"LSTMSERVE_CORS_ORIGINS": given}, {}).cors_origins == given
    assert read(MODEL, {"cors_origins": " HTTPS://A.example , http://b"}).cors_origins == "https://a.example,http://b"


def test_a_body_that_would_never_fit() -> None:
    with pytest.raises(
        SettingsError, match=r"^LSTMSERVE_MAX_BODY_BYTES \(2097152\) is over LSTMSERVE_MAX_INFLIGHT_BYTES \(2097151\)"
    ):
        read({**MODEL, "LSTMSERVE_MAX_INFLIGHT_BYTES": "2097151"}, {})


def test_what_just_fits_is_taken() -> None:
    settings = read(MODEL, {"max_queue_rows": "1024", "max_inflight_bytes": "2097152"})
    assert settings.max_queue_rows == settings.max_rows
    assert settings.max_inflight_bytes == settings.max_body_bytes
