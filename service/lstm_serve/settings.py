"""Every knob: its variable, its flag, its default, its bounds. The only reader of the environment."""

import argparse
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from lstm_serve.errors import SettingsError
from lstm_serve.limits import MAX_MODEL_BYTES, MODEL_NAME

PREFIX = "LSTMSERVE_"
# What Kubernetes puts into every pod for a Service called lstmserve, or lstmserve-something.
OF_A_SERVICE = re.compile(PREFIX + r"(.+_)?(SERVICE_(HOST|PORT)(_.+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_.+)?)")
URL_OF_A_SERVICE = re.compile(r"(tcp|udp|sctp)://")

METAVARS: dict[Any, str] = {Path | None: "FILE", int | None: "N", str | None: "NAME"}

Bytes = Annotated[int, Field(gt=0, le=1 << 45)]
Count = Annotated[int, Field(gt=0, le=1 << 31)]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Route = Annotated[str, Field(pattern=r"^/[A-Za-z0-9._~:/-]{1,200}$")]

# What a browser sends as Origin: a scheme and a host, and a port that is not the scheme's own.
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/,*]+")
OWN_PORT = re.compile(r"https://.*:443|http://.*:80")


def _origins(given: str) -> str:
    origins = [origin.strip().lower() for origin in given.split(",")]
    if origins != ["*"] and not all(ORIGIN.fullmatch(origin) and not OWN_PORT.fullmatch(origin) for origin in origins):
        raise PydanticCustomError(
            "origins",
            "expected origins as browsers send them, such as https://a.example or https://a.example:8443, "
            "comma-separated, without a path, a slash at the end, or the scheme's own port (443 of https, 80 of http), "
            "or * alone",
        )
    return ",".join(origins)


Origins = Annotated[str, AfterValidator(_origins)]


def _name(given: str) -> str:
    if not re.fullmatch(MODEL_NAME, given):
        raise PydanticCustomError(
            "name", "expected at most 100 letters, digits, '.', '_' and '-', a letter or a digit first"
        )
    return given


ModelName = Annotated[str, AfterValidator(_name)]


def _workers(given: Any) -> Any:  # noqa: ANN401 - a text or a number
    if given == "auto" or str(given).isdecimal():
        return given
    raise PydanticCustomError("workers", "expected a whole number, or auto")


WorkerCount = Annotated[Annotated[int, Field(ge=1, le=256)] | Literal["auto"], BeforeValidator(_workers)]

# What clouds call some of them: Cloud Run and Heroku say PORT, Vertex AI says the others. A variable of ours wins.
CLOUDS = {
    "PORT": "port",
    "AIP_HTTP_PORT": "port",
    "AIP_HEALTH_ROUTE": "health_route",
    "AIP_PREDICT_ROUTE": "predict_route",
}

# By Pydantic's types of errors, with what it says of each.
WORDS = {
    **dict.fromkeys(("int_parsing", "int_parsing_size", "int_from_float", "int_type"), "expected a whole number"),
    "float_parsing": "expected a number",
    "finite_number": "expected a finite number",
    **dict.fromkeys(("bool_parsing", "bool_type"), "expected true or false"),
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected {ge} or more",
    "less_than_equal": "expected at most {le}",
    "string_too_short": "expected a text that is not empty",
    "string_pattern_mismatch": "expected a path: a / and then at most 200 letters, digits and ._~:/-",
}


# What is out of them is a number, and so no secret.
OF_BOUNDS = {"greater_than", "greater_than_equal", "less_than_equal"}
MOST_SHOWN = 40


