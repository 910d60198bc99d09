"""The place of one worker: its sockets, which stay, and the process that listens on them, which another may follow."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Mapping
from typing import Any

from lstm_serve.errors import LstmServeError
from lstm_serve.process.channel import Channel, Handlers
from lstm_serve.process.sockets import renew
from lstm_serve.serving.children import PROGRAM, how_ended, python

END_SECONDS = 10.0  # for a process that has closed its end of the channel
LAST_SECONDS = 1.0  # for what a process that has ended has said last
TURN_SECONDS = 1.0
# A worker that ends within a second of its start has failed.
SHORT_SECONDS = 1.0
MOST_SECONDS = 30  # between two that fail

WORKER = PROGRAM.format("lstm_serve.process.worker")

# The digests of models, by name and version.
Digests = dict[str, dict[str, str]]


class WorkerPlace:
    """What is known of a worker."""

    channel: Channel

    def __init__(self, number: int, sockets: list[socket.socket]) -> None:
        """No process has it yet."""
        self.number, self.sockets = number, sockets
        self.process: asyncio.subprocess.Process | None = None
        self.short = 0  # how many have ended as they began, one after the other
        self.reason = ""  # of the last that has ended
        self.away = False  # whether its sockets do not listen, as it has none that serves
        self.again = asyncio.Event()  # whether not to wait with the next
        self.clear()

    def clear(self) -> None:
        """Forget the process that had it."""
        self.models: Digests | None = None  # what it would serve, or serves
        self.let = False  # whether it may serve
        self.since: float | None = None  # when it began to, in the time of the event loop
        self.seen = 0.0  # when it last told of itself
        self.told: dict[str, Any] | None = None  # what that was
        self.failure: LstmServeError | None = None  # why it cannot serve
        self.watching: asyncio.Task[None] | None = None

    async def live(self, handlers: Handlers, env: Mapping[str, str], log_lock: int, *, greets: bool) -> str:
        """Give it a process, and wait until that has ended. Gives how it did."""
        self.again.clear()
        ours, theirs = socket.socketpair()
        inherited = [one.fileno() for one in self.sockets]
        with theirs:
            self.process = process = await asyncio.create_subprocess_exec(
                *python(WORKER, json.dumps([theirs.fileno(), inherited, log_lock, greets])),
                stdin=asyncio.subprocess.DEVNULL,
                env=env,
                pass_fds=[theirs.fileno(), log_lock, *inherited],
            )
        self.channel = Channel(handlers)
        await self.channel.open(ours)
        speaking, ended = asyncio.create_task(self.channel.run()), asyncio.create_task(process.wait())
        await asyncio.wait([speaking, ended], return_when=asyncio.FIRST_COMPLETED)
        with contextlib.suppress(TimeoutError):  # a child that it was about to start may have its end of the channel
            async with asyncio.timeout(LAST_SECONDS):
                await speaking
        if self.watching is not None:
            self.watching.cancel()
        try:
            async with asyncio.timeout(END_SECONDS):
                status = await ended
        except TimeoutError:
            self.kill()
            status = await process.wait()
        return how_ended(status)

    @property
    def lasting(self) -> bool:
        """Whether its process serves, or has served, for long enough."""
        return self.since is not None and asyncio.get_running_loop().time() - self.since >= SHORT_SECONDS

    @property
    def pause(self) -> int:
        """Seconds until the next: none after one that has ended, then more after each that has failed."""
        return 0 if self.short < 2 else min(2 ** min(self.short - 2, 10), MOST_SECONDS)

    def leave(self) -> None:
        """Listen no more, until a process does: who connects goes to the others instead of waiting for it."""
        self.away = True
        self.sockets = [*map(renew, self.sockets)]

    async def wait(self) -> None:
        """Wait for the time of the next, or until it may be tried at once."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.pause):
                await self.again.wait()

    def kill(self) -> None:
        """End its process at once."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()

    async def ask_report(self) -> bool:
        """Have it tell of itself; whether it did."""
        try:
            told: dict[str, Any] | None = await self.channel.ask("report")
        except ConnectionError:
            return False
        if told is not None:
            self.told, self.seen = told, asyncio.get_running_loop().time()
        return told is not None

    async def answers(self, seconds: int) -> bool:
        """Whether it tells of itself within so many seconds, in which this process has had its turns too."""
        asked = asyncio.create_task(self.ask_report())
        for _ in range(seconds):  # after both were stopped for a while, one wait would be over at once
            if (await asyncio.wait([asked], timeout=TURN_SECONDS))[0]:
                return asked.result()
        asked.cancel()
        return False
