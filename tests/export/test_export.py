"""What holds for every target: nothing half written, nothing overwritten, no name that gets out of its place."""

import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from every_activation import EVERY_ACTIVATION
from exporting import EACH_TARGET, EVERY, difference, expect_the_same, of_several, run, written
from serving import ASKER, GOLDEN, ROOT
from small_models import classes, dense, lstm, model

from lstm_serve import export, load_model
from lstm_serve.cli.export import TARGETS as OFFERED
from lstm_serve.cli.main import main
from lstm_serve.engine.activations import SOFTMAX
from lstm_serve.engine.functions import FUNCTIONS
from lstm_serve.engine.operations import OPERATIONS
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.temporal import Reshape
from lstm_serve.engine.operations.wrappers import TimeDistributed
from lstm_serve.engine.types import Array
from lstm_serve.errors import SettingsError, WrongNumbers
from lstm_serve.export import TARGETS, artifact, target
from lstm_serve.export.artifact import made_golden, read_golden
from lstm_serve.export.operation import table_of
from lstm_serve.model.metadata import About

TURBOFAN = str(ROOT / "models" / "turbofan.h5")
HOSTILE = (
    'int while;*/ #include "/etc/passwd" //',
    "a'b\"c`${d}\\",
    "x\ny\r\u2028z??/",
    "n" * 300,
    "长短期记忆",
    "</script>*/",
)

each_target = pytest.mark.parametrize("to", EACH_TARGET)


def test_the_command_offers_each_target() -> None:
    assert tuple(TARGETS) == OFFERED


@each_target
def test_every_operation_and_activation_is_in_the_table(to: str) -> None:
    aim = target(to)
    assert list(aim.table) == list(OPERATIONS)
    assert set(aim.activations) == {activation.function for activation in (*EVERY_ACTIVATION, *FUNCTIONS.values())}


def test_the_documentation_has_the_table() -> None:
    table = table_of({name: target(name) for name in TARGETS}, OPERATIONS)
    assert table in (ROOT / "docs" / "export.md").read_text("utf-8")


