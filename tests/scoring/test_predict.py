"""The chunks of a file's answers, by as many threads as there are cores: the same, in the same order, as by one."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from echo import Echo, model_of
from serving import PATIENCE
from small_models import classes, numbers

from lstm_serve.engine.types import Array, Mask, Outputs
from lstm_serve.errors import InvalidInput, LstmServeError, NotFinite
from lstm_serve.scoring import predict
from lstm_serve.scoring.inputs import Sequences, UnitSequences
from lstm_serve.scoring.predict import predictions

UNITS = Sequences(
    tuple(UnitSequences(numbers(n, 4, 3, seed=n), range(3, 3 + n), (f"unit {n}",)) for n in (1, 9, 4)), "row", ("unit",)
)
COUNT = 24


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "SEQUENCES_AT_ONCE", 2)


@pytest.fixture
def by(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """What says how many cores there are."""
    return lambda threads: monkeypatch.setattr(predict, "cores", lambda: threads)


@pytest.mark.parametrize("threads", [2, 5])
def test_answers_numbers_and_keys_are_those_of_one_thread(by: Callable[[int], None], threads: int) -> None:
    model = classes()
    by(1)
    one = list(predictions(model, UNITS, progress=False))
    by(threads)
    several = list(predictions(model, UNITS, progress=False))
    assert [chunk._replace(y=chunk.y.tolist()) for chunk in several] == [
        chunk._replace(y=chunk.y.tolist()) for chunk in one
    ]
    assert [key for chunk in several for key in chunk.keys] == [("unit 1",)] + [("unit 9",)] * 9 + [("unit 4",)] * 4


def test_a_sequence_of_more_numbers_than_a_chunk_has_is_one_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "NUMBERS_AT_ONCE", 1)
    assert [len(chunk.y) for chunk in predictions(classes(), UNITS, progress=False)] == [1] * 14


@dataclass(frozen=True, eq=False, kw_only=True)
class Held(Echo):
    """Answers a chunk that begins with 0 once `go` is set, which the answer to one that begins with 2 does."""

    go: threading.Event = field(default_factory=threading.Event)
    went: list[bool] = field(default_factory=list)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        if xs[0][0, 0] == 0:
            self.went.append(self.go.wait(PATIENCE))
        answered = super().__call__(xs, masks)
        if xs[0][0, 0] == 2:
            self.go.set()
        return answered


def rows(*values: float) -> Sequences:
    x = np.repeat(np.array(values, np.float32)[:, np.newaxis], 2, axis=1)
    return Sequences((UnitSequences(x, range(1, len(x) + 1)),), "sequence")


def test_chunks_are_computed_at_once_and_come_in_their_order_few_ahead(by: Callable[[int], None]) -> None:
    by(2)
    layer = Held()
    chunks = predictions(model_of(layer), rows(*range(COUNT)), progress=False)
    for nth, chunk in enumerate(chunks):
        assert len(layer.calls) <= nth + 5
        assert chunk.y[:, 0].tolist() == [4 * nth, 4 * nth + 2]
    assert layer.went == [True]
    assert len(layer.calls) == COUNT // 2


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [({2: np.inf, 5: np.nan}, InvalidInput, "among sequences 3 to 4"), ({3: 3e38, 4: np.nan}, NotFinite, "sequence 4")],
)
def test_the_first_fault_is_told_after_what_comes_before_it(
    by: Callable[[int], None], threads: int, wrong: dict[int, float], error: type[LstmServeError], said: str
) -> None:
    by(threads)
    values = [wrong.get(k, float(k)) for k in range(COUNT)]
    chunks = predictions(model_of(Echo()), rows(*values), progress=False)
    assert next(chunks).y[:, 0].tolist() == [0, 2]
    with pytest.raises(error, match=said):
        next(chunks)


def test_an_answer_of_which_one_number_is_not_finite_is_a_fault() -> None:
    given = rows(*range(COUNT))
    given.parts[0].x[3, 1] = 3e38
    chunks = predictions(model_of(Echo()), given, progress=False)
    assert next(chunks).y[:, 0].tolist() == [0, 2]
    with pytest.raises(NotFinite, match="sequence 4 "):
        next(chunks)


def test_who_stops_early_does_not_wait_for_what_is_computed(by: Callable[[int], None]) -> None:
    by(2)
    layer = Held()
    chunks = predictions(model_of(layer), rows(1, 1, 0, 0, *range(1, COUNT)), progress=False)
    assert next(chunks).y[:, 0].tolist() == [2, 2]
    del chunks
    assert not layer.went
    layer.go.set()
