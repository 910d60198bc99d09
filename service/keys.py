"""API keys: who may call, where that is restricted. Several count at once, so that one can follow another."""

import hashlib
import hmac
import re

from service.errors import SettingsError
from service.settings import PREFIX, Settings

MAX_FILE_BYTES = 1 << 20
# What a header can carry as a bearer token; RFC 6750 allows less, and other clients send more.
KEY = re.compile(r"[\x21-\x7e]+")
BEARER = re.compile(rb"bearer +([\x21-\x7e]+) *", re.IGNORECASE)


class Keys:
    """The keys in force, as digests: neither a key nor its length is kept, or shows in the time of a comparison."""

    def __init__(self, settings: Settings) -> None:
        """Read them. Raises SettingsError, which never holds a key."""
        self._settings = settings
        self._digests = _digests(settings)

    def read_again(self) -> None:
        """Take the keys that the file has now. Raises SettingsError; then the keys before stay in force."""
        self._digests = _digests(self._settings)

    def admit(self, authorization: bytes | None) -> bool:
        """Whether the value of a header Authorization holds one of the keys."""
        match = BEARER.fullmatch(authorization or b"")
        given = hashlib.sha256(match[1] if match else b"").digest()
        found = False
        for digest in self._digests:
            found |= hmac.compare_digest(given, digest)
        return found and match is not None


def configured(settings: Settings) -> bool:
    """Whether callers need a key at all."""
    return settings.api_keys is not None or settings.api_keys_file is not None


def _digests(settings: Settings) -> tuple[bytes, ...]:
    found: list[bytes] = []
    if settings.api_keys is not None:
        found += _of(settings.api_keys.get_secret_value().split(","), f"{PREFIX}API_KEYS")
    if settings.api_keys_file is not None:
        where = f"the file of {PREFIX}API_KEYS_FILE"
        try:
            with settings.api_keys_file.open("rb") as file:
                lines = file.read(MAX_FILE_BYTES).decode("utf-8").splitlines()
        except OSError as error:
            raise SettingsError(f"{where} cannot be read: {error.strerror or 'unknown error'}") from None
        except UnicodeDecodeError:
            raise SettingsError(f"{where} is not text") from None
        found += _of(lines, where)
    return tuple(found)


def _of(given: list[str], where: str) -> list[bytes]:
    keys = [key.strip() for key in given if key.strip()]
    if not keys:
        raise SettingsError(f"{where} holds no key. Leave the setting out where callers need none")
    for number, key in enumerate(keys, 1):
        if not KEY.fullmatch(key):
            raise SettingsError(f"key {number} in {where} cannot be sent: a key is printable ASCII without spaces")
    return [hashlib.sha256(key.encode()).digest() for key in keys]
