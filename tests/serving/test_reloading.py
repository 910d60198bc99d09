"""Another model in the place of the one being served, in a real process under load; and what is not let in."""

import asyncio
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import termios
import time
import zipfile
from pathlib import Path
from typing import Any, Self

import h5py
import httpx
import numpy as np
import pytest
from kerasfiles import save_embedding, scaled_copy
from load import asking, questions
from serving import ASKER, COMMAND, PATIENCE, ROOT, Golden, Process, environment, in_loop, started

from lstm_serve import load_model
from lstm_serve.errors import ModelError
from lstm_serve.serving import isolated_load, reload
from lstm_serve.serving.reload import fingerprint
from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app

pytestmark = pytest.mark.long


def put(path: Path, data: bytes) -> None:
    made = path.with_suffix(".new")
    made.write_bytes(data)
    made.replace(path)


class Served:
    """A service whose model is about to change, and how its reloads end."""

    def __init__(self, process: Process) -> None:
        self.process, self.ended = process, 0
        self.client = httpx.Client(base_url=process.url, timeout=PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(name)), 0.0)

    @property
    def reloads(self) -> tuple[float, float]:
        return tuple(
            self.metric(f'lstmserve_model_reloads_total{{model="model",outcome="{o}"}}') for o in ("served", "refused")
        )  # type: ignore[return-value]

    def wait(self) -> None:
        """Until the log says how the next reload ended."""
        self.ended += 1
        self.process.wait_for("replaced: requests|answered by what is loaded", self.ended)

    def reload(self) -> dict[str, Any]:
        """SIGHUP, and what /readyz?verbose says once it is dealt with."""
        self.process.signal(signal.SIGHUP)
        self.wait()
        response = self.client.get("/readyz?verbose")
        assert response.status_code == 200
        return dict(response.json())

    @property
    def sha256(self) -> str:
        return str(self.client.get("/model").json()["sha256"])


