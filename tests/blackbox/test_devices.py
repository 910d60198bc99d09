"""Short runs of what `devices.py` runs long."""

import shutil
from pathlib import Path

import pytest
from devices import MODELS, TOLERANCE, exactly_once, mixed, random_series, ways
from serving import ASKER, Process, in_loop

pytestmark = pytest.mark.long

PATH = ASKER / MODELS[0].origin.file


@pytest.mark.parametrize("connections", [1, 8])
@in_loop
async def test_random_series_are_answered_as_their_windows_are(connections: int) -> None:
    with Process(PATH, LSTMSERVE_ACCESS_LOG="false") as process:
        found = await random_series(process.port, range(20), connections)
        assert found.worst <= TOLERANCE
        assert found.answers > 500
        assert sum((await ways(process.port)).values()) >= found.answers


def test_each_row_is_there_once_whatever_goes_wrong_on_the_way(tmp_path: Path) -> None:
    @in_loop
    async def run() -> None:
        model = Path(shutil.copy(PATH, tmp_path / "model.h5"))
        with Process(model, LSTMSERVE_ACCESS_LOG="false") as process:
            found = await exactly_once(process, model, devices=6, length=100)
        assert found.worst <= TOLERANCE
        assert len(found.told) == 7
        assert set(found.statuses) <= {200, 409, 429}

    run()


@in_loop
async def test_mixed_load_leaves_no_memory_behind() -> None:
    limits = {"LSTMSERVE_SERIES_MAX": "500", "LSTMSERVE_SERIES_TTL_SECONDS": "1"}
    with Process(PATH, LSTMSERVE_ACCESS_LOG="false", **limits) as process:
        found, memory = await mixed(process, 5)
        assert found.worst <= TOLERANCE
        assert found.statuses[429] > 0
        assert set(found.statuses) <= {200, 400, 413, 414, 422, 429, 431}
        assert max(memory[10:]) <= max(memory[:10]) + 16