class Settings(BaseModel):
    """Each field is the variable LSTMSERVE_<FIELD> and the flag --<field> of `lstm-serve serve`; the flag wins."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: Annotated[Path, Field(description="the model: a file that Keras saved, or a folder with one, or several")]
    name: Annotated[ModelName | None, Field(description="what a single model is called, whatever its card says")] = None
    default_model: Annotated[str | None, Field(description="of several models, that of paths without a name")] = None
    recurrent_activation: Annotated[
        str | None, Field(description="the gates' function, where weights alone do not tell it")
    ] = None
    output_activation: Annotated[
        str | None, Field(description="the last layer's function, where weights alone do not tell it")
    ] = None
    max_model_bytes: Annotated[Bytes, Field(description="most memory for the model's arrays")] = MAX_MODEL_BYTES
    host: Annotated[str, Field(min_length=1, description="address to listen on; :: is every one, of IPv4 too")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Field(ge=0, le=65_535, description="port to listen on; 0 takes a free one")] = 8080
    admin_port: Annotated[
        int | None, Field(ge=0, le=65_535, description="one more port, for health and metrics: plain HTTP, no key")
    ] = None
    workers: Annotated[WorkerCount, Field(description="processes that serve, or auto: one for each core there is")] = 1
    access_log: Annotated[bool, Field(description="log each request")] = True
    max_body_bytes: Annotated[Count, Field(description="largest request body")] = 2 << 20
    max_inflight_bytes: Annotated[Count, Field(description="most bytes of bodies, rows and untaken answers")] = 32 << 20
    max_rows: Annotated[Count, Field(description="most sequences in one request")] = 1024
    max_batch_rows: Annotated[Count, Field(le=1 << 14, description="most sequences in a forward pass")] = 128
    max_timesteps: Annotated[Count, Field(description="longest sequence, where the model's length is free")] = 10_000
    max_queue_rows: Annotated[Count, Field(description="most sequences waiting; more are refused with 429")] = 4096
    series_max: Annotated[Count, Field(description="most series of rows that are kept")] = 10_000
    series_ttl_seconds: Annotated[
        Seconds, Field(gt=0, description="how long a series is kept to which no rows come")
    ] = 3600.0
    drift_rows: Annotated[
        int, Field(ge=1000, le=20_000, description="rows of a window that is held against the model's profile")
    ] = 5000
    series_store: Annotated[
        SecretStr | None, Field(description="redis://..., where series are kept for restarts and replicas")
    ] = None
    max_connections: Annotated[
        Count, Field(description="most connections at once; for more, who waits longest goes")
    ] = 1000
    max_header_bytes: Annotated[Count, Field(description="largest headers of a request")] = 32 << 10
    header_seconds: Annotated[Seconds, Field(gt=0, description="how long a request's headers may take")] = 10.0
    body_seconds: Annotated[Seconds, Field(gt=0, description="how long a request's body may take after that")] = 30.0
    deadline_seconds: Annotated[
        Seconds, Field(gt=0, description="after its body has come: a request not begun by then is answered 504")
    ] = 10.0
    keep_alive_seconds: Annotated[Count, Field(description="how long an idle connection is kept")] = 75
    drain_seconds: Annotated[
        Seconds, Field(description="after SIGTERM: how long to go on answering while /readyz says 503")
    ] = 0.0
    grace_seconds: Annotated[
        Seconds, Field(description="after the drain: how long requests in flight may take to finish")
    ] = 30.0
    health_route: Annotated[Route | None, Field(description="one more path for /readyz")] = None
    predict_route: Annotated[Route | None, Field(description="a path for v1's :predict, alone there")] = None
    reload_seconds: Annotated[
        Seconds, Field(description="how often to look whether the model's files have changed; 0 is never")
    ] = 0.0
    api_keys: Annotated[SecretStr | None, Field(description="keys of which a caller needs one, comma-separated")] = None
    api_keys_file: Annotated[Path | None, Field(description="a file of such keys, one a line")] = None
    open_metrics: Annotated[bool, Field(description="/metrics needs no key")] = False
    open_docs: Annotated[bool, Field(description="/docs and /openapi.json need no key")] = False
    page: Annotated[bool, Field(description="a browser gets a page at /, to try the model on a series")] = True
    cors_origins: Annotated[
        Origins | None, Field(description="origins whose pages may call from a browser, parted by commas; * is any")
    ] = None
    tls_certfile: Annotated[Path | None, Field(description="serve HTTPS, with this certificate chain (PEM)")] = None
    tls_keyfile: Annotated[Path | None, Field(description="its private key (PEM), if not in the same file")] = None

    @property
    def sizes(self) -> tuple[int, int]:
        """The most sequences of a request, and the most time steps of one where a model leaves that free."""
        return self.max_rows, self.max_timesteps

    @property
    def told(self) -> dict[str, Any]:
        """What is told of the model besides its path, as load_model takes it."""
        told = self.model_dump(include={"recurrent_activation", "output_activation"})
        return {**told, "max_bytes": self.max_model_bytes}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give the parser a flag for each setting but `model`, which is an argument, and secrets, which ps would show."""
    for name, field in Settings.model_fields.items():
        if name == "model" or is_secret(name):
            continue
        flag, text = f"--{name.replace('_', '-')}", f"{field.description} (default {field.default})"
        if field.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            number = isinstance(field.default, int | float)
            metavar = "N" if number else METAVARS.get(field.annotation, "TEXT")
            parser.add_argument(flag, default=None, metavar=metavar, help=text)


def is_secret(name: str) -> bool:
    """Whether a setting is a secret."""
    return SecretStr in get_args(Settings.model_fields[name].annotation)


