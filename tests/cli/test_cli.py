import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from serving import GOLDEN, PATIENCE, ROOT, takes_signals

import lstm_serve
from lstm_serve.cli.main import BLAS_THREADS, main

TURBOFAN = str(ROOT / "models" / "turbofan.h5")
ENGINE = str(ROOT / "models" / "turbofan.example.csv")
EXAMPLE = str(ROOT / "models" / "turbofan.example.json")
ASKER = str(GOLDEN / "asker" / "k215_model.h5")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BLAS_THREADS:
        monkeypatch.setenv(name, "1")


@pytest.fixture
def missing(tmp_path: Path) -> str:
    """A model whose golden predictions are another's."""
    model = tmp_path / "model.h5"
    shutil.copy(ASKER, model)
    golden = np.load(ASKER.replace("model.h5", "golden.npz"))
    np.savez(tmp_path / "model.golden.npz", x=golden["x0"], y=golden["y0"][::-1])
    return str(model)


def process(*argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lstm_serve", *argv],
        cwd=ROOT,
        preexec_fn=takes_signals,  # noqa: PLW1509 - it sets signals and takes no lock
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# A real process


def test_an_engines_life_runs_out() -> None:
    with process("predict", TURBOFAN, ENGINE) as running:
        out, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0
    assert err == "lstm-serve: left out the column cycle, no feature of the model\n"
    lines = out.splitlines()
    assert lines[6].startswith(" 20  125 or more cycles left ")
    assert lines[-1].startswith("205  0-29 cycles left ")
    bands = [line[5:29].strip() for line in lines[6:]]
    assert list(dict.fromkeys(bands))[-1] == "0-29 cycles left"
    assert len(lines) == 6 + 186


def test_an_expected_error_is_one_line_and_no_traceback() -> None:
    with process("predict", "no.h5", ENGINE) as running:
        out, err = running.communicate(timeout=PATIENCE)
    assert (running.returncode, out, err) == (3, "", "lstm-serve: no.h5: there is no such file\n")


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    rows = Path(ENGINE).read_text("utf-8").splitlines(keepends=True)
    long = tmp_path / "long.csv"
    long.write_text(rows[0] + "".join(rows[1:]) * 20, "utf-8")
    with process("predict", TURBOFAN, str(long)) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline().startswith("class 0")
        running.stdout.close()
        err = running.stderr.read()
        assert running.wait(PATIENCE) == 141
    left_out, anew = err.splitlines()
    assert left_out == "lstm-serve: left out the column cycle, no feature of the model"
    assert "the column cycle, left out, counts up and starts anew 19 times" in anew


def test_a_pipe_that_was_never_read_ends_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    # Unbuffered, argparse itself would see the error and say nothing.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-m", "lstm_serve", "--help"],
        cwd=ROOT,
        env=buffered,
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(("sig", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_quietly_and_leaves_no_file(tmp_path: Path, sig: signal.Signals, status: int) -> None:
    series = tmp_path / "long.npy"
    np.save(series, np.ones((300_000, 15), np.float32))
    with process("predict", ASKER, str(series), "-o", str(tmp_path / "out.npy")) as running:
        while not list(tmp_path.glob("*.part")) and running.poll() is None:
            time.sleep(0.01)
        running.send_signal(sig)
        out, err = running.communicate(timeout=PATIENCE)
    assert (running.returncode, out, err) == (status, "", "")
    assert list(tmp_path.iterdir()) == [series]


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_what_is_read_is_not_written_over(tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    series = tmp_path / "series.csv"
    series.write_text("1," * 14 + "1\n")
    with pytest.raises(SystemExit, match="2"):
        main([command, ASKER, str(series), "-o", f"{tmp_path}/./series.csv"])
    assert "is the file that is read; name another" in capsys.readouterr().err
    assert series.read_text() == "1," * 14 + "1\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "1 1 1"), ({"OMP_NUM_THREADS": "4"}, "None 4 None"), ({"OPENBLAS_NUM_THREADS": "2"}, "2 None None")],
)
def test_blas_has_one_thread_before_numpy_comes_in(given: dict[str, str], expected: str) -> None:
    code = (
        "import os, sys; import lstm_serve.cli.main; before = 'numpy' in sys.modules; "
        f"sys.argv[1:] = ['inspect', {ASKER!r}]; lstm_serve.cli.main.main(); "
        f"print(before, *(os.environ.get(name) for name in {BLAS_THREADS!r}))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in BLAS_THREADS} | given
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"False {expected}"


def test_a_label_that_the_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    shutil.copy(ASKER, tmp_path / "model.h5")
    card = {"classes": ["müde", "b", "c", "d", "e"]}
    (tmp_path / "model.card.json").write_text(json.dumps(card), "utf-8")
    np.save(tmp_path / "x.npy", np.zeros((20, 15)))
    done = subprocess.run(
        [sys.executable, "-m", "lstm_serve", "predict", str(tmp_path / "model.h5"), str(tmp_path / "x.npy")],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "class 0: m\\xfcde\n" in done.stdout


# In process


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(argv)
    return status, *capsys.readouterr()


def misuse(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, shows in (
        (["--version"], f"lstm-serve {lstm_serve.__version__}\n"),
        (["--help"], "lstm-serve predict model.h5 series.csv"),
        (["predict", "--help"], "example:\n  lstm-serve predict model.h5"),
        (["inspect", "--help"], "example:\n  lstm-serve inspect model.h5 --trace"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == 0
        out = capsys.readouterr().out
        assert shows in out
        assert len(out.splitlines()) < 30


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "required: COMMAND"),
        (["guess"], "invalid choice: 'guess'"),
        ([TURBOFAN], "turbofan.h5' is no command; for a model: lstm-serve serve "),
        (["m.h5"], "lstm-serve: error: 'm.h5' is no command; for a model: lstm-serve serve m.h5"),
        (["serv"], "Did you mean serve?"),
        (["predict", TURBOFAN, "--prot", "1"], "--prot is no flag of this command"),
        (["predict", TURBOFAN, ENGINE, "--strid", "1"], "--strid is no flag of this command. Did you mean --stride?"),
        (["inspect", TURBOFAN, "--xyzzy"], "--xyzzy is no flag of this command. --help lists them"),
        (
            ["inspect", TURBOFAN, "more"],
            "unrecognized arguments: more; it is called as in: lstm-serve inspect model.h5",
        ),
        (["follow", TURBOFAN, "rows.csv"], "rows.csv; it is called as in: tail -n +1 -f rows.csv | lstm-serve follow"),
        (["predict", TURBOFAN, "a.parquet", "b.parquet"], ": b.parquet (a pattern of files goes in quotes); it is"),
        (["serve", "m.h5", "--prot=1"], "--prot is no flag of this command. Did you mean --port?"),
        (["serve", "--port", "m.h5"], "--port: expected a whole number; no model: "),
        (["serve", "m.h5", "--api-keys", "secret"], "set LSTMSERVE_API_KEYS, or give --api-keys-file"),
        (["serve", "m.h5", "--series-store", "redis://secret"], "a command line: set LSTMSERVE_SERIES_STORE\n"),
        (["serve", "m.h5", "--prot", "--series-store=redis://secret"], "set LSTMSERVE_SERIES_STORE\n"),
        (["serve", "--model", "m.h5"], "--model is no flag: the model is given without one, as in: lstm-serve serve "),
        (["predict", "--model=m.h5", TURBOFAN, ENGINE], "as in: lstm-serve predict model.h5 series.csv"),
        (["predict", TURBOFAN], "required: INPUT"),
        (["predict", TURBOFAN, ENGINE, "--stride", "0"], "'0' is not a whole number from 1 on"),
        (["predict", TURBOFAN, ENGINE, "--stride", "9" * 5000], "is not a whole number from 1 on"),
        (["predict", "no.h5", "no.csv", "-o", "out.txt"], "-o 'out.txt' should end in .npy, .csv, .json"),
        (["inspect", TURBOFAN, "--step", "3"], "--step needs --trace"),
    ],
)
def test_wrong_usage_is_argparses_own(capsys: pytest.CaptureFixture[str], argv: list[str], expected: str) -> None:
    said = misuse(capsys, *argv)
    assert expected in said
    assert "secret" not in said


def test_the_most_memory_for_arrays_is_a_setting_of_each_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSTMSERVE_MAX_MODEL_BYTES", "1000")
    for argv in (["predict", TURBOFAN, EXAMPLE], ["inspect", TURBOFAN]):
        status, out, err = run(capsys, *argv)
        assert (status, out) == (3, "")
        assert "1000" in err
        assert run(capsys, *argv, "--max-model-bytes", "100000000")[0] == 0
    monkeypatch.setenv("LSTMSERVE_MAX_MODEL_BYTES", "secret")
    assert "LSTMSERVE_MAX_MODEL_BYTES: expected a whole number\n" in misuse(capsys, "inspect", TURBOFAN)


def test_predict_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "predict", TURBOFAN, EXAMPLE)
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].startswith(" 20  0-29 cycles left")


def test_the_model_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "predict", ENGINE, TURBOFAN)
    assert (status, out) == (3, "")
    assert "the model comes first, as in: lstm-serve predict model.h5 series.csv. " in err
    assert "as in: lstm-serve profile model.h5 train.csv" in run(capsys, "profile", ENGINE, TURBOFAN)[2]
    assert "the model comes first" not in run(capsys, "inspect", ENGINE)[2]
    assert "the model comes first" not in run(capsys, "predict", EXAMPLE, ENGINE)[2]


def test_predict_with_a_stride_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(ENGINE).read_bytes())))
    status, out, _ = run(capsys, "predict", TURBOFAN, "-", "--stride", "40")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[6:]] == ["20", "60", "100", "140", "180"]


