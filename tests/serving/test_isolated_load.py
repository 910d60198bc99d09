"""The process that reads a model aside: what it is given, and that it does not outlive who asked for it."""

import asyncio
import os
from pathlib import Path

import pytest
from serving import ASKER, PATIENCE, in_loop

from lstm_serve.errors import ModelError
from lstm_serve.serving import isolated_load
from lstm_serve.settings import Settings

SETTINGS = Settings(model=ASKER / "k215_model.h5")


@in_loop
async def test_what_a_damaged_file_could_run_meets_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "import os, sys; print(*[name for name in os.environ if 'KEYS' in name], 'and no more'); sys.exit(3)"
    monkeypatch.setattr(isolated_load, "TRIAL", told)
    monkeypatch.setenv("LSTMSERVE_API_KEYS", "a-key-that-is-long-enough")
    monkeypatch.setenv("OTHER_KEYS", "stay")
    with pytest.raises(ModelError, match=r"^OTHER_KEYS and no more\n$"):
        await isolated_load.try_aside(SETTINGS)


@in_loop
async def test_it_is_ended_where_nobody_waits_for_it_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = tmp_path / "begun"
    tells = f"import os, time; os.mkfifo({str(begun)!r}); open({str(begun)!r}, 'w').write(str(os.getpid())); "
    monkeypatch.setattr(isolated_load, "TRIAL", f"{tells}time.sleep(3600)")
    reading = asyncio.create_task(isolated_load.try_aside(SETTINGS))
    async with asyncio.timeout(PATIENCE):
        while not begun.exists():  # noqa: ASYNC110 - made by another process
            await asyncio.sleep(0.01)
        pid = int(await asyncio.to_thread(begun.read_text))
    reading.cancel()
    await asyncio.wait([reading])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
