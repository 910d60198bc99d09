"""Several workers at one address: what one of them does not change for a client, whatever becomes of a worker."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from load import Connection, Lost, request
from native_requests import GOOD, ROW, refused
from scraping import Samples, one_of, parsed
from serving import ASKER, PATIENCE, ROOT, SMALL, Process, ask, until

pytestmark = pytest.mark.long

MODEL = ASKER / "k215_model.h5"
SHORTER = SMALL / "values.h5"  # of another kind
OTHER = ROOT / "models" / "turbofan.h5"
TWO = {"LSTMSERVE_WORKERS": "2", "LSTMSERVE_ADMIN_PORT": "0"}


@pytest.fixture(scope="module")
def pair() -> Iterator[Process]:
    """The service by two workers."""
    with Process(MODEL, **TWO) as process:
        yield process
        process.popen.terminate()
        assert process.ended() == 0
        assert process.errors == ""
        assert process.records  # each line is whole


def admin(process: Process) -> str:
    return f"http://127.0.0.1:{process.wait_for(r'health and metrics on http://127.0.0.1:([0-9]+)')[1]}"


def counted(process: Process) -> Samples:
    return parsed(ask("GET", f"{admin(process)}/metrics").text)


def ready(process: Process) -> bool:
    return ask("GET", f"{admin(process)}/readyz").status_code == 200


def workers(process: Process) -> list[int]:
    children = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def kill_all(process: Process) -> None:
    """Kill its workers, and see them gone: one that dies takes whoever connects until then."""
    known = workers(process)
    for pid in known:
        os.kill(pid, signal.SIGKILL)
    until(lambda: all(map(gone, known)))


@contextlib.contextmanager
def stopped_successor(process: Process, pid: int) -> Iterator[None]:
    """Kill a worker, and stop what takes its place: it may serve before one has asked."""
    known = workers(process)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not {*workers(process)} <= {*known})
    (successor,) = {*workers(process)} - {*known}
    os.kill(successor, signal.SIGSTOP)
    yield
    os.kill(successor, signal.SIGCONT)


def who(answer: httpx.Response) -> str:
    """What tells one worker from another: each makes ids of its own."""
    return answer.headers["x-request-id"].partition("-")[0]


def test_connections_are_spread_and_all_is_counted_together(pair: Process) -> None:
    before = counted(pair)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=pair.url, timeout=PATIENCE)) for _ in range(64)]
        spread = Counter(who(client.post("/predict", content=GOOD)) for client in clients)
    assert len(spread) == 2
    assert min(spread.values()) >= 12  # by chance in one of a million runs it is not
    after, rows = counted(pair), {"model": "k215_model"}
    assert one_of(after, "rows_total", **rows) - one_of(before, "rows_total", **rows) == 64
    for _ in range(4):
        asked = parsed(ask("GET", f"{pair.url}/metrics").text)
        assert one_of(asked, "rows_total", **rows) == one_of(after, "rows_total", **rows)
    assert one_of(after, "model_reload_successful", **rows) == 1
    assert sum(value for (name, _), value in after.items() if name == "model_info") == 1
    # NumPy alone takes more than that in each: the parent's share, and those of both.
    assert one_of(after, "process_resident_memory_bytes") > 140 << 20
    assert one_of(after, "process_cpu_seconds_total") >= one_of(before, "process_cpu_seconds_total")


def test_series_need_one_worker(pair: Process) -> None:
    for method, path, body in (
        ("POST", "/series/a/rows", {"rows": [ROW[0]]}),
        ("GET", "/series/a", None),
        ("DELETE", "/series/a", None),
    ):
        assert "--workers 1" in refused(ask(method, f"{pair.url}{path}", json=body), 501, "several-workers")


def test_the_port_is_not_shared_with_another_service(pair: Process) -> None:
    for count in ("1", "2"):
        process = Process(MODEL, LSTMSERVE_PORT=str(pair.port), LSTMSERVE_WORKERS=count)
        assert process.ended() == 3
        assert any("--port take others" in record["message"] for record in process.records)


def test_workers_that_are_killed_lose_what_they_had_in_flight_alone(pair: Process) -> None:
    before, kills, connections = counted(pair), 2, 8
    done, lost, answered = asyncio.Event(), list[str](), Counter[int]()

    async def client() -> None:
        async with Connection(pair.port) as connection:
            while not done.is_set():
                try:
                    reply = await connection.ask(request("/predict", GOOD))
                except Lost as error:
                    lost.append(str(error))
                else:
                    answered[reply.status] += 1

    def chaos() -> None:
        for _ in range(kills):  # each once: one that ends twice as it begins stays away for a while
            with stopped_successor(pair, workers(pair)[0]):
                assert not ready(pair)
            until(lambda: ready(pair))

    async def run() -> None:
        clients = [asyncio.create_task(client()) for _ in range(connections)]
        await asyncio.to_thread(chaos)
        done.set()
        await asyncio.gather(*clients)

    asyncio.run(run())
    assert set(answered) == {200}
    assert len(lost) <= kills * connections
    after, restarts = counted(pair), "worker_restarts_total"
    assert one_of(after, restarts) - one_of(before, restarts) == kills
    # A worker tells once a second what it has counted.
    rows = one_of(after, "rows_total", model="k215_model") - one_of(before, "rows_total", model="k215_model")
    assert 0 < rows <= sum(answered.values()) + len(lost)
    assert sum("by SIGKILL; another takes its place" in line for line in pair.lines) == kills


def test_what_is_counted_outlives_a_worker(pair: Process) -> None:
    rows = {"model": "k215_model"}
    for _ in range(8):
        ask("POST", f"{pair.url}/predict", content=GOOD)
    before = one_of(counted(pair), "rows_total", **rows)
    with stopped_successor(pair, workers(pair)[0]):
        assert one_of(counted(pair), "rows_total", **rows) == before
    until(lambda: ready(pair))
    kill_all(pair)
    until(lambda: ready(pair))
    assert one_of(counted(pair), "rows_total", **rows) == before
    assert ask("POST", f"{pair.url}/predict", content=GOOD).status_code == 200


def test_who_connects_while_all_workers_are_gone_is_answered(pair: Process) -> None:
    kill_all(pair)
    assert ask("POST", f"{pair.url}/predict", content=GOOD).status_code == 200
    until(lambda: ready(pair))


def test_a_reload_with_other_keys_and_a_drain(tmp_path: Path) -> None:
    model, keys = tmp_path / "k215_model.h5", tmp_path / "keys"
    shutil.copy(MODEL, model)
    keys.write_text("a" * 20)
    settings = {**TWO, "LSTMSERVE_API_KEYS_FILE": str(keys), "LSTMSERVE_DRAIN_SECONDS": "60"}
    with Process(model, **settings) as process:

        def statuses(key: str) -> Counter[int]:
            head = {"authorization": f"Bearer {key * 20}"}
            return Counter(
                ask("POST", f"{process.url}/predict", content=GOOD, headers=head).status_code for _ in range(8)
            )

        assert statuses("a") == {200: 8}
        keys.write_text("b" * 20)
        process.signal(signal.SIGHUP)
        process.wait_for("as it is now", 2)
        assert (statuses("a"), statuses("b")) == ({401: 8}, {200: 8})

        model.write_bytes(b"damaged")
        process.signal(signal.SIGHUP)
        process.wait_for("answered by what is loaded", 2)
        assert statuses("b") == {200: 8}
        assert one_of(counted(process), "model_reload_successful", model="k215_model") == 0
        assert ready(process)
        until(lambda: "refused" in ask("GET", f"{admin(process)}/readyz?verbose").json())  # told once a second

        process.signal(signal.SIGTERM)
        process.wait_for("stopping in 60 s", 2)
        assert statuses("b") == {200: 8}
        assert not ready(process)
        assert ask("GET", f"{admin(process)}/livez").status_code == 200
        children = workers(process)
        process.signal(signal.SIGTERM)
        assert process.ended() == 128 + signal.SIGTERM
        until(lambda: all(map(gone, children)))


def test_files_that_change_are_read_by_all(tmp_path: Path) -> None:
    model = tmp_path / "model.h5"
    shutil.copy(MODEL, model)
    with Process(model, LSTMSERVE_RELOAD_SECONDS="0.1", **TWO) as process:
        (tmp_path / "model.card.json").write_text(json.dumps({"classes": ["a", "b", "c", "d", "e"]}))
        process.wait_for("as it is now", 2)
        for _ in range(8):
            assert '"e"' in ask("POST", f"{process.url}/predict", content=GOOD).text


@pytest.mark.parametrize(
    ("model", "more", "status", "said"),
    [
        (ROOT / "nothing.h5", {}, 3, "nothing.h5"),
        (MODEL, {"LSTMSERVE_TLS_CERTFILE": str(ROOT / "nothing.pem")}, 2, "nothing.pem"),
        (MODEL, {"LSTMSERVE_API_KEYS_FILE": "/dev/stdin"}, 2, "for several workers give a file"),
    ],
)
def test_a_service_that_cannot_start_says_why_once(model: Path, more: dict[str, str], status: int, said: str) -> None:
    process = Process(model, **TWO, **more)
    assert process.ended() == status
    assert process.errors.count("error:") + process.errors.count("lstm-serve: ") <= 2
    assert said in process.errors
    assert "Traceback" not in process.errors


# As `lstm-serve serve`, where each worker does something else first, or its parent has less patience.
CHANGED = (
    "import sys; from lstm_serve.process import workers; {}; from lstm_serve.cli.main import main; sys.exit(main())"
)


def changed(statement: str) -> list[str]:
    return [sys.executable, "-c", CHANGED.format(statement), "serve"]


def missing(process: Process) -> str:
    """Why one worker is missing, as the service says on both of its ports."""
    found = [ask("GET", f"{url}/readyz?verbose") for url in (admin(process), process.url)]
    assert {answer.status_code for answer in found} == {200}
    told = [answer.json()["missing"] for answer in found]
    assert told[0] == told[1]
    (reason,) = told[0].values()
    return str(reason)


def away(process: Process) -> None:
    """Wait until a worker is missing, and nobody who connects waits for it."""
    process.wait_for("another takes its place in 3000 s")
    until(lambda: ready(process))


# Two are tried at once, and the next when told, or never; one that has served is no failure.
PATIENT = (
    "from lstm_serve.process import place; place.SHORT_SECONDS = 0; "
    "place.WorkerPlace.pause = property(lambda self: 3000 * (self.short > 1))"
)


def test_a_successor_that_cannot_start_is_tried_again_and_the_others_serve(tmp_path: Path) -> None:
    model = tmp_path / "k215_model.h5"
    shutil.copy(MODEL, model)
    with Process(model, changed(PATIENT), **TWO) as process:
        model.write_bytes(b"damaged")
        process.signal(signal.SIGHUP)
        process.wait_for("answered by what is loaded", 2)
        os.kill(workers(process)[0], signal.SIGKILL)
        away(process)
        assert "k215_model.h5" in missing(process)
        asked = [ask("POST", f"{process.url}/predict", content=GOOD) for _ in range(16)]
        assert Counter(answer.status_code for answer in asked) == {200: 16}
        assert len(set(map(who, asked))) == 1
        assert one_of(counted(process), "worker_restarts_total") >= 2

        shutil.copy(MODEL, model)
        process.signal(signal.SIGHUP)
        until(lambda: len({who(ask("POST", f"{process.url}/predict", content=GOOD)) for _ in range(8)}) == 2)
        assert "missing" not in ask("GET", f"{admin(process)}/readyz?verbose").json()
        with stopped_successor(process, workers(process)[-1]):
            assert not ready(process)
        until(lambda: ready(process))

        model.write_bytes(b"damaged")
        kill_all(process)
        process.wait_for("another takes its place in 3000 s", 3)
        assert ask("GET", f"{admin(process)}/readyz").status_code == 503
        process.signal(signal.SIGTERM)
        assert process.ended() == 0


def test_what_a_successor_reads_is_read_by_the_others_or_not_served(tmp_path: Path) -> None:
    model = tmp_path / "model.h5"
    shutil.copy(MODEL, model)
    with Process(model, changed(PATIENT), **TWO) as process:

        def digests() -> set[str]:
            asked = [ask("POST", f"{process.url}/predict", content=GOOD) for _ in range(8)]
            return {answer.headers["x-model-sha256"] for answer in asked}

        before = digests()
        shutil.copy(OTHER, model)
        os.kill(workers(process)[0], signal.SIGKILL)
        process.wait_for("as it is now")
        until(lambda: ready(process))
        after = digests()
        assert (len(before), len(after), len(before & after)) == (1, 1, 0)

        shutil.copy(SHORTER, model)
        os.kill(workers(process)[0], signal.SIGKILL)
        away(process)
        assert "not what the other workers serve" in missing(process)
        assert digests() == after


def test_a_worker_that_dies_in_a_loop_ends_the_service_once_none_serves(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    first = f"import os; os.path.exists({str(flag)!r}) and os.abort(); "
    hasty = "place.WorkerPlace.pause = property(lambda self: 0.5 * (self.short > 1))"
    statement = f"from lstm_serve.process import place; place.WORKER = {first!r} + place.WORKER; {hasty}"
    with Process(MODEL, changed(statement), **TWO) as process:
        flag.touch()
        os.kill(workers(process)[0], signal.SIGKILL)
        process.wait_for("worker 1 has ended: by SIGABRT", 5)
        assert ask("POST", f"{process.url}/predict", content=GOOD).status_code == 200
        os.kill(workers(process)[0], signal.SIGKILL)
        assert process.ended() == 1
    assert re.search("worker [12] has ended as it began, as 4 before it: by SIGABRT", process.errors)


def test_who_is_told_to_stop_waits_for_no_worker_that_does_not_serve_yet(tmp_path: Path) -> None:
    slow = f"import os, time; open({str(tmp_path)!r} + f'/{{os.getpid()}}', 'x'); time.sleep(3600)"
    process = Process(MODEL, changed(f"from lstm_serve.process import place; place.WORKER = {slow!r}"), **TWO)
    until(lambda: len([*tmp_path.iterdir()]) == 2)
    process.signal(signal.SIGTERM)
    assert process.ended() == 0


def test_a_worker_that_hangs_is_replaced() -> None:
    with Process(MODEL, changed("workers.HUNG_SECONDS = 1"), **TWO) as process:
        os.kill(workers(process)[0], signal.SIGSTOP)
        process.wait_for("worker 1 does not answer for 1 seconds: it is ended")
        process.wait_for("worker 1 has ended: by SIGKILL")
        until(lambda: ready(process))


def test_a_worker_that_is_broken_is_replaced(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    broken = f"from pathlib import *; worker.liveness = lambda _: {{'x': not {flag!r}.exists()}}"
    program = f"from lstm_serve.process import worker; {broken}; sys.exit"
    statement = f"from lstm_serve.process import place; place.WORKER = place.WORKER.replace('sys.exit', {program!r})"
    with Process(MODEL, changed(statement), **TWO) as process:
        first = workers(process)
        flag.touch()
        process.wait_for("worker [12] is broken: it is ended")
        flag.unlink()
        until(lambda: ready(process) and first != workers(process))


def test_a_worker_that_ends_while_another_reads_its_files_again_is_replaced(tmp_path: Path) -> None:
    path = Path(shutil.copy(MODEL, tmp_path / "m.h5"))
    with Process(path, **TWO) as process:
        before = workers(process)
        process.signal(signal.SIGHUP)
        process.wait_for('"reading ')  # by the first
        for pid in before[1:]:
            os.kill(pid, signal.SIGKILL)
        until(lambda: gone(before[1]))
        until(lambda: ready(process) and before[1] not in workers(process))
        process.signal(signal.SIGHUP)
        process.wait_for('"reading ', 3)
        until(lambda: ready(process))


def test_a_worker_is_replaced_whatever_becomes_of_a_child_that_reads_for_it(tmp_path: Path) -> None:
    path, children = Path(shutil.copy(MODEL, tmp_path / "m.h5")), list[int]()

    def reading() -> bool:
        for pid in workers(process):
            for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
                with contextlib.suppress(OSError):
                    if "isolated_child" in Path(f"/proc/{child}/cmdline").read_text():
                        os.kill(child, signal.SIGSTOP)
                        children.append(child)
                        os.kill(pid, signal.SIGKILL)
                        return True
        process.signal(signal.SIGHUP)
        return False

    with Process(path, **TWO) as process:
        until(reading)
        try:
            process.wait_for("worker [12] has ended: by SIGKILL; another takes its place")
            # What is left is what the child itself was given: its output. A file it has opened since is its own.
            (child,) = children
            left = [str(each.readlink()) for each in Path(f"/proc/{child}/fd").iterdir()]
            assert len([name for name in left if not name.startswith("/")]) <= 2, left
            until(lambda: ready(process))
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)


def test_workers_end_with_their_parent() -> None:
    with Process(MODEL, **TWO) as process:
        children = workers(process)
        process.signal(signal.SIGKILL)
        until(lambda: all(map(gone, children)))