def damaged(path: Path) -> dict[str, bytes]:
    data = path.read_bytes()
    flipped = bytearray(data)
    for k in range(8, 4096, 97):
        flipped[k] ^= 0xFF
    return {"truncated": data[: len(data) // 2], "flipped": bytes(flipped)}


def test_good_and_broken_files_in_turn(tmp_path: Path) -> None:
    path = scaled_copy(tmp_path / "model.h5")
    first, files = load_model(path).origin.sha256, damaged(path)
    with Process(path) as process, Served(process) as served:
        assert not any("curl" in line for line in process.lines)
        assert served.sha256 == first
        assert served.reload() == {"status": "ok", "checks": {"model": True, "batching": True, "accepting": True}}
        for name in ("truncated", "flipped"):
            put(path, files[name])
            refused = served.reload()["refused"]
            assert refused.startswith("model.h5: "), name
            assert str(tmp_path) not in refused
            assert served.sha256 == first
            assert served.metric("lstmserve_model_reload_successful") == 0
            assert any(record["level"] == "error" and str(path) in record["message"] for record in process.records)
        second = load_model(scaled_copy(path, 0.5)).origin.sha256
        assert "refused" not in served.reload()
        assert served.sha256 == second != first
        assert served.metric("lstmserve_model_reload_successful") == 1
        assert (
            served.metric(f'lstmserve_model_info{{digest="{second}",keras="2.1.5",model="model",sha256="{second}"') == 1
        )
        assert served.reloads == (3.0, 2.0)
        told = [record["message"].partition(" ")[0] for record in process.records]
        assert [word for word in told if word in {"reading", "replaced:"}] == [
            *["reading", "replaced:"],
            *["reading", "reading"],
            *["reading", "replaced:"],
        ]
    assert process.popen.returncode == 0


def test_card_and_golden_predictions_belong_to_it(tmp_path: Path, golden: Golden) -> None:
    path, (x, y) = scaled_copy(tmp_path / "model.h5"), golden
    card, replayed = tmp_path / "model.card.json", tmp_path / "model.golden.npz"
    card.write_text(json.dumps({"classes": list("abcde")}))
    np.savez(replayed, x=x, y=y)
    with Process(path) as process, Served(process) as served:
        scaled_copy(path, 0.5)
        assert "misses its golden predictions" in served.reload()["refused"]
        moved = replayed.rename(tmp_path / "moved.npz")
        assert "is verified, and the new one is not: it has no golden" in served.reload()["refused"]
        replayed.symlink_to("nowhere.npz")
        assert "a link to a file that is not there" in served.reload()["refused"]
        assert served.client.get("/model").json()["verified"]
        replayed.unlink()
        moved.unlink()
        np.savez(replayed, x=x, y=load_model(path).predict(x))
        card.write_text(json.dumps({"classes": list("abcde"), "version": "2"}))
        assert "refused" not in served.reload()
        assert served.client.get("/model").json()["version"] == "2"
        card.write_text(json.dumps({"classes": list("abcdf")}))
        assert "its classes" in served.reload()["refused"]
        path.unlink()
        assert "there is no such file" in served.reload()["refused"]


def test_polling_follows_the_links_of_a_mounted_volume(tmp_path: Path) -> None:
    """A ConfigMap or Secret is a link to a folder that is changed in one step."""
    for number, factor in (("1", 1.0), ("2", 0.5)):
        (tmp_path / number).mkdir()
        scaled_copy(tmp_path / number / "model.h5", factor)
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "model.h5").symlink_to("..data/model.h5")
    path = tmp_path / "model.h5"
    first, second = (load_model(tmp_path / number / "model.h5").origin.sha256 for number in "12")
    with Process(path, LSTMSERVE_RELOAD_SECONDS="0.05") as process, Served(process) as served:
        assert served.sha256 == first
        (tmp_path / "..new").symlink_to("2")
        (tmp_path / "..new").replace(tmp_path / "..data")
        served.wait()
        assert served.sha256 == second
        put(tmp_path / "2" / "model.h5", b"broken")
        served.wait()
        time.sleep(0.3)  # several polls, of which none may read it again
        assert served.reloads == (2.0, 1.0)
        assert served.sha256 == second


def test_a_folder_that_keras_saved_is_followed(tmp_path: Path) -> None:
    with zipfile.ZipFile(ASKER / "k3_model.keras") as archive:
        archive.extractall(tmp_path / "model")
    with Process(tmp_path / "model") as process, Served(process) as served:
        first = served.sha256
        with h5py.File(tmp_path / "model" / "model.weights.h5", "r+") as file:
            file["layers/dense/vars/1"][...] += 1
        assert "refused" not in served.reload()
        assert served.sha256 != first
        (tmp_path / "model" / "config.json").unlink()
        assert "config.json is missing" in served.reload()["refused"]


def test_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    seen = [fingerprint(path)]
    for name in ("model.h5", "model.card.json", "model.golden.npz"):
        (tmp_path / name).write_bytes(b"1")
        seen.append(fingerprint(path))
        (tmp_path / name).write_bytes(b"12")
        seen.append(fingerprint(path))
    assert len(set(seen)) == 7


def test_other_bytes_in_the_same_file_with_the_same_size_and_time_are_seen(tmp_path: Path) -> None:
    """As `cp -p` and `rsync --inplace -t` write them, where a build has set all times alike."""
    path = tmp_path / "model.h5"
    path.write_bytes(b"1")
    os.utime(path, (0, 0))
    before, seen = path.stat(), fingerprint(path)
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of a file system is a coarse one
        path.write_bytes(b"2")
        os.utime(path, (0, 0))
    after = path.stat()
    assert (before.st_ino, before.st_size, before.st_mtime_ns) == (after.st_ino, after.st_size, after.st_mtime_ns)
    assert fingerprint(path) != seen


@in_loop
async def test_under_load_every_answer_is_of_one_of_the_two_models(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tmp_path = tmp_path_factory.mktemp("load")
    path = tmp_path / "model.h5"
    x = np.random.default_rng(1).normal(size=(300, 20, 15)).astype(np.float32)
    y, files = {}, []
    for factor in (1.0, 0.5):
        model = load_model(scaled_copy(path, factor))
        y[model.origin.sha256] = model.predict(x)
        files.append(path.read_bytes())
    assert len(y) == 2
    broken = list(damaged(path).values())
    with Process(path, LSTMSERVE_ACCESS_LOG="false") as process, Served(process) as served:
        async with asking(process.port, questions(x, y, (1, 1, 3, 300)), 3, pause=0.01) as tally:
            for data in (files[0], broken[0], files[1], broken[1], files[0]):
                put(path, data)
                await asyncio.to_thread(served.reload)
        assert served.reloads == (4.0, 2.0)
    assert not tally.wrong
    assert all(tally.by_model[sha256] > 0 for sha256 in y)
    assert process.popen.returncode == 0


def test_a_closed_terminal_ends_the_service(tmp_path: Path) -> None:
    """A terminal that is closed sends SIGHUP too, and then nobody wants to find the port taken."""
    path = scaled_copy(tmp_path / "model.h5")
    terminal, its_end = os.openpty()
    process = subprocess.Popen(
        COMMAND,
        cwd=ROOT,
        env=environment(LSTMSERVE_MODEL=str(path)),
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - the child has one thread
    )
    os.close(its_end)
    said = b""
    while b"a first request: curl http://127.0.0.1:" not in said:
        said += os.read(terminal, 4096)
    assert b"the API, to read and to try: http://127.0.0.1:" in said
    process.send_signal(signal.SIGHUP)
    while f"reading {path} again".encode() not in said:
        said += os.read(terminal, 4096)
    while said.count(b"loaded model.h5") < 2:
        said += os.read(terminal, 4096)
    assert process.poll() is None
    os.close(terminal)
    assert process.wait(PATIENCE) == 0


@in_loop
async def test_the_process_that_reads_aside_is_told_what_the_service_was_told(tmp_path: Path) -> None:
    path = tmp_path / 'of "Kéras".h5'
    shutil.copy(ASKER / "k215_weights.h5", path)
    await isolated_load.try_aside(Settings(model=path, recurrent_activation="sigmoid", output_activation="softmax"))
    with pytest.raises(ModelError, match="output_activation"):
        await isolated_load.try_aside(Settings(model=path, recurrent_activation="sigmoid"))


@in_loop
async def test_the_process_that_reads_aside_has_room_for_what_the_setting_allows(tmp_path: Path) -> None:
    path = save_embedding(tmp_path / "m.h5", 240_000)
    await isolated_load.try_aside(Settings(model=path))
    with pytest.raises(ModelError, match=r"need more than 256 MiB.*LSTMSERVE_MAX_MODEL_BYTES"):
        await isolated_load.try_aside(Settings(model=path, max_model_bytes=256 << 20))


# In the child, what it loads models with.
OF_TRIAL = "import sys, lstm_serve.loading.load;"


@in_loop
async def test_no_room_for_a_process_is_no_fault_of_the_file() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(ModelError, match="no process could be started to read it: Too many open files"):
            await isolated_load.try_aside(Settings(model=ASKER / "k215_model.h5"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@in_loop
async def test_a_file_that_ends_the_process_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a damaged file may do to the HDF5 library; the ones that were known to are refused before it sees them."""
    for does, words in (
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended a process by SIGSEGV: it is damaged"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "by SIGKILL, which need not be the file's fault"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", "took more than 120 seconds of a processor"),
        ("raise SystemExit(9)", "with status 9, which need not be the file's fault: see whether memory"),
        (
            f"{OF_TRIAL} lstm_serve.loading.load.load_model = lambda **_: [0] * (1 << 60)\n{isolated_load.TRIAL}",
            "more memory than",
        ),
        ("import time; time.sleep(3600)", "took more than 0.5 seconds"),
    ):
        monkeypatch.setattr(isolated_load, "TRIAL", does)
        monkeypatch.setattr(isolated_load, "MAX_TRIAL_SECONDS", 0.5 if "sleep" in does else 60)
        with pytest.raises(ModelError, match=words):
            await isolated_load.try_aside(Settings(model=ASKER / "k215_model.h5"))


def ended_under(limit: str, most: int, does: str) -> subprocess.CompletedProcess[bytes]:
    script = f"from lstm_serve.formats import system_limits; system_limits.lower_limit({limit!r}, {most})\n{does}"
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=PATIENCE, check=False)


def test_limits_of_the_process_that_reads_aside() -> None:
    memory = ended_under("RLIMIT_AS", 1 << 29, "bytearray(1 << 30)")
    assert (memory.returncode, memory.stderr.split()[-1]) == (1, b"MemoryError")
    assert ended_under("RLIMIT_CPU", 1, "while True: pass").returncode == -signal.SIGXCPU


@in_loop
async def test_faults_on_the_way_leave_the_old_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The file changes while it is read; or something nobody thought of goes wrong."""
    path = scaled_copy(tmp_path_factory.mktemp("faults") / "model.h5")
    app = create_app(Settings(model=path))
    deployment, reloader = app.state.registry.get(), app.state.reloader
    old = deployment.current

    async def refused() -> str:
        deployment.refused = None
        reloader.ask()
        async with asyncio.timeout(PATIENCE):
            while deployment.refused is None:  # noqa: ASYNC110 - an attribute, set by another task
                await asyncio.sleep(0.01)
        return str(deployment.refused)

    with pytest.MonkeyPatch.context() as patch:
        async with started(app):
            prints = iter([((str(k), k, k, k, k),) for k in range(100)])
            patch.setattr(reload, "fingerprint", lambda _: next(prints))
            assert await refused() == "model.h5: has changed while it was read"
            patch.undo()
            patch.setattr(reload, "load", lambda *_: 1 / 0)
            assert await refused() == "a fault of the service; the log has it"
    assert deployment.current is old
