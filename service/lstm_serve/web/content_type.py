"""What a body is declared to be, and what an answer is wanted to be."""

import re
from collections.abc import Mapping

from lstm_serve.errors import Malformed, UnknownType
from lstm_serve.formats.npy import NPY_MAGIC
from lstm_serve.formats.text import without_mark
from lstm_serve.web.inflate import GZIP_MAGIC
from lstm_serve.web.nested_lists import NPY_GOES, UTF_16

WEIGHT = re.compile(rb"q\s*=\s*([01](?:\.[0-9]*)?)")


def media_type(headers: Mapping[bytes, bytes]) -> bytes:
    """The declared content type without its parameters, in lower case; nothing where none is declared."""
    return headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower()


def preferred(headers: Mapping[bytes, bytes], *offered: bytes) -> bytes:
    """Of these media types what Accept gives the greatest weight, and of equals the first (RFC 9110, 12.5.1).

    The last one is for who has no preference, and is all that is meant by a range such as */*.
    """
    accept, usual = headers.get(b"accept"), offered[-1]
    if accept is None or len(offered) == 1:
        return usual
    weights = dict[bytes, float]()
    for each in accept.lower().split(b","):
        name, *parameters = map(bytes.strip, each.split(b";"))
        found = next(filter(None, map(WEIGHT.fullmatch, parameters)), None)
        weights[name] = 1.0 if found is None else float(found[1])
    ranges = (usual, usual.split(b"/")[0] + b"/*", b"*/*")
    weights[usual] = next((weights[name] for name in ranges if name in weights), 0.0)
    best = max(offered, key=lambda name: weights.get(name, 0.0))
    return best if weights.get(best) else usual


def expect_json(headers: Mapping[bytes, bytes], raw: bytes) -> None:
    """Raise UnknownType where a body is declared to be something else, and Malformed where there is none."""
    if not raw:
        raise Malformed("the body is empty; expected JSON")
    declared = headers.get(b"content-type")
    if declared is None or declared == b"application/json":
        return
    sent_as = media_type(headers)
    if sent_as in {b"application/json", b"text/json"} or (
        sent_as.startswith(b"application/") and sent_as.endswith(b"+json")
    ):
        return
    # curl's -d declares a form; it leaves the zeros of UTF-16 out.
    if sent_as == b"application/x-www-form-urlencoded" and without_mark(raw).lstrip().startswith((b"{", b"[", *UTF_16)):
        return
    if raw.startswith(GZIP_MAGIC):
        hint = "; the body is compressed, which the header Content-Encoding has to say"
    elif raw.startswith(NPY_MAGIC):
        hint = f"; an array in .npy format {NPY_GOES}"
    elif sent_as in {b"application/jsonlines", b"application/x-ndjson"}:
        hint = '; put the lines\' sequences into one list: {"sequences": [...]}, for /predict/batch or /invocations'
    elif sent_as == b"application/x-www-form-urlencoded":
        hint = (
            "; the body is declared a form, as curl -d does, and is not JSON; curl -d sends a file as -d @name, "
            "and CSV goes to POST /predict/series by -H 'Content-Type: text/csv' --data-binary @name"
        )
    else:
        hint = (
            "; CSV goes as text/csv to POST /predict/series, a row a line, or to /invocations, a flattened sequence a "
            f"line; an array {NPY_GOES}"
        )
    raise UnknownType(f"expected the content type application/json{hint}")
