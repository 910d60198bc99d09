"""What can go wrong, by name. Nothing here knows a status, a file or an array.

LstmServeError
├── SettingsError        the command line or the environment does not make sense
├── ModelError           this model cannot be served
│   ├── UnreadableFile   damaged, dangerous, or no model at all
│   ├── Unsupported      a layer, an option or an activation that is not implemented
│   ├── MissingFact      something the numbers depend on that no file tells
│   ├── WrongNumbers     the model misses its own golden predictions
│   └── Incompatible     the model cannot take the place of the one being served
├── RequestError         a request that cannot be read
│   ├── Malformed        no body, or not what it says it is
│   ├── TooLarge         a body over a limit
│   ├── UnknownType      a content type or encoding that is not understood
│   ├── TooSlow          a body that took too long to come
│   ├── UnknownModel     a name or version that is not the model's
│   ├── UnknownSeries    a series that is not there
│   ├── NotWatched       a model whose input is not held against its training
│   ├── SeriesConflict   rows that do not follow those of their series
│   ├── NoWindow         a series of a model whose windows have no length
│   ├── NoCarry          a series of a stateful model whose states cannot be carried, or are not here
│   └── SeveralWorkers   a series, where each of several workers would have its own
├── InvalidInput         input that does not fit the model
└── NoAnswer             good input that gets no answer
    ├── QueueFull        too much is waiting already
    │   ├── SeriesFull   there are as many series as may be
    │   ├── SeriesBusy   too many requests of one series are waiting
    │   └── ListenersFull  as many clients listen to series as may
    ├── DeadlinePassed   its time ran out before it was computed
    ├── Unavailable      starting, stopping, or the batching task is dead
    ├── StoreUnavailable the store of series does not answer
    └── ComputeFailed    the forward pass raised
        └── NotFinite    the forward pass gave NaN or infinity
"""

from collections.abc import Sequence
from typing import NamedTuple, Self


class LstmServeError(Exception):
    """The root of every error that this package raises on purpose."""


class SettingsError(LstmServeError):
    """The command line or the environment does not make sense."""


class ModelError(LstmServeError):
    """This model cannot be served."""


class UnreadableFile(ModelError):
    """The file is damaged, dangerous, or no model at all."""


class Unsupported(ModelError):
    """The model uses a layer, an option or an activation that is not implemented."""


class MissingFact(ModelError):
    """The numbers depend on something that no file tells."""


class WrongNumbers(ModelError):
    """The model misses the predictions that Keras recorded beside it."""


class Incompatible(ModelError):
    """The model cannot take the place of the one being served."""


class RequestError(LstmServeError):
    """A request that cannot be read."""


class Malformed(RequestError):
    """No body, or one that is not JSON."""


class TooLarge(RequestError):
    """A body over the limit."""


class UnknownType(RequestError):
    """A content type, or a content encoding, that is not understood."""


class TooSlow(RequestError):
    """A body that took too long to come."""


class UnknownModel(RequestError):
    """A model, or a version of it, that is not served here."""


class UnknownSeries(RequestError):
    """A series that is not there, or another caller's."""

    def __init__(self) -> None:
        """Say no more than that."""
        super().__init__("there is no such series")


class NotWatched(RequestError):
    """A model whose input is not held against its training: what to do that it is."""


class SeriesConflict(RequestError):
    """Rows that do not follow those of their series: which number was expected, and which came, where it has any."""

    def __init__(self, detail: str, expected: int | None = None, got: int | None = None) -> None:
        """Keep the numbers; the message has none of the rows' values."""
        self.expected, self.got = expected, got
        super().__init__(detail)


class NoWindow(RequestError):
    """A series of a model whose windows have no length."""


class NoCarry(RequestError):
    """A series of a stateful model, where its states cannot be carried, or what is asked needs windows."""


class SeveralWorkers(RequestError):
    """A series, where each of several workers would have rows of its own."""


class Problem(NamedTuple):
    """One thing that is wrong with an input: where, and what was expected and came."""

    where: tuple[str | int, ...]
    detail: str


class InvalidInput(LstmServeError):
    """The input does not fit the model; `problems` says where, ten at most."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep the problems; the message is the first one's."""
        self.problems = tuple(problems)
        super().__init__(self.problems[0].detail)

    def __reduce__(self) -> tuple[type[Self], tuple[Sequence[Problem]]]:
        """As it is pickled, on its way out of another process."""
        return type(self), (self.problems,)

    @classmethod
    def at(cls, detail: str, *where: str | int) -> Self:
        """One problem, at one place; of the whole input, without one."""
        return cls([Problem(where, detail)])


class NoAnswer(LstmServeError):
    """The input was good and still gets no answer."""


class QueueFull(NoAnswer):
    """Too much is waiting or being read already."""


class SeriesFull(QueueFull):
    """There are as many series as may be."""


class SeriesBusy(QueueFull):
    """Too many requests of one series are waiting."""


class ListenersFull(QueueFull):
    """As many clients listen to series as may."""


class DeadlinePassed(NoAnswer):
    """The time of the request ran out before it was computed."""


class Unavailable(NoAnswer):
    """The service is starting, stopping, or broken."""


class StoreUnavailable(NoAnswer):
    """The store of series does not answer, or takes nothing."""


class ComputeFailed(NoAnswer):
    """The forward pass raised."""


class NotFinite(ComputeFailed):
    """The forward pass gave NaN or infinity."""
