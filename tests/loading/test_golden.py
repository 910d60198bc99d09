"""Golden predictions of models for which float32 is not enough: told from those that are wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from kerasfiles import Array, Layers, dense, lstm, save_sequential
from serving import GOLDEN, call, in_loop, started

from lstm_serve import Model, load_model
from lstm_serve.cli import main
from lstm_serve.errors import ModelError, UnreadableFile, WrongNumbers
from lstm_serve.model import exact
from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app

UNITS = 16


def drawn(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def chaotic(path: Path, timesteps: int = 20, activation: str = "tanh", factor: float = 6) -> Path:
    """A SimpleRNN whose recurrent kernel makes each difference several times as large with each step."""
    recurrent = drawn(1, UNITS, UNITS) * np.float32(factor / UNITS**0.5)
    rnn = [drawn(0, 3, UNITS), recurrent, drawn(2, UNITS) / 10]
    layers: Layers = [
        ("SimpleRNN", {"units": UNITS, "activation": activation}, rnn),
        ("Dense", {"units": 2, "activation": "linear"}, [drawn(3, UNITS, 2) / 8, np.zeros(2, np.float32)]),
    ]
    return save_sequential(path, layers, [timesteps, 3])


def x_of(timesteps: int = 20) -> Array:
    return drawn(4, 32, timesteps, 3)


def keras_like(model: Model, x: Array, factor: float = 1.0) -> tuple[Array, float]:
    """Answers that are `factor` times as far from the exact ones as the model's own, on the other side; how far."""
    right = exact.answers(model, x)
    y = right + factor * (right - model.predict(x))
    return y, float(np.abs(y - right).max())


def replayed(path: Path, x: Array, y: Array) -> Model:
    np.savez(path.with_name(f"{path.stem}.golden.npz"), x=x, y=y)
    return load_model(path)


def test_float64_is_exact(tmp_path: Path) -> None:
    model = load_model(chaotic(tmp_path / "m.h5", factor=1))
    rnn, dense = (node.operation.weights for node in model.nodes)
    x = x_of()[:4]
    w = {name: array.astype(np.float64) for name, array in rnn.items()}
    h = reference.walk(reference.simple_rnn, x, w, reference.tanh, reference.tanh)[:, -1]
    wanted = h @ dense["kernel"].astype(np.float64) + dense["bias"]
    np.testing.assert_allclose(exact.answers(model, x), wanted, rtol=1e-12, atol=1e-12)


def recorded() -> list[tuple[Path, Path]]:
    """Models that a real Keras saved, of every layer, with their golden predictions."""
    files = [*sorted(GOLDEN.glob("features/k3__*.h5")), *sorted(GOLDEN.glob("keras3/*.h5"))]
    beside = [(file, file.with_name(f"{name}.golden.npz")) for file in files for name in (file.name, file.stem)]
    refused = ("k3__encdec_state", "k3__func2")
    return [(file, golden) for file, golden in beside if golden.exists() and file.stem not in refused]


@pytest.mark.parametrize(("file", "golden"), recorded(), ids=lambda path: path.name)
def test_float64_is_what_every_layer_computes_in_float32(file: Path, golden: Path) -> None:
    model = load_model(file, replay=False)
    with np.load(golden) as arrays:
        x = model.checked(arrays["x"] if "x" in arrays else arrays["x0"])
    answers = exact.answers(model, x)
    assert answers.dtype == np.float64
    y = model.predict(x)
    assert (np.abs(answers - y) <= 1e-5 * np.maximum(1, np.abs(y))).all()


def test_an_ill_conditioned_model_is_served_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = chaotic(tmp_path / "m.h5")
    x = x_of()
    y, far = keras_like(load_model(path), x)
    assert 1e-5 < far < 1e-2
    origin = replayed(path, x, y).origin
    assert origin.verified
    assert origin.rounding == pytest.approx(far, rel=1e-6)
    assert origin.tolerance == pytest.approx(2 * far, rel=1e-6)
    assert origin.golden_difference is not None
    assert origin.golden_difference <= origin.tolerance
    assert main.main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "ill-conditioned: Keras' own float32 answers are up to" in said
    assert f"{origin.tolerance:.2g} is allowed" in said


