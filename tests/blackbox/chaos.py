"""Everything that goes wrong around a service: bad clients, overload, restarts. `make chaos` runs it long.

Each scenario drives a real process over real sockets and gives what it counted. The tests run them short and assert on
the counts; run as a script they take a minute or more each, and the figures are printed.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from load import Connection, Lost, Question, Reply, Tally, asking, keep_asking, questions, request
from serving import ASKER, PATIENCE, ROOT, Process

from lstm_serve import load_model

MODEL = ASKER / "k215_model.h5"
LIMIT = 2 << 20


def golden_questions(sizes: Sequence[int] = (1, 1, 1, 3, 16)) -> list[Question]:
    """What Keras 2.1.5 answered, as requests."""
    with np.load(ASKER / "k215_golden.npz") as arrays:
        return questions(arrays["x0"], {load_model(MODEL).origin.digest: arrays["y0"]}, sizes)


def random_questions(sizes: Sequence[int]) -> list[Question]:
    """As many random rows as the sizes need, and what the library answers to them."""
    model = load_model(MODEL)
    x = np.random.default_rng(7).normal(size=(max(sizes), 20, 15)).round(3).astype(np.float32)
    return questions(x, {model.origin.digest: model.predict(x)}, sizes)


# Bad clients.

BODY = json.dumps({"sequence": [[0.25] * 15] * 20}).encode()
BATCH = json.dumps({"sequences": [[[0.25] * 15] * 20] * 40}).encode()
GOOD, HEAVY = request("/predict", BODY), request("/predict/batch", BATCH)
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\n"


@dataclass
class Bad:
    """What came back to the bad clients."""

    port: int
    random: random.Random
    sent: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)

    async def send(self, *parts: bytes, pause: float = 0, wait: float = 1.0, reset: bool = False) -> bytes:
        """Send parts, read what comes within `wait` seconds (0: leave at once), and close, or reset."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        came = b""
        with contextlib.suppress(OSError, TimeoutError):
            try:
                for part in parts:
                    writer.write(part)
                    await asyncio.wait_for(writer.drain(), PATIENCE)
                    if pause:
                        await asyncio.sleep(pause)
                if wait:
                    async with asyncio.timeout(wait):
                        while part := await reader.read(1 << 16):
                            came += part
            finally:
                self.statuses.update(int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", came))
                if reset:
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.close()
        return came

    def cut(self, data: bytes) -> bytes:
        return data[: self.random.randrange(1, len(data))]


async def leaves_before_the_answer(bad: Bad) -> None:
    await bad.send(HEAVY, wait=0, reset=bad.random.random() < 0.5)


async def leaves_in_the_middle(bad: Bad) -> None:
    await bad.send(bad.cut(HEAVY), wait=0, reset=bad.random.random() < 0.5)


async def connects_and_leaves(bad: Bad) -> None:
    await bad.send(wait=0, reset=bad.random.random() < 0.5)


async def sends_half(bad: Bad) -> None:
    await bad.send(bad.cut(GOOD), wait=bad.random.uniform(0.5, 6))


async def drips(bad: Bad) -> None:
    data = bad.cut(GOOD)
    await bad.send(*(data[k : k + 200] for k in range(0, len(data), 200)), pause=0.05, wait=0.2)


async def lies_about_the_length(bad: Bad) -> None:
    length = bad.random.choice(
        ["-1", "1", "5", "nan", "1e3", "99999999999", "18446744073709551616", "0x10", str(LIMIT)]
    )
    again = b"Content-Length: 7\r\n" if bad.random.random() < 0.3 else b""
    await bad.send(HEAD + f"Content-Length: {length}\r\n".encode() + again + b"\r\n" + BODY)


async def breaks_the_chunks(bad: Bad) -> None:
    chunks = bad.random.choice(
        [b"zz\r\nab\r\n", b"5\r\nabc\r\n0\r\n\r\n", b"ffffffffffffffff1\r\n", b"0\r\nx", b"-1\r\n\r\n"]
    )
    await bad.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)


async def sends_random_bytes(bad: Bad) -> None:
    await bad.send(bad.random.randbytes(bad.random.randrange(1, 5000)))


async def flips_a_bit(bad: Bad) -> None:
    data = bytearray(GOOD)
    data[bad.random.randrange(len(data))] ^= 1 << bad.random.randrange(8)
    await bad.send(bytes(data))


async def speaks_tls(bad: Bad) -> None:
    await bad.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bad.random.randbytes(500))


