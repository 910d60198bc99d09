"""A bad body at the size limit costs no more than twice the processor time of a good one."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from serving import ASKER, PATIENCE, Process

LIMIT = 2 << 20


def filled(item: str, *, key: str = "sequences") -> bytes:
    """A body of as many of these items as go into the limit."""
    head, count = f'{{"{key}":[', (LIMIT - 20) // (len(item) + 1)
    return f"{head}{','.join([item] * count)}]}}".encode()


def nested(numbers: Sequence[str]) -> str:
    return "[" + ",".join(["[" + ",".join(numbers) + "]"] * 20) + "]"


NUMBERS = [f"0.{k}" for k in range(1000, 1015)]
FULL = filled(nested(NUMBERS))
LAST = FULL.rindex(b"0.1014")
ALL_BAD = {
    '""': filled('""'),
    "[]": filled("[]"),
    "{}": filled("{}"),
    "null": filled("null"),
    "NaN": filled("NaN"),
    "numbers": filled("0"),
    "rows of wrong length": filled(nested(NUMBERS[1:])),
    "rows of NaN": filled(nested(["NaN"] * 15)),
    'rows of ""': filled(nested(['""'] * 15)),
    "the last number a string": FULL[:LAST] + b'"bad!"' + FULL[LAST + 6 :],
    "the last number NaN": FULL[:LAST] + b"   NaN" + FULL[LAST + 6 :],
    "many keys": ("{" + ",".join(f'"{k}":0' for k in range(180_000)) + "}").encode(),
}


# Measured without a tracer, which would make the parts in Python several times as slow and the others not.
UNTRACED = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}
# So that the number of sequences is no reason to refuse a body before any of it is looked at.
MANY_ROWS = {"LSTMSERVE_MAX_ROWS": "2000000", "LSTMSERVE_MAX_QUEUE_ROWS": "2000000"}
STAT = Path("/proc/self/schedstat")
REQUESTS, SAMPLES = 2, 5


def seconds_of(process: Process) -> float:
    """The processor time that the process' threads have used: in nanoseconds, where a tick of /proc/pid/stat is 10 ms.

    https://docs.kernel.org/scheduler/sched-stats.html
    """
    threads = Path(f"/proc/{process.popen.pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


@pytest.mark.long
@pytest.mark.skipif(not STAT.exists(), reason="needs /proc")
def test_a_bad_body_costs_no_more_than_twice_a_good_one(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        Process(ASKER / "k215_model.h5", **UNTRACED, **MANY_ROWS) as process,
        httpx.Client(base_url=process.url, timeout=PATIENCE) as client,
    ):

        def cost(body: bytes, status: int, enough: float = 0.0) -> float:
            """The least of the samples, of which one that is `enough` ends it: what else runs only adds to them."""
            assert 0.85 * LIMIT < len(body) <= LIMIT
            least = math.inf
            for _ in range(SAMPLES):
                start = seconds_of(process)
                answers = [client.post("/predict/batch", content=body) for _ in range(REQUESTS)]
                least = min(least, seconds_of(process) - start)
                assert {answer.status_code for answer in answers} == {status}
                if status != 200:
                    assert all(len(answer.content) <= 4096 for answer in answers)
                    assert all(len(answer.json().get("errors", [])) <= 10 for answer in answers)
                if least <= enough:
                    break
            return least

        good = [cost(FULL, 200)]
        bad = {name: cost(body, 422, enough=good[0]) for name, body in ALL_BAD.items()}
        good.append(cost(FULL, 200))
    ratios = {name: round(seconds / statistics.mean(good), 2) for name, seconds in bad.items()}
    with capsys.disabled():
        print(f"\na good body takes {good[0] / REQUESTS * 1000:.0f} ms; in that, a bad one: {ratios}")  # noqa: T201 - the figure itself
    assert max(ratios.values()) <= 2
