"""Operations that a graph has between its layers: as Keras answers, or refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_serve import load_model
from lstm_serve.errors import ModelError
from lstm_serve.loading.layers.slices import sliced

BETWEEN = Path(__file__).parents[1] / "golden" / "between"


@pytest.mark.parametrize("path", sorted(BETWEEN.glob("*.h5")), ids=lambda path: path.stem)
def test_answers_are_those_of_keras(path: Path) -> None:
    assert load_model(path).origin.verified


INDICES = [slice(None), slice(1, -1), slice(None, None, -1), slice(None, 2), slice(0, None, 2), -1, 1, None, Ellipsis]


def written(part: Any) -> Any:
    if isinstance(part, slice):
        return {"start": part.start, "stop": part.stop, "step": part.step}
    return {"class_name": "__ellipsis__"} if part is Ellipsis else part


@pytest.mark.parametrize("first", INDICES)
@pytest.mark.parametrize("second", INDICES)
def test_what_is_taken_is_what_numpy_takes(first: Any, second: Any) -> None:
    if first is Ellipsis and second is Ellipsis:
        return
    x = np.arange(2 * 5 * 4).reshape(2, 5, 4)
    key = [slice(None), first, second]
    slices, shape = sliced([written(part) for part in key], (5, 4), "x")
    wanted = x[tuple(key)]
    np.testing.assert_array_equal(x[(slice(None), *slices)].reshape(2, *shape), wanted)


@pytest.mark.parametrize("key", [[0], [{"start": 1}], [None], [{}, 9], [{}, True], [{}, {}, {}, {}], [{}, {"step": 0}]])
def test_what_mixes_rows_or_is_not_there_is_refused(key: Any) -> None:
    with pytest.raises(ModelError):
        sliced(key, (5, 4), "x")