@in_loop
async def test_the_log_and_the_api_say_so(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    path = chaotic(tmp_path_factory.mktemp("ill") / "m.h5")
    y, far = keras_like(load_model(path), x_of())
    np.savez(path.with_name("m.golden.npz"), x=x_of(), y=y)
    app = create_app(Settings(model=path))
    async with started(app):
        about: Any = json.loads((await call(app, "/model")).body)
    assert about["verified"]
    assert (about["rounding"], about["tolerance"]) == (pytest.approx(far), pytest.approx(2 * far))
    assert "float32 is not enough for 1e-5 in this model" in caplog.text


@pytest.mark.parametrize("factor", [1e-3, 0.5, 3.5])
def test_what_it_takes_to_be_ill_conditioned(tmp_path: Path, factor: float) -> None:
    path = chaotic(tmp_path / "m.h5")
    y, far = keras_like(load_model(path), x_of(), factor)
    origin = replayed(path, x_of(), y).origin
    assert origin.rounding == pytest.approx(far, rel=1e-5)
    assert origin.golden_difference is not None
    assert origin.tolerance == pytest.approx(max(2 * far, origin.golden_difference), rel=1e-5)


def test_keras_may_not_be_farther_from_the_exact_answer_than_four_times_as_far(tmp_path: Path) -> None:
    path = chaotic(tmp_path / "m.h5")
    y, _ = keras_like(load_model(path), x_of(), 4.5)
    with pytest.raises(WrongNumbers, match="more than float32 explains"):
        replayed(path, x_of(), y)


def with_a_wild_row(path: Path) -> tuple[Path, Array]:
    """A SimpleRNN that makes differences large where the input is small, and forgets them where it is large."""
    rnn = [np.full((1, UNITS), 8, np.float32), drawn(1, UNITS, UNITS) * np.float32(6 / UNITS**0.5)]
    layers: Layers = [
        ("SimpleRNN", {"units": UNITS, "activation": "tanh"}, [*rnn, np.zeros(UNITS, np.float32)]),
        ("Dense", {"units": 1, "activation": "linear"}, [drawn(3, UNITS, 1) / 8, np.zeros(1, np.float32)]),
    ]
    x = np.full((8, 20, 1), 30, np.float32) + drawn(5, 8, 20, 1)
    x[3] = drawn(6, 20, 1) / 8
    return save_sequential(path, layers, [20, 1]), x


def test_a_row_gains_no_slack_from_one_that_is_ill_conditioned(tmp_path: Path) -> None:
    path, x = with_a_wild_row(tmp_path / "m.h5")
    model = load_model(path)
    exactly = exact.answers(model, x)
    y = 2 * exactly - model.predict(x)
    apart = (np.abs(exactly - y) / np.maximum(1, np.abs(y))).ravel()
    assert apart[3] > 2e-5
    assert np.delete(apart, 3).max() < 1e-6
    origin = replayed(path, x, y).origin
    assert origin.rounding == pytest.approx(apart[3], rel=1e-6)
    y[np.arange(8) != 3] += apart[3] / 2
    with pytest.raises(WrongNumbers, match=r"\(row [0124567]\); 1e-05 is allowed.* more than float32 explains"):
        replayed(path, x, y)


@pytest.mark.parametrize("seed", range(1, 7))
def test_a_row_is_not_refused_because_ours_happens_to_be_near_the_exact_answer(tmp_path: Path, seed: int) -> None:
    """One number a row: of 32 some are by chance a tenth as far from the exact answer here as in Keras."""
    path = chaotic(tmp_path / "m.h5")
    x = drawn(seed, 32, 20, 3)
    y = exact.nudged(load_model(path), 100 + seed).predict(x)
    assert replayed(path, x, y).origin.rounding is not None


def test_a_model_beyond_all_telling_is_refused_for_that(tmp_path: Path) -> None:
    path = chaotic(tmp_path / "m.h5", timesteps=60)
    y, far = keras_like(load_model(path), x_of(60))
    assert far > 1e-2
    with pytest.raises(WrongNumbers, match=r"float32 is not enough for this model, .* nobody can tell"):
        replayed(path, x_of(60), y)


@pytest.mark.parametrize("factor", [1, 6])
def test_a_wrong_activation_stays_refused(tmp_path: Path, factor: float) -> None:
    y = load_model(chaotic(tmp_path / "other.h5", activation="hard_sigmoid", factor=factor)).predict(x_of())
    path = chaotic(tmp_path / "m.h5", factor=factor)
    said = (
        r"misses its golden .* Computed in float64, .* more than float32 explains\. Model, card and golden predictions"
    )
    with pytest.raises(WrongNumbers, match=said):
        replayed(path, x_of(), y)


def test_what_is_not_finite_is_refused(tmp_path: Path) -> None:
    y = load_model(chaotic(tmp_path / "m.h5")).predict(x_of())
    y[3, 0] = np.nan
    with pytest.raises(WrongNumbers, match=r"by up to nan \(row 3\)"):
        replayed(tmp_path / "m.h5", x_of(), y)


def test_a_link_to_nothing_is_no_golden_file(tmp_path: Path) -> None:
    path = chaotic(tmp_path / "m.h5")
    (tmp_path / "m.golden.npz").symlink_to("gone.npz")
    with pytest.raises(
        UnreadableFile, match=r"m\.golden\.npz cannot be read: it is a link to a file that is not there"
    ):
        load_model(path)


def packed(path: Path, x: Array, y: Array) -> Path:
    np.savez_compressed(path.with_name(f"{path.stem}.golden.npz"), x=x, y=y)
    return path


def free(path: Path) -> Path:
    return save_sequential(path, [lstm(1, 1), dense(2, 1)], [None, 1])


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        ((1, 2_000_000, 1), (1, 2), r"are of 1 sequences and 2000000 time steps in all; at most 262144 are replayed"),
        ((400_000, 5, 1), (400_000, 2), r"are of 400000 sequences and 2000000 time steps"),
        ((50_000_000, 1, 1), (1, 2), r"has answers of shape \(1, 2\), and the model gives \(50000000, 2\)"),
        ((4, 5, 1), (4, 3), r"has answers of shape \(4, 3\), and the model gives \(4, 2\)"),
        ((90_000_000, 1, 1), (1, 2), r"cannot be read: the \.npz file unpacks to more than (6\d|7\d) MiB"),
    ],
)
def test_a_small_file_of_much_is_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, x: tuple[int, ...], y: tuple[int, ...], said: str
) -> None:
    path = packed(free(tmp_path / "m.h5"), x=np.zeros(x, np.uint8), y=np.zeros(y, np.uint8))
    monkeypatch.setattr(Model, "predict", None)
    with pytest.raises(ModelError, match=said):
        load_model(path)


def test_what_no_rounding_explains_is_computed_in_float64_for_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    answers = exact.answers

    def counted(model: Model, x: Array) -> Array:
        rows.append(len(x))
        return answers(model, x)

    monkeypatch.setattr(exact, "answers", counted)
    path = packed(free(tmp_path / "m.h5"), x=np.zeros((2000, 5, 1), np.float32), y=np.zeros((2000, 2), np.float32))
    with pytest.raises(WrongNumbers, match=r"misses its golden predictions .* more than float32 explains"):
        load_model(path)
    assert rows == [1]


def test_of_a_stateful_model_each_sequence_starts_from_states_of_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.keras"
    path.write_bytes((GOLDEN / "stateful" / "k3__last.keras").read_bytes())
    assert main.main(["inspect", str(path)]) == 0
    assert "reset = lambda: " in capsys.readouterr().out
    with np.load(GOLDEN / "stateful" / "k3__last.calls.npz") as calls:
        x, y = calls["x"][:, 0], calls["y"][:, 0]  # each call goes on where the one before ended
    assert replayed(path, x[:1], y[:1]).origin.verified
    with pytest.raises(WrongNumbers, match=r"were not reset between the sequences.* reset = lambda: "):
        replayed(path, x, y)
