"""The figures of deploy/ belong together: the same ones everywhere, and each long enough for the next."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from chaos import HAPROXY
from serving import ASKER, PATIENCE, ROOT, Process, ask

from lstm_serve.settings import CLOUDS, PREFIX, Settings
from lstm_serve.telemetry import prometheus
from lstm_serve.telemetry.metrics import Metrics

HEALTHCHECK = ROOT / "deploy" / "healthcheck.py"
COMPOSE, KUBERNETES, KSERVE, PROXY = (
    (ROOT / "deploy" / name).read_text() for name in ("compose.yaml", "kubernetes.yaml", "kserve.yaml", "haproxy.cfg")
)

REDIS_COMPOSE, REDIS_KUBERNETES = (
    (ROOT / "deploy" / name).read_text() for name in ("compose.redis.yaml", "kubernetes.redis.yaml")
)


def number(text: str, pattern: str) -> float:
    found = set(re.findall(pattern, text))
    assert len(found) == 1, pattern
    return float(found.pop())


@pytest.mark.parametrize(
    ("text", "value", "killed"),
    [
        (COMPOSE, r"{}: (\d+)", r"stop_grace_period: (\d+)s"),
        (KUBERNETES, r'{}, value: "(\d+)"', r"terminationGracePeriodSeconds: (\d+)"),
    ],
    ids=["compose", "kubernetes"],
)
def test_each_figure_is_long_enough_for_the_next(text: str, value: str, killed: str) -> None:
    drain = number(text, value.format("LSTMSERVE_DRAIN_SECONDS"))
    grace = number(text, value.format("LSTMSERVE_GRACE_SECONDS"))
    proxied = number(PROXY, r"inter (\d+)ms") / 1000 * number(PROXY, r"fall (\d+)")
    assert proxied * 2 < drain
    assert number(KUBERNETES, r"readinessProbe:\n.*\n +periodSeconds: (\d+)") * 2 < drain
    assert drain + grace < number(text, killed)
    assert Settings.model_fields["deadline_seconds"].default < grace < number(PROXY, r"timeout server (\d+)s")
    assert number(PROXY, r"pool-purge-delay (\d+)s") < Settings.model_fields["keep_alive_seconds"].default
    assert number(PROXY, r"maxconn (\d+) pool") < Settings.model_fields["max_connections"].default


def test_every_variable_is_a_setting() -> None:
    for text in (COMPOSE, KUBERNETES, KSERVE, REDIS_COMPOSE, REDIS_KUBERNETES, (ROOT / "Dockerfile").read_text()):
        names = {name.lower() for name in re.findall(r"LSTMSERVE_(\w+)", text)}
        assert names
        assert names <= set(Settings.model_fields)


def test_the_image_has_what_the_builder_is_given() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for source in re.findall(r"^COPY (?!--)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists()
            assert f"!{name}" in ignored


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_the_rules_alert_where_they_should() -> None:
    rules = ROOT / "tests/blackbox/prometheus_rules_test.yaml"
    done = subprocess.run(
        [str(shutil.which("promtool")), "test", "rules", str(rules)], capture_output=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_rules_name_metrics_that_there_are() -> None:
    used = set(re.findall(r"\blstmserve_\w+", (ROOT / "deploy/prometheus-rules.yaml").read_text()))
    told = re.findall(r"^# TYPE (\w+)", prometheus.text(Metrics()).decode(), re.MULTILINE)
    assert used <= set(told)


@pytest.mark.skipif(HAPROXY is None, reason="HAProxy is not installed (Debian: haproxy)")
def test_the_proxy_takes_its_configuration() -> None:
    done = subprocess.run(
        [str(HAPROXY), "-c", "-f", str(ROOT / "deploy" / "haproxy.cfg")],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_health_check_knows_the_names_of_the_port() -> None:
    (line,) = re.findall(r"names = \((.*)\)", HEALTHCHECK.read_text())
    # The last of CLOUDS wins, and ours over all of them.
    wanted = [f"{PREFIX}ADMIN_PORT", f"{PREFIX}PORT", *(name for name in reversed(CLOUDS) if CLOUDS[name] == "port")]
    assert re.findall(r'"(\w+)"', line) == wanted


def test_everything_knows_the_admin_port() -> None:
    port = int(number((ROOT / "Dockerfile").read_text(), r"LSTMSERVE_ADMIN_PORT=(\d+)"))
    assert number(PROXY, r"check port (\d+)") == port
    assert number(KUBERNETES, r"name: admin, containerPort: (\d+)") == port
    assert number(KUBERNETES, r'prometheus.io/port: "(\d+)"') == port
    assert set(re.findall(r"httpGet: .*port: (\w+)", KUBERNETES)) == {"admin"}
    assert number(KSERVE, r'prometheus.kserve.io/port: "(\d+)"') == port
    assert number(KSERVE, r"httpGet: .*port: (\d+)") == port


def test_the_store_beside_the_replicas() -> None:
    (flags,) = re.findall(r"^redis-server (.*)$", (ROOT / "docs/series.md").read_text(), re.MULTILINE)
    services = yaml.safe_load(REDIS_COMPOSE)["services"]
    assert flags in services.pop("redis")["command"]
    assert services.keys() == yaml.safe_load(COMPOSE)["services"].keys() - {"proxy"}
    assert re.findall(r"redis://(\w+):6379/0", REDIS_COMPOSE) == ["redis"]
    stateful, service = yaml.safe_load_all(REDIS_KUBERNETES)
    assert flags in " ".join(stateful["spec"]["template"]["spec"]["containers"][0]["args"])
    (deployment, host), *_ = re.findall(r"set env deployment/(\S+) .*redis://(.*):6379/0", REDIS_KUBERNETES)
    assert next(yaml.safe_load_all(KUBERNETES))["metadata"]["name"] == deployment
    assert service["metadata"]["name"] == stateful["spec"]["serviceName"] == host


def test_what_kserve_is_given() -> None:
    runtime, *services, scaled = yaml.safe_load_all(KSERVE)
    assert [each["kind"] for each in services] == ["InferenceService"] * 2
    assert [each["spec"]["predictor"]["model"]["storageUri"].partition(":")[0] for each in services] == ["s3", "oci"]
    (container,) = runtime["spec"]["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    assert (variables["LSTMSERVE_MODEL"], variables["LSTMSERVE_NAME"]) == ("/mnt/models", "{{.Name}}")
    assert [each["containerPort"] for each in container["ports"]] == [Settings.model_fields["port"].default]
    # A pod has 30 seconds where nothing else is said.
    assert float(variables["LSTMSERVE_DRAIN_SECONDS"]) + float(variables["LSTMSERVE_GRACE_SECONDS"]) < 30
    formats = runtime["spec"]["supportedModelFormats"]
    assert [(each["name"], each["version"], each["autoSelect"]) for each in formats] == [
        ("keras", version, True) for version in "123"
    ]
    assert {each["spec"]["predictor"]["model"]["modelFormat"]["name"] for each in services} == {"keras"}
    # KServe calls a service's Deployment so, and KEDA takes numbers as text.
    name = services[0]["metadata"]["name"]
    assert scaled["spec"]["scaleTargetRef"]["name"] == f"{name}-predictor"
    exposed = prometheus.text(Metrics()).decode()
    for trigger in scaled["spec"]["triggers"]:
        ((metric, model),) = re.findall(r'(lstmserve_\w+)\{model="(\w+)"\}', trigger["metadata"]["query"])
        assert metric.removesuffix("_sum") in exposed
        assert model == name
        assert isinstance(trigger["metadata"]["threshold"], str)


def test_a_model_image_is_a_link_into_another_container(tmp_path: Path) -> None:
    """An OCI image's /mnt/models leads into /proc/PID/root of the container that has it."""
    (tmp_path / "image").mkdir()
    for end in (".h5", ".card.json", ".golden.npz"):
        shutil.copy(ROOT / f"models/turbofan{end}", tmp_path / "image")
    (tmp_path / "models").symlink_to(f"/proc/self/root{tmp_path / 'image'}")
    with Process(tmp_path / "models", LSTMSERVE_NAME="turbofan") as process:
        assert ask("GET", f"{process.url}/v1/models/turbofan").json()["name"] == "turbofan"


