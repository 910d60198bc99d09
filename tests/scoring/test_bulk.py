"""What engines for bulk data are given, as they carry and call it; `make clusters` runs the engines themselves."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import numpy.typing as npt
import pytest
from serving import ASKER, GOLDEN, ROOT, SMALL, Golden
from threadpoolctl import OpenBLASController, threadpool_limits

from lstm_serve import InvalidInput, Model, ModelError, load_model
from lstm_serve.bulk import Predictor, make_predict_fn
from lstm_serve.engine import blas
from lstm_serve.engine.types import Array

PATH = ROOT / "models/turbofan.h5"
PREDICTOR = Predictor(PATH)


def column(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """As Arrow's lists arrive: an array of objects, each a window of rows."""
    made = np.empty(len(x), object)
    for k, window in enumerate(x):
        made[k] = np.empty(len(window), object)
        made[k][:] = [*window]
    return made


def test_a_batch_keeps_its_other_columns_and_gets_the_answers(golden: Golden) -> None:
    x = golden[0]
    y = load_model(PATH).predict(x)
    labels = load_model(PATH).about.classes
    assert labels is not None
    units = np.array([f"unit {k}" for k in range(len(x))])
    answered = PREDICTOR({"unit": units, "x": x, "named": units.astype(object)})
    assert [*answered] == ["unit", "named", "y", "predicted_class", "label"]
    assert (answered["unit"] == units).all()
    assert (answered["named"] == units).all()
    np.testing.assert_array_equal(answered["y"], y)
    np.testing.assert_array_equal(answered["predicted_class"], y.argmax(axis=1))
    assert answered["label"].tolist() == [labels[k] for k in y.argmax(axis=1)]
    assert [*Predictor(ASKER / "k215_model.h5")({"x": x})] == ["y", "predicted_class"]


@pytest.mark.parametrize("name", ["x", "window"])
def test_windows_come_in_each_form_that_engines_have(golden: Golden, name: str) -> None:
    x = golden[0]
    flat = np.empty(len(x), object)
    flat[:] = [*x.reshape(len(x), -1)]
    forms: list[Any] = [x, x.astype(np.float64), x.reshape(len(x), -1), flat, column(x), x.tolist(), [*x]]
    for form in forms:
        np.testing.assert_array_equal(PREDICTOR({name: form})["y"], PREDICTOR({"x": x})["y"])


def test_models_of_other_kinds_and_of_free_length() -> None:
    x = np.random.default_rng(3).standard_normal((5, 6, 3), np.float32)
    answered = Predictor(SMALL / "binary.h5")({"x": x})
    assert answered["predicted_class"].tolist() == (answered["y"][:, 0] >= 0.5).astype(int).tolist()
    for name in ("free", "steps"):
        y = load_model(SMALL / f"{name}.h5").predict(x)
        np.testing.assert_array_equal(Predictor(SMALL / f"{name}.h5")({"x": x.reshape(5, -1)})["y"], y)
        np.testing.assert_array_equal(make_predict_fn(SMALL / f"{name}.h5")()(x), y.reshape(5, -1))


def test_a_batch_is_not_written_to(golden: Golden) -> None:
    x = golden[0].copy()
    x.flags.writeable = False  # as an engine's shared memory is
    assert np.isfinite(PREDICTOR({"x": x})["y"]).all()


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ({"a": np.zeros((1, 20, 15)), "b": np.zeros(1)}, "one named x; it has a, b"),
        ({"x": np.zeros((1, 20, 15)), "y": np.zeros(1)}, "has a column y, as an answer has: rename it"),
        ({"x": np.zeros((1, 20, 15)), "label": np.zeros(1)}, "has a column label, as an answer has: rename it"),
        ({"x": np.zeros((1, 299))}, r"expected an array of shape \(n, 20, 15\), got an array of shape \(1, 299\)"),
        (
            {"x": np.zeros((1, 15, 20))},
            r"expected an array of shape \(n, 20, 15\), got an array of shape \(1, 15, 20\)",
        ),
        ({"x": np.full((1, 20, 15), np.nan)}, "expected finite float32 numbers"),
        ({"x": np.array([np.zeros(3), np.zeros(4)], object)}, "windows of different lengths"),
        ({"x": np.array(["a"], object)}, "expected numbers"),
        ({"x": np.empty(0, object)}, "expected numbers"),
    ],
)
def test_what_does_not_fit_is_refused(batch: dict[str, npt.NDArray[Any]], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        PREDICTOR(batch)


def test_a_function_of_spark_is_given_windows_and_gives_rows(golden: Golden) -> None:
    x = golden[0]
    predict = make_predict_fn(PATH)()
    y = predict(x.astype(np.float64))
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, load_model(PATH).predict(x))
    # A number at each step, which Spark has no axis for.
    steps = make_predict_fn(ROOT / "tests/golden/features/tf215__gru_ra.keras")
    model = load_model(ROOT / "tests/golden/features/tf215__gru_ra.keras")
    given = np.zeros((2, *(size or 5 for size in model.input_shape)), model.input_dtype)
    assert steps()(given).shape == (2, model.predict(given)[0].size)


def test_a_model_that_is_not_there() -> None:
    make = make_predict_fn("nowhere.h5")  # the driver may have no file of that name
    for load in (make, lambda: Predictor("nowhere.h5")):
        with pytest.raises(ModelError, match=r"nowhere\.h5"):
            load()


def test_a_model_of_several_outputs_is_refused_as_it_is_loaded() -> None:
    path = GOLDEN / "several" / "k3__state_and_rul.h5"
    for load in (make_predict_fn(path), lambda: Predictor(path)):
        with pytest.raises(ModelError, match=r"2 outputs \(state, rul\), and lstm_serve.bulk needs one of each"):
            load()


def test_they_are_carried_to_another_process(tmp_path: Path, golden: Golden) -> None:
    carried = tmp_path / "carried"
    carried.write_bytes(cloudpickle.dumps((Predictor, make_predict_fn(PATH), golden[0])))
    program = (
        "import pickle, sys\n"
        f"Predictor, make, x = pickle.loads(open({str(carried)!r}, 'rb').read())\n"
        f"y = Predictor({str(PATH)!r})({{'x': x}})['y']\n"
        "assert (make()(x) == y).all()\n"
        "sys.stdout.buffer.write(y.tobytes())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, cwd=tmp_path)
    y = np.frombuffer(done.stdout, np.float32).reshape(-1, 5)
    np.testing.assert_allclose(y, load_model(PATH).predict(golden[0]), rtol=0, atol=1e-6)


def test_an_error_comes_back_from_another_process() -> None:
    with pytest.raises(InvalidInput) as caught:
        PREDICTOR({"x": np.full((1, 20, 15), np.nan)})
    back = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert type(back) is InvalidInput
    assert (str(back), back.problems) == (str(caught.value), caught.value.problems)


@pytest.mark.skipif(not blas._libraries()[0], reason="needs a BLAS whose threads can be counted")
def test_blas_has_one_thread_while_they_answer(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    (library, *_), seen = blas._libraries()[0], list[int]()
    forward = Model.forward

    def counting(self: Model, x: Array) -> Array:
        seen.append(library.get_num_threads())
        return forward(self, x)

    monkeypatch.setattr(Model, "forward", counting)
    with threadpool_limits(2, user_api="blas"):
        OpenBLASController.clear_controlling_thread()
        PREDICTOR({"x": golden[0]})
        make_predict_fn(PATH)()(golden[0])
    assert {*seen} == {1}
