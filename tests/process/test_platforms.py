"""What runs where there is no uvloop and nothing of POSIX: Windows, as near as a test gets to it from here."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from serving import PATIENCE, ROOT, Process, ask

from lstm_serve.process import event_loop
from lstm_serve.serving.state import ServingState

# Before any line of the service: what Windows lacks is taken away, from child processes too.
WITHOUT = """
import os, select, signal, sys
for name in ("uvloop", "resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules[name] = None
for module, names in (
    (os, ("getuid", "geteuid", "O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "ttyname")),
    (signal, ("SIGHUP",)),
    (select, ("poll", "PIPE_BUF")),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
"""
TURBOFAN = ROOT / "models" / "turbofan.h5"
ENGINE = ROOT / "models" / "turbofan.example.csv"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PYTHONPATH with which each process starts like that."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(WITHOUT)
    return os.pathsep.join([str(folder), str(ROOT)])


@pytest.fixture(scope="module")
def served(bare: str) -> Iterator[Process]:
    with Process(TURBOFAN, PYTHONPATH=bare, LSTMSERVE_RELOAD_SECONDS="0.1") as process:
        yield process


def run(bare: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": bare},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_the_tests_take_away_what_they_say(bare: str) -> None:
    for line in ("import uvloop", "import resource", "import os; os.getuid", "import signal; signal.SIGHUP"):
        done = run(bare, "-c", line)
        assert re.search(r"ModuleNotFoundError|AttributeError", done.stderr), line


def test_the_library(bare: str) -> None:
    code = (
        f"import numpy; from lstm_serve import load_model; model = load_model({str(TURBOFAN)!r}); "
        f"golden = numpy.load({str(TURBOFAN.with_name('turbofan.golden.npz'))!r}); "
        "print(model.origin.verified, abs(model.predict(golden['x']) - golden['y']).max() < 1e-5)"
    )
    done = run(bare, "-c", code)
    assert (done.stdout, done.stderr) == ("True True\n", "")


def test_every_form_of_file(bare: str) -> None:
    paths = ["savedmodel/tf215__hard", "keras3/shapes.keras", "savedmodel/tf21__func_ck/ck", "asker/k122_model.h5"]
    given = [str(ROOT / "tests" / "golden" / path) for path in paths]
    code = f"from lstm_serve.cli.main import main; print([main(['inspect', path]) for path in {given}])"
    done = run(bare, "-c", code)
    assert (done.returncode, done.stderr, done.stdout.splitlines()[-1:]) == (0, "", ["[0, 0, 0, 0]"])


def test_predict_and_inspect(bare: str, tmp_path: Path) -> None:
    out = tmp_path / "y.npy"
    done = run(bare, "-m", "lstm_serve", "predict", str(TURBOFAN), str(ENGINE), "-o", str(out))
    assert done.returncode == 0
    assert np.load(out).shape == (186, 5)
    done = run(bare, "-m", "lstm_serve", "inspect", str(TURBOFAN))
    assert done.returncode == 0
    assert "THE SAME IN NUMPY" in done.stdout
    done = run(bare, "-m", "lstm_serve", "inspect", str(tmp_path / "none.h5"))
    assert (done.returncode, done.stderr) == (3, f"lstm-serve: {tmp_path / 'none.h5'}: there is no such file\n")


def test_a_link_in_a_folder_is_refused_there_too(bare: str, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "saved_model.pb").symlink_to(ROOT / "tests/golden/savedmodel/tf215__hard/saved_model.pb")
    done = run(bare, "-m", "lstm_serve", "inspect", str(folder))
    assert done.returncode == 3
    assert "it is a symbolic link, which is not followed" in done.stderr


def test_serve(served: Process) -> None:
    sequence = json.loads((ROOT / "models" / "turbofan.example.json").read_text())
    answer = ask("POST", f"{served.url}/predict", json=sequence)
    assert answer.json()["predicted_class"] == 0
    assert ask("GET", f"{served.url}/readyz").status_code == 200


def test_a_changed_model_is_read_aside_and_replaced_and_it_stops_when_told(bare: str, tmp_path: Path) -> None:
    golden = ROOT / "tests" / "golden" / "asker"
    path = tmp_path / "model.h5"
    path.write_bytes((golden / "k215_model.h5").read_bytes())
    with Process(path, PYTHONPATH=bare, LSTMSERVE_RELOAD_SECONDS="0.1") as process:
        (tmp_path / "model.card.json").write_text('{"description": "another"}')
        process.wait_for("replaced: requests are answered by")
        assert ask("GET", f"{process.url}/model").json()["description"] == "another"
        with process.connect():  # who is connected keeps it no longer
            process.signal(signal.SIGTERM)
            assert process.ended() == 0
    assert process.errors == ""


def test_uvloop_is_taken_where_it_is() -> None:
    uvloop = pytest.importorskip("uvloop")
    loop = event_loop.new_loop(cast("ServingState", None))
    try:
        assert isinstance(loop, uvloop.Loop)
    finally:
        loop.close()