async def sends_too_much(bad: Bad) -> None:
    declared = bad.random.random() < 0.5
    head = f"Content-Length: {LIMIT + 1}\r\n" if declared else "Transfer-Encoding: chunked\r\n"
    part = b" " * (1 << 16) if declared else b"10000\r\n" + b" " * (1 << 16) + b"\r\n"
    await bad.send(HEAD + head.encode() + b"\r\n", *[part] * 33)


async def sends_huge_headers(bad: Bad) -> None:
    await bad.send(request("/predict", BODY, "".join(f"X-{k}: {'y' * 500}\r\n" for k in range(100))))


async def sends_bad_json(bad: Bad) -> None:
    number = bad.random.choice(["NaN", "Infinity", "1e39", "1e999", '"3"', "true", "null", "[]", "{}", "01", ""])
    body = bad.random.choice(
        [BODY.replace(b"0.25", number.encode(), 1), bad.cut(BODY), b"", b"[" * 100_000, b"\xff" * 50]
    )
    await bad.send(request("/predict", body, "Connection: close\r\n"))


async def asks_for_what_is_not_there(bad: Bad) -> None:
    path = bad.random.choice(["/", "/nothing", "/predict/", "/../etc/passwd", "/%00", "/v2/models/x", "//predict"])
    method = bad.random.choice(["GET", "PUT", "DELETE", "BREW", "OPTIONS", "CONNECT"])
    await bad.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())


async def does_not_read(bad: Bad) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", bad.port, limit=1 << 10)
    writer.write(HEAVY * 20)
    await asyncio.sleep(bad.random.uniform(0.1, 1))
    writer.close()
    del reader


async def pipelines_and_leaves(bad: Bad) -> None:
    await bad.send(GOOD * bad.random.randrange(2, 300), wait=bad.random.uniform(0, 0.2))


BEHAVIOURS: tuple[Callable[[Bad], Awaitable[None]], ...] = (
    leaves_before_the_answer,
    leaves_in_the_middle,
    connects_and_leaves,
    sends_half,
    drips,
    lies_about_the_length,
    breaks_the_chunks,
    sends_random_bytes,
    flips_a_bit,
    speaks_tls,
    sends_too_much,
    sends_huge_headers,
    sends_bad_json,
    asks_for_what_is_not_there,
    does_not_read,
    pipelines_and_leaves,
)


async def pipeline(port: int, asked: Sequence[Question], tally: Tally, until: Callable[[], bool]) -> None:
    """A good client that sends ten requests before it reads the ten answers, some of them byte by byte nearly."""
    async with Connection(port) as connection:
        turn = 0
        while not until():
            turn += 1
            reader, writer = await connection.open()
            batch = [asked[(turn + k) % len(asked)] for k in range(10)]
            data = b"".join(question.data for question in batch)
            # In pieces, but not so many that a busy machine takes longer for them than the service waits.
            step = max(700, len(data) // 20) if turn % 10 == 0 else len(data)
            try:
                for start in range(0, len(data), step):
                    writer.write(data[start : start + step])
                    if step < len(data):
                        await asyncio.sleep(0.001)
                for question in batch:
                    reply = await asyncio.wait_for(connection.read(reader), PATIENCE)
                    tally.note(reply, question.judge(reply))
            except (Lost, OSError, TimeoutError) as error:
                tally.wrong.append(f"pipelined: {error!r}")
                connection.close()


async def mixed(
    process: Process, seconds: float, seed: int = 0, good: int = 6, bad: int = 8, enough: int = 0
) -> tuple[Tally, Bad]:
    """Good clients among bad ones, for so many seconds and until `enough` were answered.

    Each bad client behaves in every way at least once.
    """
    asked, tally, clients = golden_questions(), Tally(), Bad(process.port, random.Random(seed))  # noqa: S311 - chaos, and the same each time
    end = time.monotonic() + seconds

    def over() -> bool:
        return time.monotonic() > end and (tally.good >= enough or bool(tally.wrong))

    async def behave(number: int) -> None:
        turn = 0
        while turn < len(BEHAVIOURS) // bad + 1 or not over():
            behaviour = BEHAVIOURS[(number + turn * bad) % len(BEHAVIOURS)]
            turn += 1
            clients.sent[behaviour.__name__] += 1
            with contextlib.suppress(OSError):
                await behaviour(clients)

    async with asyncio.TaskGroup() as group:
        for number in range(good):
            group.create_task(keep_asking(process.port, asked, tally, over, number))
        group.create_task(pipeline(process.port, asked, tally, over))
        for number in range(bad):
            group.create_task(behave(number))
    return tally, clients


@dataclass(frozen=True)
class Footprint:
    """What a process holds."""

    files: int
    anonymous_mib: float
    peak_mib: float


def footprint(process: Process) -> Footprint:
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    anonymous, peak = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024 for name in ("RssAnon", "VmHWM"))  # type: ignore[index]
    return Footprint(len(list(Path(f"/proc/{process.popen.pid}/fd").iterdir())), anonymous, peak)