HOSTS = ("127.0.0.1", "0.0.0.0", *(["::1", "::"] if socket.has_dualstack_ipv6() else []))


def test_the_health_check() -> None:
    """Of a service on every address, for each of the hosts that it may have been given."""

    def check(host: str, port: int) -> int:
        command = [sys.executable, "-I", "-S", str(HEALTHCHECK)]
        variables = {"LSTMSERVE_HOST": host, "LSTMSERVE_PORT": str(port)}
        return subprocess.run(command, env=variables, capture_output=True, timeout=PATIENCE, check=False).returncode

    with Process(ASKER / "k215_model.h5", LSTMSERVE_HOST=HOSTS[-1]) as process:
        assert [check(host, process.port) for host in HOSTS] == [0] * len(HOSTS)
    assert [check(host, process.port) for host in HOSTS] == [1] * len(HOSTS)


def test_each_place_says_the_same_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    minors = [int(each) for each in re.findall(r"Python :: 3\.(\d+)", " ".join(project["classifiers"]))]
    first, last = minors[0], minors[-1]
    assert minors == list(range(first, last + 1))
    assert ("Typing :: Typed" in project["classifiers"]) == (ROOT / "service/lstm_serve/py.typed").exists()
    assert project["requires-python"] == f">=3.{first},<3.{last + 1}"
    makefile = (ROOT / "Makefile").read_text()
    assert f"(3, {first}) <= sys.version_info < (3, {last + 1})" in makefile
    assert f"Python 3.{first} to 3.{last} is needed" in makefile
    assert f"With Python 3.{first} to 3.{last}, on Linux, macOS or Windows" in (ROOT / "README.md").read_text()