def test_units_are_kept_apart_and_carried_into_the_output(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    header, *rows = Path(ENGINE).read_text("utf-8").splitlines()
    engines = tmp_path / "engines.csv"
    lines = [f"unit,{header}", *(f"{unit},{row}" for unit in ("E1", "E2", "E3") for row in rows[:20])]
    engines.write_text("\n".join(lines), "utf-8")
    status, out, err = run(capsys, "predict", TURBOFAN, str(engines))
    assert (status, len(out.splitlines())) == (0, 6 + 41)
    assert "the column unit, left out, looks as if it told units apart" in err
    for argv, title, kept_apart in (
        (["explain"], "EXPLANATION of row 60: ", "EXPLANATION of row 60, E3: "),
        (["explain", "--row", "40"], "EXPLANATION of row 40: ", "EXPLANATION of row 40, E2: "),
        (["inspect", "--trace"], "TRACE of rows 1 to 20 of the series, ", "TRACE of the rows of E1 up to row 20, "),
    ):
        command, *flags = argv
        status, out, err = run(capsys, command, TURBOFAN, *flags, str(engines))
        assert (status, title in out, "the column unit, left out, looks as if" in err) == (0, True, True)
        status, out, err = run(capsys, command, TURBOFAN, *flags, str(engines), "--by", "unit")
        assert (status, kept_apart in out) == (0, True)
        assert err == "lstm-serve: left out the column cycle, no feature of the model\n"
    status, _, err = run(capsys, "explain", TURBOFAN, str(engines), "--by", "unit", "--row", "21")
    said = "rows 20 to 60, not for the first 19 rows of a unit; the next is row 40, of E2\n"
    assert (status, err.endswith(f"--row 21: there are answers for {said}")) == (1, True)
    out_csv = tmp_path / "why.csv"
    for by, first in (([], "41"), (["--by", "unit"], "1")):  # of a unit steps are counted within the window
        assert run(capsys, "explain", TURBOFAN, str(engines), *by, "-o", str(out_csv))[0] == 0
        assert out_csv.read_text("utf-8").splitlines()[1].startswith(f"{first},")
    status, _, err = run(capsys, "predict", TURBOFAN, str(engines), "--by", "unit,cycle")
    said = "engines.csv: --by 'unit,cycle' names several of its columns: give --by unit --by cycle\n"
    assert (status, err.endswith(said)) == (1, True)
    status, out, err = run(capsys, "predict", TURBOFAN, str(engines), "--by", "unit")
    assert (status, err) == (0, "lstm-serve: left out the column cycle, no feature of the model\n")
    assert [line.split()[:2] for line in out.splitlines()[5:]] == [
        ["unit", "row"],
        ["E1", "20"],
        ["E2", "40"],
        ["E3", "60"],
    ]
    status, *_ = run(capsys, "predict", TURBOFAN, str(engines), "--by", "unit", "-o", str(tmp_path / "out.csv"))
    written = (tmp_path / "out.csv").read_text("utf-8").splitlines()
    assert [line.split(",")[:2] for line in written] == [["unit", "row"], ["E1", "20"], ["E2", "40"], ["E3", "60"]]


def test_predict_into_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    golden = np.load(ROOT / "models" / "turbofan.golden.npz")
    np.save(tmp_path / "x.npy", golden["x"])
    status, *_ = run(capsys, "predict", TURBOFAN, str(tmp_path / "x.npy"), "-o", str(out))
    assert status == 0
    np.testing.assert_allclose(np.load(out), golden["y"], atol=1e-5)


def test_an_input_that_does_not_fit_is_status_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    short = tmp_path / "short.csv"
    short.write_text("".join(Path(ENGINE).read_text("utf-8").splitlines(keepends=True)[:20]), "utf-8")
    status, out, err = run(capsys, "predict", TURBOFAN, str(short))
    assert (status, out) == (1, "")
    assert err == f"lstm-serve: {short}: has 19 rows, and the model needs 20 for an answer\n"


def test_inspect_and_trace(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "inspect", TURBOFAN)
    assert status == 0
    assert re.findall(r"^[A-Z ]{5,}$", out, re.MULTILINE) == [
        "MODEL",
        "LAYERS",
        "ARRAYS",
        "FROM INPUT TO ANSWER",
        "EASILY MISTAKEN",
        "THE SAME IN NUMPY",
    ]
    status, out, _ = run(capsys, "inspect", TURBOFAN, "--trace", ENGINE, "--step", "3")
    assert status == 0
    assert out.startswith(f"MODEL\n  file        {TURBOFAN}\n")
    assert "verified    yes: it reproduces the 32 predictions" in out
    assert "TRACE of rows 1 to 20 of the series, step 3 of 20" in out
    assert "LAYERS" not in out


@pytest.mark.parametrize("form", ["folder", "saved model", "checkpoint", "archive"])
def test_every_form_finds_its_card_and_golden_predictions(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, form: str
) -> None:
    stem, given = "model", tmp_path / "m" / "model.keras"
    given.parent.mkdir()
    if form == "saved model":
        stem = given.name
        shutil.copytree(GOLDEN / "savedmodel" / "tf2.0__c_gru_ra0", given)
        predictions = GOLDEN / "savedmodel" / "tf2.0__c_gru_ra0.golden.npz"
    elif form == "checkpoint":
        stem = "ck"
        for file in (GOLDEN / "savedmodel" / "tf21__func_ck").iterdir():
            shutil.copy(file, given.parent)
        given = given.with_name("ck")
        predictions = GOLDEN / "savedmodel" / "tf21__func_ck.golden.npz"
    else:
        shutil.copy(GOLDEN / "keras3" / "shapes.keras", given)
        predictions = GOLDEN / "keras3" / "shapes.golden.npz"
    folder = given.parent
    shutil.copy(predictions, folder / f"{stem}.golden.npz")
    (folder / f"{stem}.card.json").write_text('{"description": "its card"}', "utf-8")
    status, out, _ = run(capsys, "inspect", str(folder if form == "folder" else given))
    assert status == 0
    assert "  card        " + f"{stem}.card.json\n" in out
    assert "  about       its card\n" in out
    assert f"predictions of Keras in {stem}.golden.npz" in out


def test_weights_alone_take_what_is_said_of_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    weights = str(GOLDEN / "asker" / "k215_weights.h5")
    shutil.copy(weights, tmp_path / "w.h5")
    weights = str(tmp_path / "w.h5")
    np.save(tmp_path / "x.npy", np.load(ASKER.replace("model.h5", "golden.npz"))["x0"])
    argv = ["predict", weights, str(tmp_path / "x.npy"), "-o", str(tmp_path / "y.npy")]
    status, _, err = run(capsys, *argv)
    assert status == 3
    assert "--output-activation" in err
    assert run(capsys, *argv, "--output-activation", "softmax")[0] == 0
    expected = np.load(ASKER.replace("model.h5", "golden.npz"))["y0"]
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-5)
    status, out, _ = run(
        capsys, "inspect", weights, "--recurrent-activation", "hard_sigmoid", "--output-activation", "softmax"
    )
    assert status == 0
    assert "i  = hard_sigmoid(z[0:101])" in out