async def settled(process: Process, files: int, mib: float = math.inf) -> Footprint:
    """The footprint once no more than `files` are open and less than `mib` is held, or as it is after a minute."""
    for _ in range(600):
        found = footprint(process)
        if found.files <= files and found.anonymous_mib < mib:
            break
        await asyncio.sleep(0.1)
    return found


# Restarts.


async def stopped_under_load(clients: int = 8, drain: str = "0") -> tuple[Tally, Process, set[str]]:
    """SIGTERM in the middle of requests. Gives the tally, the process, and the ids that were answered."""
    asked, tally, answered = golden_questions((1, 3, 16, 1)), Tally(), set()
    process = Process(MODEL, LSTMSERVE_DRAIN_SECONDS=drain)

    async def client(number: int) -> None:
        async with Connection(process.port) as connection:
            for turn in range(100_000):
                question = asked[(number + turn) % len(asked)]
                name = f"c{number}-{turn}"
                data = question.data.replace(b"Host: x\r\n", b"Host: x\r\nX-Request-Id: %s\r\n" % name.encode(), 1)
                try:
                    reply = await connection.ask(data)
                except Lost as error:
                    if error.came:
                        tally.wrong.append(f"half an answer: {error}")
                    return
                except OSError:
                    return
                answered.add(name)
                tally.note(reply, question.judge(reply))

    with process:
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(client(number))
            while tally.good < 10 * clients and not tally.wrong:  # noqa: ASYNC110 - a count has no event
                await asyncio.sleep(0.01)
            process.signal(signal.SIGTERM)
        process.ended()
    return tally, process, answered


HAPROXY = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")