@each_target
def test_what_is_there_stays_without_force(to: str, tmp_path: Path) -> None:
    aim = target(to)
    out = tmp_path / f"m{aim.suffix}"
    export.export(classes(), to, out)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SettingsError, match="exists already; --force"):
        export.export(classes((5, 3)), to, out)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    export.export(classes(), to, out, force=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@each_target
def test_a_file_where_a_folder_is_to_be_and_the_other_way_round(to: str, tmp_path: Path) -> None:
    out = tmp_path / f"out{target(to).suffix}"
    out.touch() if target(to).is_folder else out.mkdir()
    with pytest.raises(SettingsError, match="name another"):
        export.export(classes(), to, out, force=True)


@each_target
def test_a_folder_that_is_not_there(to: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be written: No such file"):
        export.export(classes(), to, tmp_path / "no" / f"out{target(to).suffix}")
    assert list(tmp_path.iterdir()) == []


def _small_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    outs = {to: f"{to}{target(to).suffix}" for to in TARGETS if to != "onnx" or importlib.util.find_spec("onnx")}
    code = (
        "from lstm_serve.cli.main import main\n"
        f"print([main(['export', {TURBOFAN!r}, '--to', to, '-o', out]) for to, out in {outs}.items()])"
    )
    # A file of at most 4 KiB: all targets write more of this model.
    # Without a tracer, whose own file would be cut as well, and without compiled files, which Python would leave cut.
    env = {**os.environ, "COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": "", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, preexec_fn=_small_disk, check=False
    )
    assert done.stdout == f"{[1] * len(outs)}\n", done.stderr
    said = [f"lstm-serve: {out}: cannot be written: File too large" for out in outs.values()]
    assert done.stderr.splitlines() == said
    assert list(tmp_path.iterdir()) == []


@each_target
def test_the_result_is_run_before_it_is_written(to: str, tmp_path: Path) -> None:
    wrong = made_golden(classes())
    wrong = wrong._replace(ys=[wrong.ys[0][:, ::-1]])
    out = tmp_path / f"out{target(to).suffix}"
    if isinstance(_answers(to, tmp_path), str):
        pytest.skip("the tool for it is not here")
    with pytest.raises(WrongNumbers, match="nothing was written"):
        export.export(classes(), to, out, golden=wrong, check=True)
    assert not out.exists()


@pytest.mark.parametrize(("off", "good"), [(0.9, True), (1.1, False), (np.nan, False)])
def test_a_result_may_be_off_by_the_tolerance_and_by_no_more(tmp_path: Path, off: float, *, good: bool) -> None:
    made = classes()
    golden = made_golden(made)
    y = golden.ys[0].copy()
    y[0, 0] += np.float32(off * made.origin.tolerance)
    out = tmp_path / "out"
    with nullcontext() if good else pytest.raises(WrongNumbers):
        export.export(made, "numpy", out, golden=golden._replace(ys=[y]), check=True)
    assert out.exists() == good


def test_the_largest_difference_is_that_of_any_output_and_nan_where_one_is() -> None:
    golden = made_golden(classes())
    (y,) = golden.ys
    two = golden._replace(ys=[y, y], units=[*golden.units] * 2)
    for came in ([y, y + 1], [y + 1, y]):
        assert two.worst(came) == pytest.approx(1)
    for came in ([y, y * np.nan], [y * np.nan, y]):
        assert np.isnan(two.worst(came))


def _answers(to: str, folder: Path) -> list[Array] | str:
    aim = target(to)
    path = folder / f"there{aim.suffix}"
    export.export(classes(), to, path)
    return aim.run(path, made_golden(classes()).xs)


@each_target
def test_hostile_names_stay_names(to: str, tmp_path: Path) -> None:
    layers: list[Operation] = [lstm(3, 5, name=HOSTILE[0], return_sequences=True), lstm(5, 4, name=HOSTILE[1])]
    layers = [*layers, *(dense(4, 4, name=name) for name in HOSTILE[2:]), dense(4, 2, SOFTMAX, name=HOSTILE[0])]
    about = About(name="m", description=HOSTILE[2], classes=(HOSTILE[0], HOSTILE[1]), metadata={})
    made = model(layers, about=about)
    made = replace(made, origin=replace(made.origin, file=HOSTILE[0], assumed=HOSTILE))
    made = replace(made, inputs=(made.inputs[0]._replace(name=HOSTILE[1]),))
    expect_the_same(to, made, tmp_path)


@each_target
@pytest.mark.parametrize(
    "names",
    [
        ("rows", "start", "classes", "state"),
        ("while", *HOSTILE[2:5]),
        ("v1", "v2", *HOSTILE[:2]),
        ("__proto__", "constructor", "__proto__", "toString"),
    ],
)
def test_several_inputs_outputs_and_states_by_any_names(to: str, names: tuple[str, ...], tmp_path: Path) -> None:
    expect_the_same(to, of_several(names), tmp_path)


@each_target
def test_an_input_that_no_output_comes_from(to: str, tmp_path: Path) -> None:
    expect_the_same(to, load_model(GOLDEN / "several/tf215__shared_layers.h5"), tmp_path)


def test_in_numpy_several_are_dicts_by_their_names(tmp_path: Path) -> None:
    made = of_several(("rows", "it's", "classes", HOSTILE[2]))
    golden = made_golden(made)
    export.to_numpy(made, tmp_path / "m")
    script = """
import json, model, sys
answers = model.predict(json.load(sys.stdin))
print(json.dumps({name: y.tolist() for name, y in answers.items()}))
"""
    given = {"it's": golden.xs[1].tolist(), "rows": golden.xs[0].tolist()}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path / "m",
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = json.loads(done.stdout)
    assert list(answers) == ["classes", HOSTILE[2]]
    np.testing.assert_allclose(answers["classes"], golden.ys[0], atol=1e-5)


def test_m_h_says_which_is_which(tmp_path: Path) -> None:
    export.to_c(of_several(("rows", "while", "classes", HOSTILE[2])), tmp_path / "m")
    header = (tmp_path / "m/m.h").read_text("ascii")
    assert "void m_predict(const float in1[4][3], const float in2[2], float out1[2], float out2[5]);" in header
    assert (
        "/* The answers to one row of inputs.\n * in1: rows\n * in2: while\n * out1: classes, (2,)\n * out2: x_y"
        in header
    )


@pytest.mark.parametrize(
    ("last", "outputs", "answer"),
    [
        (lstm(3, 5), 5, "float out[M_OUTPUTS]"),
        (lstm(3, 5, return_sequences=True), 5, "float out[][M_OUTPUTS]"),
        (TimeDistributed.of(name="t", layer=Reshape(name="r", target=(3, 1))), 3, "float out[][M_OUTPUTS]"),
    ],
)
def test_m_h_says_how_many_numbers_an_answer_has(last: Operation, outputs: int, answer: str, tmp_path: Path) -> None:
    """Of a state after the last row there is one answer, of what is computed at each row as many as rows."""
    checked = export.export(model([last]), "c", tmp_path / "m", check=True)
    assert checked is not None
    assert checked.not_run or checked.difference <= 1e-5
    header = (tmp_path / "m/m.h").read_text("ascii")
    assert f"#define M_OUTPUTS {outputs}\n" in header
    assert f"window[M_TIMESTEPS][M_FEATURES], {answer});" in header
    assert ("for each of its rows" in header) == (answer == "float out[][M_OUTPUTS]")


@each_target
def test_extreme_weights(to: str, tmp_path: Path) -> None:
    extremes = np.array([1e-45, -1e-39, -0.0, 0.0, 1e38, -1e38, 3e-38, 1e-7], np.float32)
    layer = dense(8, 8)
    made = model([replace(layer, kernel=np.diag(extremes), bias=extremes[::-1] * 0), dense(8, 2)], (8,))
    made = replace(made, nodes=made.nodes[:1])
    expect_the_same(to, made, tmp_path)


@pytest.mark.long
@each_target
def test_the_golden_files_it_takes(to: str, tmp_path: Path) -> None:
    aim = target(to)
    missed, count = {}, 0
    for name, out, golden in written(to, tmp_path):
        y = aim.run(out, golden.xs)
        shutil.rmtree(out) if aim.is_folder else out.unlink()
        if isinstance(y, str):
            pytest.skip(y)
        count += 1
        if not difference(y, golden) <= 1e-5:
            missed[name] = difference(y, golden)
    assert missed == {}
    assert count >= 40 // EVERY[to]


def test_the_command(tmp_path: Path) -> None:
    done = run("export", str(ASKER / "k215_model.h5"), "--to", "keras", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "wrote k215_model.keras for Keras 3\n", "")
    done = run("export", "k215_model.keras", "--to", "keras", "--force", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    # Before it, a note on the golden predictions that went along: their name is that of the whole file.
    assert done.stderr.splitlines()[-1] == "lstm-serve: k215_model.keras is the model itself; name another with -o"
    done = run("export", str(GOLDEN / "stateful" / "k3__last.keras"), "--to", "numpy", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "wrote k3__last-numpy for NumPy\n")
    assert "stateful in Keras; what is written starts each sequence from states of 0" in done.stderr


@pytest.mark.parametrize(("to", "name"), [("keras", "q.h5"), ("keras", "q"), ("onnx", "q.txt"), ("onnx", "q.ONNX")])
def test_a_file_is_called_what_it_is(
    to: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status = main(["export", str(ASKER / "k215_model.h5"), "--to", to, "-o", name])
    out, err = capsys.readouterr()
    assert (status, out) == (1, "")
    assert err.splitlines()[-1] == f"lstm-serve: {name}: its name should end in .{to}, by which it is read"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SettingsError, match=rf"its name should end in \.{to}"):
        export.export(classes(), to, tmp_path / name)


def test_of_many_golden_predictions_some_go_along_each_with_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    path = GOLDEN / "small/values.h5"
    made = load_model(path)
    with np.load(path.with_suffix(".golden.npz")) as arrays:
        x, y = arrays["x"], arrays["y"]
    monkeypatch.setattr(artifact, "MAX_GOLDEN_FLOATS", 3 * x[0].size)
    golden = read_golden(path, made)
    assert golden is not None
    np.testing.assert_array_equal(golden.xs[0], x[:3])
    np.testing.assert_array_equal(golden.ys[0], y[:3])


@pytest.mark.parametrize("to", [param for param in EACH_TARGET if param.values != ("keras",)])
def test_what_the_card_does_after_the_last_layer(to: str, tmp_path: Path) -> None:
    """Keras' golden predictions go along in the targets' own units, and so is the difference."""
    shutil.copy(GOLDEN / "small/values.h5", tmp_path / "m.h5")
    shutil.copy(GOLDEN / "small/values.golden.npz", tmp_path / "m.golden.npz")
    card = {"output_scaling": {"mean": [2e6], "scale": [3e5]}}
    (tmp_path / "m.card.json").write_text(json.dumps(card), "utf-8")
    made = load_model(tmp_path / "m.h5")
    golden = read_golden(tmp_path / "m.h5", made)
    assert golden is not None
    with np.load(tmp_path / "m.golden.npz") as arrays:
        np.testing.assert_allclose(golden.ys[0], arrays["y"][: len(golden.ys[0])] * 3e5 + 2e6, rtol=1e-6)
    checked = export.export(made, to, tmp_path / f"out{target(to).suffix}", golden=golden, check=True)
    assert checked is not None
    assert checked.not_run or checked.difference <= 1e-5