def instead_of_flag(flag: str) -> str | None:
    """Say what to do instead of a flag that a secret would have; None where it is none's."""
    name = flag.removeprefix("--").replace("-", "_")
    if name not in Settings.model_fields or not is_secret(name):
        return None
    in_file = f", or give {flag}-file" if f"{name}_file" in Settings.model_fields else ""
    return f"{flag} is no flag, as everyone can list a command line: set {PREFIX}{name.upper()}{in_file}"


def read(environ: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """The settings of an environment and of flags, of which None means not given.

    Raises SettingsError that names the variable or the flag, what was expected, and of values none but a number that is
    out of its bounds.
    """
    given: dict[str, Any] = {name: environ[variable] for variable, name in CLOUDS.items() if variable in environ}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX):
            continue
        if OF_A_SERVICE.fullmatch(variable) or URL_OF_A_SERVICE.match(value):
            raise SettingsError(
                f"{variable} was set by Kubernetes, for a Service whose name begins with lstmserve. Rename the "
                "Service, or set enableServiceLinks: false in the pod's spec"
            )
        name = variable.removeprefix(PREFIX).lower()
        if name not in Settings.model_fields:
            near = difflib.get_close_matches(name, Settings.model_fields, n=1)
            meant = f" Did you mean {PREFIX}{near[0].upper()}?" if near else ""
            raise SettingsError(f"{variable} is not a setting.{meant} 'lstm-serve serve --help' lists them")
        given[name] = value
    given |= {name: value for name, value in flags.items() if value is not None}
    no_model = "" if given.get("model") else f"no model: give a file that Keras saved, or set {PREFIX}MODEL"
    try:
        settings = Settings.model_validate({**given, "model": given.get("model") or "none"})
    except ValidationError as error:
        (problem, *_) = error.errors(include_url=False)
        source = _source(str(problem["loc"][0]), environ, flags)
        # serve --port model.h5
        took = f"; {no_model}. Has {source} taken it for its value?" if no_model and source.startswith("--") else ""
        raise SettingsError(f"{source}: {_in_words(problem)}{took}") from None
    if no_model:
        raise SettingsError(no_model)
    _expect_together(settings)
    return settings


def _expect_together(settings: Settings) -> None:
    """Raise SettingsError where one setting makes no sense beside another."""
    if settings.tls_keyfile is not None and settings.tls_certfile is None:
        raise SettingsError(f"{PREFIX}TLS_KEYFILE is of no use without {PREFIX}TLS_CERTFILE")
    if settings.admin_port and settings.admin_port == settings.port:
        raise SettingsError(
            f"{PREFIX}ADMIN_PORT and {PREFIX}PORT are both {settings.port}: expected a port of its own for each"
        )
    if settings.max_rows > settings.max_queue_rows:
        raise SettingsError(
            f"{PREFIX}MAX_ROWS ({settings.max_rows}) is over {PREFIX}MAX_QUEUE_ROWS ({settings.max_queue_rows}): "
            "such a request would never fit"
        )
    if settings.max_body_bytes > settings.max_inflight_bytes:
        raise SettingsError(
            f"{PREFIX}MAX_BODY_BYTES ({settings.max_body_bytes}) is over {PREFIX}MAX_INFLIGHT_BYTES "
            f"({settings.max_inflight_bytes}): such a body would never fit"
        )


def variables(settings: Settings) -> dict[str, str]:
    """Return the environment of which `read` makes these settings."""
    told = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if value is not None:
            plain = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            told[f"{PREFIX}{name.upper()}"] = plain
    return told


def model_bytes(environ: Mapping[str, str]) -> int | None:
    """LSTMSERVE_MAX_MODEL_BYTES, for commands that load a model and do not serve it. Raises SettingsError."""
    variable = f"{PREFIX}MAX_MODEL_BYTES"
    if variable not in environ:
        return None
    try:
        return TypeAdapter[int](Bytes).validate_python(environ[variable])
    except ValidationError as error:
        (problem, *_) = error.errors(include_url=False)
        raise SettingsError(f"{variable}: {_in_words(problem)}") from None


def _in_words(problem: ErrorDetails) -> str:
    """What was expected, in our words rather than in Pydantic's."""
    if problem["type"] not in WORDS:
        return problem["msg"]
    bounds = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in problem.get("ctx", {}).items()
    }
    came = f", got {str(problem['input']).strip()[:MOST_SHOWN]}" if problem["type"] in OF_BOUNDS else ""
    return WORDS[problem["type"]].format(**bounds) + came


def _source(name: str, environ: Mapping[str, str], flags: Mapping[str, Any]) -> str:
    """The flag or the variable that a setting came from."""
    if flags.get(name) is not None:
        return f"--{name.replace('_', '-')}"
    own = f"{PREFIX}{name.upper()}"
    if own in environ:
        return own
    return next((variable for variable in reversed(CLOUDS) if CLOUDS[variable] == name and variable in environ), own)