def test_a_model_that_misses_its_golden_predictions_is_still_shown(
    capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    status, out, err = run(capsys, "inspect", missing)
    assert status == 3
    assert "*** NO: THIS MODEL DOES NOT GIVE WHAT KERAS GAVE ***" in out
    assert "EASILY MISTAKEN" in out
    assert err.startswith(f"lstm-serve: {missing}: it misses its golden predictions in model.golden.npz by up to ")
    assert err.count("\n") == 1
    assert run(capsys, "predict", missing, EXAMPLE)[0] == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("output", "status", "said"),
    [("/dev/full", 1, "lstm-serve: the output cannot be written: No space left on device\n"), ("&-", 0, "")],
)
def test_an_output_that_takes_nothing(output: str, status: int, said: str) -> None:
    command = f'"{sys.executable}" -m lstm_serve inspect "{TURBOFAN}" >{output}'
    done = subprocess.run(["/bin/sh", "-c", command], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, said)


def test_notes_that_nobody_can_be_told(tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    command = f'"{sys.executable}" -m lstm_serve predict "{TURBOFAN}" "{ENGINE}" -o "{out}" 2>&-'
    assert subprocess.run(["/bin/sh", "-c", command], cwd=ROOT, check=False).returncode == 0
    assert np.load(out).shape == (186, 5)