@contextlib.contextmanager
def haproxy(folder: Path, backends: Sequence[int]) -> Iterator[int]:
    """The proxy of deploy/, with these ports as its replicas; gives its port. Its figures are the file's own."""
    (port,) = free_ports(1)
    text = (ROOT / "deploy" / "haproxy.cfg").read_text()
    text = re.sub(r"bind .*:8080", f"bind 127.0.0.1:{port}", text)
    text = text.replace("check port 8081 ", "check ")
    servers = "\n".join(f"    server replica-{k} 127.0.0.1:{backend}" for k, backend in enumerate(backends, 1))
    text, replaced = re.subn(r"^    server .*\n(    server .*\n)*", servers + "\n", text, flags=re.MULTILINE)
    assert replaced == 1
    config = folder / "haproxy.cfg"
    config.write_text(text)
    assert HAPROXY is not None
    process = subprocess.Popen([HAPROXY, "-db", "-f", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while True:
            assert process.poll() is None, process.stderr and process.stderr.read()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE)
        if process.stderr is not None:
            process.stderr.close()


def free_ports(count: int) -> list[int]:
    """Ports that no client is given meanwhile: below those that the system takes for connections."""
    found = list[int]()
    for port in random.sample(range(20_000, 32_000), 1000):
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            break
    return found


async def rolling_restart(
    folder: Path, rounds: int = 1, clients: int = 8, drain: str = "5", pause: float = 0.0
) -> tuple[Tally, list[int]]:
    """Three replicas behind the proxy, each stopped and started anew under load. Gives tally and exit statuses."""
    ports = free_ports(3)

    def start(port: int) -> Process:
        process = Process(MODEL, LSTMSERVE_PORT=str(port), LSTMSERVE_DRAIN_SECONDS=drain, LSTMSERVE_ACCESS_LOG="false")
        return process.__enter__()

    replicas = [start(port) for port in ports]
    ended = []
    try:
        with haproxy(folder, ports) as port:
            async with asking(port, golden_questions(), clients, pause) as tally:
                await asyncio.sleep(0.5)
                for _ in range(rounds):
                    for k, backend in enumerate(ports):
                        replicas[k].signal(signal.SIGTERM)
                        ended.append(await asyncio.to_thread(replicas[k].ended))
                        replicas[k] = await asyncio.to_thread(start, backend)
                        await asyncio.sleep(1.2)  # until the proxy has seen that it is ready
    finally:
        for replica in replicas:
            replica.__exit__()
    return tally, ended


# Overload.


@dataclass
class Load:
    """What came of a time of load: rows answered, refusals, and how long either took."""

    seconds: float = 0.0
    busy: float = 0.0  # seconds of processor time that the service took
    rows: int = 0
    good: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    without_retry: int = 0

    @property
    def goodput(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds

    @property
    def efficiency(self) -> float:
        """Rows a second of the service's own processor time: what others on the machine do does not show in it."""
        return self.rows / self.busy

    def note(self, question: Question, reply: Reply, took: float) -> None:
        self.statuses[reply.status] += 1
        if reply.status == 200:
            self.good.append(took)
            self.rows += len(next(iter(question.wanted.values())))
            # Every 16th: to judge all takes more of a core than the service does.
            if len(self.good) % 16 == 1 and (wrong := question.judge(reply)) is not None:
                self.wrong.append(wrong)
        else:
            self.refused.append(took)
            self.without_retry += reply.headers.get("retry-after") != "1"

    def __str__(self) -> str:
        def quantiles(times: list[float]) -> str:
            if len(times) < 2:
                return "-"
            cut = statistics.quantiles(times, n=100)
            return f"p50 {cut[49] * 1000:.1f} ms, p99 {cut[98] * 1000:.1f} ms"

        return (
            f"{self.goodput:6.0f} rows/s, {self.efficiency:6.0f} a processor second, "
            f"{self.busy / self.seconds:.0%} busy; "
            f"answers {dict(self.statuses)}; good {quantiles(self.good)}; "
            f"refused {quantiles(self.refused)}"
        )


@contextlib.contextmanager
def measured(process: Process, load: Load) -> Iterator[None]:
    """Add to the load, after the block, how long it took and how busy the process was."""
    began, busy = time.monotonic(), processor_seconds(process)
    yield
    load.seconds += time.monotonic() - began
    load.busy += processor_seconds(process) - busy


def processor_seconds(process: Process) -> float:
    fields = Path(f"/proc/{process.popen.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def ask(load: Load, connection: Connection, question: Question) -> Reply | None:
    """Ask, and note what came and how long it took; None where nothing came."""
    start = time.monotonic()
    try:
        reply = await connection.ask(question.data)
    except (Lost, OSError) as error:
        load.wrong.append(repr(error))
        return None
    load.note(question, reply, time.monotonic() - start)
    return reply


async def closed_loop(
    process: Process, load: Load, asked: Sequence[Question], connections: int, seconds: float
) -> None:
    """Each connection asks again as soon as it is answered."""
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        async with Connection(process.port) as connection:
            while time.monotonic() < end:
                reply = await ask(load, connection, asked[number % len(asked)])
                number += 1
                if reply is not None and reply.status != 200:
                    await asyncio.sleep(0.05)

    with measured(process, load):
        async with asyncio.TaskGroup() as group:
            for number in range(connections):
                group.create_task(client(number))


async def open_loop(process: Process, load: Load, asked: Sequence[Question], rate: float, seconds: float) -> None:
    """So many requests a second, whatever becomes of them; connections are taken from a pool that grows."""
    idle = list[Connection]()
    began = time.monotonic()

    async def one(number: int) -> None:
        connection = idle.pop() if idle else Connection(process.port)
        if await ask(load, connection, asked[number % len(asked)]) is not None:
            idle.append(connection)

    with measured(process, load):
        async with asyncio.TaskGroup() as group:
            number = 0
            while (now := time.monotonic() - began) < seconds:
                while number < now * rate:
                    group.create_task(one(number))
                    number += 1
                await asyncio.sleep(0.002)
    for connection in idle:
        connection.close()


async def overload(process: Process, seconds: float, rounds: int = 1) -> dict[str, Any]:
    """The peak, ten times its connections, twice its rows in requests of 64, and the peak again; each in each round.

    What else runs on the machine makes a second of the processor worth more or less, for minutes: in rounds, for each
    of them alike.
    """
    ones, many = random_questions([1] * 8), random_questions([64] * 4)
    names = ("peak", "peak of single rows", "ten times the connections", "ten times the connections, 64 rows")
    loads = {name: Load() for name in (*names, "twice the rows", "after")}
    before = footprint(process)
    for _ in range(rounds):
        for name, asked, connections in zip(names, (many, ones, ones, many), (16, 16, 160, 160), strict=True):
            await closed_loop(process, loads[name], asked, connections, seconds)
        await open_loop(process, loads["twice the rows"], many, 2 * loads["peak"].goodput / 64, seconds)
        await closed_loop(process, loads["after"], many, 16, seconds)
    return {"before": before, **loads, "memory": footprint(process)}


async def main(seconds: float) -> int:
    """Everything, long; exits 1 where a count is not what it must be."""
    failed: list[str] = []

    def expect(what: str, *, true: bool) -> None:
        sys.stdout.write(f"  {'ok    ' if true else 'FAILED'} {what}\n")
        if not true:
            failed.append(what)

    sys.stdout.write(f"bad clients among good ones, {seconds:g} s\n")
    times = {"LSTMSERVE_HEADER_SECONDS": "4", "LSTMSERVE_BODY_SECONDS": "4"}
    with Process(MODEL, LSTMSERVE_ACCESS_LOG="false", **times) as process:
        fresh = footprint(process)
        await mixed(process, 5)
        before = await settled(process, fresh.files)
        tally, bad = await mixed(process, seconds, seed=1)
        after = await settled(process, before.files)
        sys.stdout.write(
            f"  {sum(bad.sent.values())} bad: {dict(bad.sent)}\n  answered {dict(sorted(bad.statuses.items()))}\n"
        )
        sys.stdout.write(f"  before {before}\n  after  {after}\n")
        expect(
            f"{tally.good} good requests answered, {len(tally.wrong)} not or wrongly {tally.wrong[:3]}",
            true=not tally.wrong,
        )
        expect("no status 500", true=bad.statuses[500] == 0)
        expect("as many files open as before", true=after.files <= before.files)
        expect("no more memory than before, 16 MiB apart", true=after.anonymous_mib < before.anonymous_mib + 16)
        async with Connection(process.port) as connection:
            expect("/readyz is 200", true=(await connection.ask(request("/readyz"))).status == 200)
    expect("exit status 0", true=process.popen.returncode == 0)

    sys.stdout.write("SIGTERM under load, 20 times\n")
    for drain in ["0"] * 16 + ["1"] * 4:
        tally, process, answered = await stopped_under_load(drain=drain)
        logged = {record["request_id"] for record in process.records if record.get("path", "").startswith("/predict")}
        good = not tally.wrong and not logged - answered and process.popen.returncode == 0
        if not good:
            expect(f"{tally.good} good, wrong {tally.wrong[:3]}, without answer {logged - answered}", true=False)
    expect("every request that was read was answered, exit status 0 each time", true=not failed)

    if HAPROXY is not None:
        sys.stdout.write("three replicas behind HAProxy, rolling restart under load\n")
        with tempfile.TemporaryDirectory() as folder:
            tally, ended = await rolling_restart(Path(folder), rounds=2)
        expect(f"{tally.good} answered, {len(tally.wrong)} failed {tally.wrong[:3]}", true=not tally.wrong)
        expect(f"exit statuses {ended}", true=not any(ended))
    else:
        sys.stdout.write("HAProxy is not installed (Debian: haproxy): no rolling restart\n")

    sys.stdout.write("overload\n")
    with Process(MODEL, LSTMSERVE_ACCESS_LOG="false") as process:
        found = await overload(process, 1, rounds=math.ceil(seconds / 6))
        for name, value in found.items():
            sys.stdout.write(f"  {name:36} {value}\n")
        peak = found["peak"].efficiency
        for name in ("ten times the connections, 64 rows", "twice the rows", "after"):
            expect(
                f"{name}: {found[name].efficiency / peak:.0%} of the peak", true=found[name].efficiency >= 0.8 * peak
            )
        singles = found["ten times the connections"].efficiency / found["peak of single rows"].efficiency
        expect(f"ten times the connections: {singles:.0%} of the peak of single rows", true=singles >= 0.8)
        loads = [value for value in found.values() if isinstance(value, Load)]
        expect(
            "every refusal a 429 with Retry-After: 1",
            true=all(set(v.statuses) <= {200, 429} and not v.without_retry for v in loads),
        )
        expect("nothing lost, nothing wrong", true=not any(load.wrong for load in loads))
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    sys.exit(asyncio.run(main(parser.parse_args().seconds)))