@pytest.mark.skipif(shutil.which("make") is None or shutil.which("git") is None, reason="needs make and git")
def test_a_release_is_made_of_a_clean_tag(tmp_path: Path) -> None:
    def run(*command: str) -> int:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode

    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "service/lstm_serve").mkdir(parents=True)
    source = tmp_path / "service/lstm_serve/__init__.py"
    source.write_text('__version__ = "1.2.3"\n')
    commit = ("-c", "user.name=n", "-c", "user.email=e", "commit", "--quiet", "--message", "m")
    for command in (("init", "--quiet"), ("add", "."), commit):
        assert run("git", *command) == 0
    assert run("make", "tagged") != 0
    assert run("git", "tag", "v1.2.3") == 0
    assert run("make", "tagged") == 0
    source.write_text('__version__ = "1.2.3"  # changed\n')
    assert run("make", "tagged") != 0
    source.write_text('__version__ = "1.2.4"\n')
    assert run("make", "tagged") != 0


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_a_release_names_its_base_image_by_the_digest() -> None:
    def made(*what: str) -> tuple[int, str]:
        command = ("make", *what)
        # The make that runs the tests leaves its own marks there.
        own = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
        done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    (base,) = re.findall(r"^ARG BASE_IMAGE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE) == ["${BASE_IMAGE}"] * 2
    status, told = made("pinned")
    assert status
    assert f"make release BASE_IMAGE={base}@sha256:..." in told
    digest = f"{base}@sha256:{'0' * 64}"
    assert made("pinned", f"BASE_IMAGE={digest}") == (0, "")
    assert f"--build-arg BASE_IMAGE={digest} " in made("--dry-run", "image", f"BASE_IMAGE={digest}")[1]
    assert f"--build-arg BASE_IMAGE={base} " in made("--dry-run", "image")[1]


def test_the_image_is_bound_to_no_processor() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"x86|amd64|arm64|aarch64|--platform", dockerfile)
    assert re.search(r"^PLATFORMS \?= linux/amd64,linux/arm64$", (ROOT / "Makefile").read_text(), re.MULTILINE)
