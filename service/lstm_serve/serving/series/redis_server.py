"""The server that keeps series for all replicas: Redis or Valkey, a few connections, and whether it answers."""

import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Any

from lstm_serve.errors import SettingsError, StoreUnavailable
from lstm_serve.settings import PREFIX

log = logging.getLogger(__name__)

# How long it may take to connect, to answer, and to have one of the connections free; the URL may say others.
SECONDS = 2.0
CONNECTIONS = 16
# What fails in a script itself, not for the state that Redis is in, which is told like that too before Redis 7.
OF_A_SCRIPT = re.compile(
    r"^(?!.*\b(OOM|MISCONF|READONLY|NOREPLICAS|NOPERM|MASTERDOWN|CLUSTERDOWN)\b).*user_script", re.DOTALL
)
# What a Redis says that answers what is read, but takes nothing: full, no disk, a replica, too few replicas.
TAKES_NOTHING = re.compile(r"\b(OOM|MISCONF|READONLY|NOREPLICAS)\b")
INSTALL = "pip install 'lstm-serve[redis]'"

ScriptArgument = bytes | str | float  # an argument of a script
ScriptCall = tuple[Sequence[str], *tuple[ScriptArgument, ...]]  # the keys that it is about, and its arguments


class RedisServer:
    """Redis, which runs scripts; it is connected to when it is first asked, and anew where it was away.

    Nothing is sent twice: it may have been done without an answer. A client that knows what a repeat is repeats.
    """

    def __init__(self, url: str) -> None:
        """Raises SettingsError where the URL is none, or the package is not there; it never holds the URL."""
        try:
            from redis import exceptions  # noqa: PLC0415 - of whom series are to outlive
            from redis.asyncio import BlockingConnectionPool, Redis  # noqa: PLC0415
            from redis.asyncio.retry import Retry  # noqa: PLC0415
            from redis.backoff import NoBackoff  # noqa: PLC0415
        except ImportError:
            raise SettingsError(f"{PREFIX}SERIES_STORE needs a package that is not installed: {INSTALL}") from None
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS,
                timeout=SECONDS,
                socket_timeout=SECONDS,
                socket_connect_timeout=SECONDS,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
            )
            pool.make_connection()  # type: ignore[no-untyped-call] # of which the URL may ask what it has not
        except (ValueError, TypeError, exceptions.RedisError):
            raise SettingsError(
                f"{PREFIX}SERIES_STORE: expected redis://, rediss:// or unix:// and where Redis is, such as "
                "redis://:password@127.0.0.1:6379/0"
            ) from None
        self._client, self._errors = Redis.from_pool(pool), exceptions
        self._ask: Callable[..., Awaitable[Any]] = self._client.execute_command
        self.away = False
        self._takes_nothing = False  # whether that is why
        self._fault = ""  # which the log has already

    async def run(self, script: str, keys: Sequence[str], *given: ScriptArgument, always_writes: bool = False) -> Any:  # noqa: ANN401 - as it says
        """Run a script that is done whole or not at all. Raises StoreUnavailable: it may be done or not, then.

        Once Redis took nothing it is away until a script is done that `always_writes`: others may be done without.
        """
        arguments = (len(keys), *keys, *given)
        try:
            try:
                answer = await self._ask("EVALSHA", _digest(script), *arguments)
            except self._errors.NoScriptError:
                answer = await self._ask("EVAL", script, *arguments)
        except (self._errors.RedisError, OSError) as error:
            raise self._refusal(error) from None
        self._answered(took=always_writes)
        return answer

    async def run_each(self, script: str, several: Sequence[ScriptCall]) -> list[Any]:
        """Run a script for each of several, in their order and in one round trip: what it says, or StoreUnavailable.

        Raises StoreUnavailable where none of them has an answer.
        """
        if not several:
            return []
        if len(several) == 1:
            return [await self.run(script, *several[0])]
        pipeline = self._client.pipeline(transaction=False)
        for k, (keys, *given) in enumerate(several):
            how = ("EVALSHA", _digest(script)) if k else ("EVAL", script)  # the first one makes it known
            pipeline.execute_command(*how, len(keys), *keys, *given)
        try:
            answers = await pipeline.execute(raise_on_error=False)
        except (self._errors.RedisError, OSError) as error:
            raise self._refusal(error) from None
        faults = {k: self._refusal(each) for k, each in enumerate(answers) if isinstance(each, self._errors.RedisError)}
        if not faults:
            self._answered(took=False)
        elif len(faults) == len(answers):
            raise faults[0]
        return [faults.get(k, each) for k, each in enumerate(answers)]

    def _answered(self, *, took: bool) -> None:
        if not self.away or (self._takes_nothing and not took):
            return
        log.info("the store of series answers again")
        self.away = self._takes_nothing = False

    def _refusal(self, error: Exception) -> StoreUnavailable:
        """What is told of an error, which the log has once."""
        if type(error) is self._errors.ResponseError and OF_A_SCRIPT.search(str(error)):
            if str(error) != self._fault:
                log.warning("the store of series cannot do what it is asked for: %s", error)
            self._fault = str(error)
            return StoreUnavailable("the store of series cannot do this: the log of the service says why")
        if not self.away:
            log.warning("the store of series does not take or answer anything: %s", error)
        self.away = True
        full_or_read_only = (self._errors.OutOfMemoryError, self._errors.ReadOnlyError)
        self._takes_nothing |= isinstance(error, full_or_read_only) or TAKES_NOTHING.search(str(error)) is not None
        return StoreUnavailable(
            "the store of series does not answer, or takes nothing: rows of this request may be there or not, "
            "so send them again, with their seq"
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


@cache
def _digest(script: str) -> str:
    """What Redis calls a script that it has."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
