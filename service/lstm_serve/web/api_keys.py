"""API keys: who may call, where that is restricted. Several count at once, so that one can follow another."""

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from starlette.requests import Request

from lstm_serve.errors import SettingsError
from lstm_serve.formats.polling import NOT_WAITING, readable
from lstm_serve.formats.text import decode, not_utf8
from lstm_serve.settings import PREFIX, Settings

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 1 << 20
# How long whoever writes a file that is a pipe may take.
MAX_SECONDS = 10.0
# Of fewer characters, even random ones can be tried through.
ENOUGH_CHARACTERS = 16
# What a header can carry as a bearer token; RFC 6750 allows less, and other clients send more.
KEY = re.compile(r"[\x21-\x7e]+")
# v2's health of a model.
OF_MODEL = re.compile("/v2/models/[^/]+(/versions/[^/]+)?/ready")
BEARER = re.compile(rb"bearer +([\x21-\x7e]+) *", re.IGNORECASE)


class Keys:
    """The keys in force, as digests: neither a key nor its length is kept, or shows in the time of a comparison.

    What a digest begins with leads to the whole, however many there are. It is made with a secret of this process, so
    that the time of a look-up tells nothing of a key either.
    """

    def __init__(self, settings: Settings) -> None:
        """Read them. Raises SettingsError, which never holds a key."""
        self._settings = settings
        self._secret = secrets.token_bytes(32)
        self._digests = self.read()

    def read(self) -> dict[bytes, bytes]:
        """Return what `use` takes, of the keys that the settings and the file have now.

        A file that is a pipe is waited for. Raises SettingsError.
        """
        digests = map(self._digest, _keys(self._settings))
        return {digest[:16]: digest for digest in digests}

    def use(self, read: dict[bytes, bytes]) -> None:
        """Let these keys count from now on, and no others."""
        self._digests = read

    def admit(self, authorization: bytes | None) -> bool:
        """Whether the value of a header Authorization holds one of the keys."""
        match = BEARER.fullmatch(authorization or b"")
        if match is None:
            return False
        given = self._digest(match[1])
        return hmac.compare_digest(given, self._digests.get(given[:16], b""))

    def owner(self, authorization: bytes | None) -> bytes:
        """Whose a request is that was admitted: the same for each with the same key, in any process; not the key."""
        match = BEARER.fullmatch(authorization or b"")
        return b"" if match is None else hashlib.blake2b(match[1], digest_size=16, person=b"owner of series").digest()

    def _digest(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, digest_size=32, key=self._secret).digest()


def may_know(request: Request) -> bool:
    """Whether a request on a path that needs no key may be told what is for callers alone."""
    keys: Keys | None = request.app.state.keys
    return keys is None or keys.admit(request.scope["state"]["headers"].get(b"authorization"))


def why_refused(authorization: bytes | None) -> str:
    """Why a header Authorization, which may be missing, does not admit. It never holds the key."""
    if authorization is None or BEARER.fullmatch(authorization) is None:
        return "expected the header Authorization: Bearer <key>"
    return "the key in the header Authorization is none of those that are valid here"


def configured(settings: Settings) -> bool:
    """Whether callers need a key at all."""
    return settings.api_keys is not None or settings.api_keys_file is not None


def _keys(settings: Settings) -> list[bytes]:
    found: list[bytes] = []
    if settings.api_keys is not None:
        found += _checked(settings.api_keys.get_secret_value().split(","), f"{PREFIX}API_KEYS")
    if settings.api_keys_file is not None:
        where = f"the file of {PREFIX}API_KEYS_FILE, {settings.api_keys_file},"
        try:
            content = _content(settings.api_keys_file)
        except TimeoutError:
            raise SettingsError(f"{where} cannot be read: nothing came from it in {MAX_SECONDS:g} seconds") from None
        except OSError as error:
            raise SettingsError(f"{where} cannot be read: {error.strerror or 'unknown error'}") from None
        if len(content) > MAX_FILE_BYTES:
            raise SettingsError(f"{where} is over {MAX_FILE_BYTES} bytes, and so none of its keys is taken")
        try:
            lines = decode(content).splitlines()
        except UnicodeDecodeError:
            raise SettingsError(f"{where} {not_utf8(content)}") from None
        found += _checked(lines, where)
    return found


def _content(path: Path) -> bytes:
    """What a file begins with, up to a byte more than may be in it. Raises OSError; TimeoutError of a pipe."""
    end = time.monotonic() + MAX_SECONDS
    content = b""
    descriptor = os.open(path, os.O_RDONLY | NOT_WAITING)
    come = readable(descriptor)
    try:
        while len(content) <= MAX_FILE_BYTES:
            if not come(max(0, end - time.monotonic())):
                raise TimeoutError
            part = os.read(descriptor, MAX_FILE_BYTES + 1 - len(content))
            if not part:
                break
            content += part
    finally:
        os.close(descriptor)
    return content


def _checked(given: Iterable[str], where: str) -> list[bytes]:
    keys = [key.strip() for key in given if key.strip()]
    if not keys:
        raise SettingsError(f"{where} holds no key. Leave the setting out where callers need none")
    for number, key in enumerate(keys, 1):
        if not KEY.fullmatch(key):
            raise SettingsError(f"key {number} in {where} cannot be sent: a key is printable ASCII without spaces")
    if short := [number for number, key in enumerate(keys, 1) if len(key) < ENOUGH_CHARACTERS]:
        log.warning(
            "%d of %d keys in %s have fewer than %d characters, the first of them key %d: they can be guessed; "
            "'openssl rand -hex 32' makes good ones",
            len(short),
            len(keys),
            where,
            ENOUGH_CHARACTERS,
            short[0],
        )
    return [key.encode() for key in keys]


def needs_key(path: str, opened: frozenset[str]) -> bool:
    """Whether a path, or its template, is none of the open ones nor v2's health of a model."""
    return path not in opened and OF_MODEL.fullmatch(path) is None
