"""What a body is declared to be."""

import re
from collections.abc import Mapping

from lstm_serve.errors import Malformed, UnknownType
from lstm_serve.formats.npy import NPY_MAGIC
from lstm_serve.formats.text import without_mark
from lstm_serve.web.inflate import GZIP_MAGIC
from lstm_serve.web.nested_lists import NPY_GOES, UTF_16

NO_WEIGHT = re.compile(rb"q\s*=\s*0(\.0*)?")


def media_type(headers: Mapping[bytes, bytes]) -> bytes:
    """The declared content type without its parameters, in lower case; nothing where none is declared."""
    return headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower()


def accepted(headers: Mapping[bytes, bytes]) -> set[bytes]:
    """The media types, in lower case, that Accept names, but with the weight 0, which says not (RFC 9110, 12.4.2)."""
    found = set()
    for each in headers.get(b"accept", b"").lower().split(b","):
        kind, *parameters = map(bytes.strip, each.split(b";"))
        if not any(map(NO_WEIGHT.fullmatch, parameters)):
            found.add(kind)
    return found


def expect_json(headers: Mapping[bytes, bytes], raw: bytes) -> None:
    """Raise UnknownType where a body is declared to be something else, and Malformed where there is none."""
    if not raw:
        raise Malformed("the body is empty; expected JSON")
    declared = headers.get(b"content-type")
    if declared is None or declared == b"application/json":
        return
    kind = media_type(headers)
    if kind in {b"application/json", b"text/json"} or (kind.startswith(b"application/") and kind.endswith(b"+json")):
        return
    # curl's -d declares a form; it leaves the zeros of UTF-16 out.
    if kind == b"application/x-www-form-urlencoded" and without_mark(raw).lstrip().startswith((b"{", b"[", *UTF_16)):
        return
    hint = ""
    if raw.startswith(GZIP_MAGIC):
        hint = "; the body is compressed, which the header Content-Encoding has to say"
    elif raw.startswith(NPY_MAGIC):
        hint = f"; an array in .npy format {NPY_GOES}"
    elif kind == b"text/csv":
        hint = (
            "; CSV goes to POST /predict/series, a row a line, or to /invocations, a flattened sequence a line; "
            f"an array {NPY_GOES}"
        )
    elif kind in {b"application/jsonlines", b"application/x-ndjson"}:
        hint = '; put the lines\' sequences into one list: {"sequences": [...]}, for /predict/batch or /invocations'
    elif kind == b"application/x-www-form-urlencoded":
        hint = (
            "; the body is declared a form, as curl -d does, and is not JSON; curl -d sends a file as -d @name, "
            "and CSV goes to POST /predict/series by -H 'Content-Type: text/csv' --data-binary @name"
        )
    raise UnknownType(f"expected the content type application/json{hint}")
