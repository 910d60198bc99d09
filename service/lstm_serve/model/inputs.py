"""What a model takes: arrays held to the shape and the numbers of an input, and what is said where they do not fit."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.types import AnyArray, Array, Shape
from lstm_serve.errors import InvalidInput
from lstm_serve.model.metadata import Feature


class Input(NamedTuple):
    """An input: its name where there are several, or the file tells it; its shape, without the batch axis; its dtype.

    A free axis is None. Where its numbers are ids, each is an integer from 0 to below `id_limit`. `features` names what
    is on its last axis, where the card does.
    """

    name: str | None
    shape: Shape
    dtype: np.dtype[Any]
    id_limit: int | None
    features: tuple[Feature, ...] | None

    def checked(self, x: npt.ArrayLike) -> Array:
        """x as an array of the dtype (n, *shape), or InvalidInput: what was expected, what came."""
        return self.numbers(x, (None, *self.shape), self.expects).astype(self.dtype)

    def check_shape(self, x: AnyArray) -> None:
        """Raise InvalidInput where the type or the shape of x does not fit, whatever its numbers are."""
        self._check_shape(x, (None, *self.shape), self.expects)

    def numbers(self, x: npt.ArrayLike, shape: Shape, expects: str) -> AnyArray:
        """x as an array of this shape, None being any size, of numbers that the model takes; or InvalidInput."""
        try:
            given = np.asarray(x)
        except ValueError:
            raise InvalidInput.at(f"expected {expects}, got rows of different lengths") from None
        self._check_shape(given, shape, expects)
        good = fits(given, self.id_limit)
        if not good.all():
            # Where a wrong value is, and not which: over HTTP what a client sends never comes back.
            where = tuple(int(k) for k in np.argwhere(~good)[0])
            what, number = ("finite float32 numbers", "") if self.id_limit is None else (expects, " number")
            raise InvalidInput.at(f"expected {what}, got another{number} at {where}", *where)
        return given

    def _check_shape(self, given: AnyArray, shape: Shape, expects: str) -> None:
        if given.dtype.kind not in "fiu":
            raise InvalidInput.at(f"expected numbers, got an array of {given.dtype}")
        if given.ndim != len(shape) or any(
            want not in {None, got} for want, got in zip(shape, given.shape, strict=True)
        ):
            hint = self.hint(given.shape)
            raise InvalidInput.at(f"expected {expects}, got an array of shape {given.shape}{hint}")
        if 0 in given.shape:
            raise InvalidInput.at(f"expected {expects}, got an empty array of shape {given.shape}")

    @property
    def expects(self) -> str:
        """The expected input in words, such as "an array of shape (n, 20, 15)"."""
        sizes = ", ".join(["n", *("any" if n is None else str(n) for n in self.shape)])
        ids = "" if self.id_limit is None else f" of integers from 0 to {self.id_limit - 1}"
        return f"an array of shape ({sizes}{'' if self.shape else ','}){ids}"

    @property
    def has_time_axis(self) -> bool:
        """Whether the first axis is time."""
        return len(self.shape) > 1 or (len(self.shape) == 1 and self.id_limit is not None)

    def hint(self, shape: tuple[int, ...]) -> str:
        """What may have gone wrong with an array of a shape that does not fit, as the end of a sentence, or nothing."""
        rank = len(self.shape)
        if len(shape) == rank and all(want in {None, got} for want, got in zip(self.shape, shape, strict=True)):
            return ": the batch axis is missing, give x[np.newaxis]"
        swapped = rank == 2 and len(shape) in {2, 3} and shape[-2] == self.shape[1] != shape[-1]
        if swapped and shape[-1] >= (self.shape[0] or 2):
            return ": are its last two axes swapped?"
        longer = rank == 2 and len(shape) == 3 and shape[2] == self.shape[1]
        if longer and self.shape[0] is not None and shape[1] > self.shape[0]:
            return ": over a longer series, lstm-serve predict slides windows, and so does Model.predict_series"
        return ""


def fits(given: AnyArray, id_limit: int | None) -> npt.NDArray[np.bool_]:
    """Which of an array's numbers a model takes: finite ones as float32, or ids from 0 to below the limit."""
    with np.errstate(over="ignore", invalid="ignore"):  # a NaN that signals is invalid
        good: npt.NDArray[np.bool_] = np.isfinite(given.astype(np.float32, copy=False))
    if id_limit is not None:
        good &= (given >= 0) & (given < id_limit) & (given == np.floor(given))
    return good


def wanted(id_limit: int | None) -> str:
    """What such a number is."""
    return "a finite float32 number" if id_limit is None else f"an integer id from 0 to {id_limit - 1}"


def arranged(takes: Sequence[Input], x: Any) -> Sequence[npt.ArrayLike]:  # noqa: ANN401 - one array or several
    """What is given for each input, in their order: of one an array; of several a dict by name, or a list in order.

    Raises InvalidInput where one is missing, or one too many.
    """
    if isinstance(x, Mapping):
        names = [str(each.name) for each in takes]
        missing = [name for name in names if name not in x]
        others = len(x) - len(names) + len(missing)
        wrong = [f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
        if others:
            wrong.append(f"{len(x)} came, so {others} of them is none of these")
        if wrong:
            raise InvalidInput.at(f"expected the inputs {', '.join(names)}, each by its name: {'; '.join(wrong)}")
        return [x[name] for name in names]
    if len(takes) == 1:
        return [x]
    if not isinstance(x, list | tuple) or len(x) != len(takes):
        came = f"{len(x)} of them" if isinstance(x, list | tuple) else "one array"
        names = [str(each.name) for each in takes]
        raise InvalidInput.at(
            f"expected a dict of the inputs {', '.join(names)}, or a list of them in this order, got {came}"
        )
    return x


def checked(takes: Sequence[Input], x: Any) -> list[Array]:  # noqa: ANN401 - one array or several
    """An array of its dtype for each input, all of as many rows; or InvalidInput, which names the input of several."""
    found: list[Array] = []
    for each, given in zip(takes, arranged(takes, x), strict=True):
        try:
            found.append(each.checked(given))
        except InvalidInput as error:
            if len(takes) == 1:
                raise
            raise naming_input(error, each) from None
    expect_rows(takes, [*map(len, found)])
    return found


def expect_rows(takes: Sequence[Input], counts: Sequence[int], *where: str | int) -> None:
    """Raise InvalidInput where the inputs, of so many rows, are not of as many each."""
    if len(set(counts)) > 1:
        told = ", ".join(f"{each.name} {count}" for each, count in zip(takes, counts, strict=True))
        raise InvalidInput.at(f"expected as many rows of each input, got {told}", *where)


def naming_input(error: InvalidInput, of: Input) -> InvalidInput:
    """The same error of one input of several: it says which."""
    return InvalidInput([problem._replace(detail=f"{of.name}: {problem.detail}") for problem in error.problems])
