import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from serving import GOLDEN, PATIENCE, ROOT, environment, takes_signals

from lstm_serve import load_model

TURBOFAN = str(ROOT / "models" / "turbofan.h5")
ENGINE = ROOT / "models" / "turbofan.example.csv"
ASKER = str(GOLDEN / "asker" / "k215_model.h5")
LEFT_OUT = "lstm-serve: left out the column cycle, no feature of the model\n"


class Following:
    """The command, fed line by line."""

    def __init__(self, running: subprocess.Popen[str]) -> None:
        self.running = running
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        self.stdin, self.stdout, self.stderr = running.stdin, running.stdout, running.stderr

    def send(self, *lines: str) -> None:
        self.stdin.writelines(f"{line}\n" for line in lines)
        self.stdin.flush()

    def answer(self) -> str:
        return self.stdout.readline()

    def end(self) -> tuple[int, str, str]:
        out, err = self.running.communicate(timeout=PATIENCE)
        return self.running.returncode, out, err


@contextmanager
def following(*argv: str) -> Iterator[Following]:
    with subprocess.Popen(
        [sys.executable, "-m", "lstm_serve", "follow", *argv],
        cwd=ROOT,
        env=environment(),  # what is written is held back until it is let go
        preexec_fn=takes_signals,  # noqa: PLW1509 - it sets signals and takes no lock
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield Following(running)
        finally:
            running.kill()


def test_each_row_is_answered_before_the_next_is_sent() -> None:
    header, *rows = ENGINE.read_text("utf-8").splitlines()
    values = np.loadtxt(rows[:24], delimiter=",")[:, 1:]
    expected = load_model(TURBOFAN).predict_series(values)
    with following(TURBOFAN) as command:
        command.send(header, *rows[:19])
        for row, y, number in zip(rows[19:24], expected, range(20, 25), strict=True):
            command.send(row)
            told = json.loads(command.answer())
            assert told["row"] == number
            assert told["probabilities"] == pytest.approx(y.tolist(), abs=2e-6)
            assert told["label"] == "125 or more cycles left"
        assert command.end() == (0, "", LEFT_OUT)


def test_csv_is_written_as_predict_writes_it(tmp_path: Path) -> None:
    out = tmp_path / "answers.csv"
    argv = [sys.executable, "-m", "lstm_serve"]
    subprocess.run([*argv, "predict", TURBOFAN, ENGINE, "-o", out], cwd=ROOT, check=True, capture_output=True)
    with ENGINE.open("rb") as rows:
        done = subprocess.run(
            [*argv, "follow", TURBOFAN, "--csv"], cwd=ROOT, stdin=rows, check=True, capture_output=True, text=True
        )
    assert done.stderr == LEFT_OUT
    followed, predicted = (list(csv.reader(text.splitlines())) for text in (done.stdout, out.read_text("utf-8")))
    assert [row[:3] for row in followed] == [row[:3] for row in predicted]
    for mine, theirs in zip(followed[1:], predicted[1:], strict=True):
        assert list(map(float, mine[3:])) == pytest.approx(list(map(float, theirs[3:])), abs=2e-6)


def test_units_are_answered_each_by_itself_and_a_bad_line_is_told() -> None:
    header, *rows = ENGINE.read_text("utf-8").splitlines()
    names = header.split(",")[1:]
    with following(TURBOFAN, "--by", "site", "--by", "engine") as command:
        for row in rows[:19]:
            for engine in (1, 2):
                values = dict(zip(names, map(float, row.split(",")[1:]), strict=True))
                command.send(json.dumps({"site": "north", "engine": engine, **values}))
        command.send('{"site": "north", "engine": 2}')
        assert command.stderr.readline() == (f"lstm-serve: line 39 lacks {', '.join(names)[:200]}: left out\n")
        values = dict(zip(names, map(float, rows[19].split(",")[1:]), strict=True))
        command.send(json.dumps({"site": "north", "engine": 2, **values}))
        told = json.loads(command.answer())
        assert (told["site"], told["engine"], told["row"]) == ("north", "2", 40)
        assert command.end() == (1, "", "")


def test_a_header_without_a_row_is_no_success() -> None:
    with following(TURBOFAN, "--csv") as command:
        assert command.answer().startswith("row,label,")  # at once
        command.send(ENGINE.read_text("utf-8").splitlines()[0])
        status, out, err = command.end()
    assert (status, out) == (1, "")
    assert err.endswith("lstm-serve: no answer: a header came, and no row after it\n")


def test_a_first_line_that_is_no_header_ends_it() -> None:
    with following(TURBOFAN) as command:
        command.send("connected to the broker")
        status, out, err = command.end()
    assert (status, out) == (1, "")
    assert err.startswith("lstm-serve: standard input: line 1 ")


def test_json_is_utf_8_wherever_it_is_written(tmp_path: Path) -> None:
    shutil.copy(ASKER, tmp_path / "model.h5")
    (tmp_path / "model.card.json").write_text(json.dumps({"classes": ["m\u00fcde", *"bcde"]}), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "lstm_serve", "follow", str(tmp_path / "model.h5"), "--csv"],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert done.stdout == "row,label,predicted_class,m\u00fcde,b,c,d,e\n".encode()


@pytest.mark.parametrize(("sig", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_quietly(sig: signal.Signals, status: int) -> None:
    row = json.dumps([0.5] * 15)
    with following(ASKER) as command:
        command.send(*[row] * 20)
        assert json.loads(command.answer())["row"] == 20
        command.running.send_signal(sig)
        assert command.end() == (status, "", "")


def test_a_closed_pipe_ends_quietly() -> None:
    row = json.dumps([0.5] * 15)
    with following(ASKER) as command:
        command.send(*[row] * 20)
        assert command.answer()
        command.stdout.close()
        command.send(row)
        assert command.running.wait(PATIENCE) == 141
        assert command.stderr.read() == ""


def test_an_input_that_is_closed_or_cannot_be_read() -> None:
    argv = [sys.executable, "-m", "lstm_serve", "follow", ASKER]
    done = subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_column_that_an_answer_has_itself() -> None:
    with following(TURBOFAN, "--by", "label") as command:
        status, _, err = command.end()
    assert (status, "--by label: the answers have something of that name themselves" in err) == (1, True)
