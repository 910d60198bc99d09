"""What is known of a model besides what it computes: where it comes from, and what a person says of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

# At this probability and above a class is predicted that is not one of several, unless the card says another.
THRESHOLD = 0.5

# |ours - Keras| <= TOLERANCE * max(1, |Keras|)
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a model comes from. Plain data; the loaders fill it, the model carries it.

    `assumed` says in words what the file did not tell and its Keras version fixes. `golden_rows` counts the golden
    predictions that were replayed, `golden_difference` is the worst difference among them, scaled as in the tolerance.
    `rounding` is how far the golden predictions, which are Keras' own, are from what float64 gives, where that is why
    they are held to less. `told_sha256` is of the model together with what was said besides it that its numbers depend
    on, if anything was. `answers_dict` says whether Keras' own predict gives a dict of the outputs by their names.
    """

    file: str
    sha256: str
    format: str
    keras: str | None
    assumed: tuple[str, ...] = ()
    tolerance: float = TOLERANCE
    golden_rows: int = 0
    golden_difference: float | None = None
    rounding: float | None = None
    told_sha256: str | None = None
    answers_dict: bool = False

    @property
    def digest(self) -> str:
        """The sha256 of all that the numbers depend on: the model's own, unless its card or a file beside it counts."""
        return self.told_sha256 or self.sha256

    @property
    def verified(self) -> bool:
        """Whether the model has reproduced what Keras answered."""
        return self.golden_rows > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """An input column: its name, and its unit where it has one."""

    name: str
    unit: str | None = None
    description: str | None = None


def column_names(features: Sequence[Feature] | None, count: int) -> list[str]:
    """What a person calls so many columns: by their names, or where they have none `feature 1` and so on."""
    return [f"feature {k + 1}" for k in range(count)] if features is None else [feature.name for feature in features]


class SeriesRules(NamedTuple):
    """What numbers of rows mean, and what becomes of a series in which some are missing.

    `seq` is a counter, or a time of which nothing tells whether one is missing. At a `gap` rows are refused, the series
    begins anew, or the last row stands for each that is missing.
    """

    seq: Literal["counter", "time"] = "counter"
    gap: Literal["refuse", "reset", "last"] = "refuse"


class OutputWords(NamedTuple):
    """What a person says of one output of several."""

    classes: tuple[str, ...] | None = None
    threshold: float = THRESHOLD


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a person says of the model: its name, its labels, its columns, and from which probability on it says yes.

    Of several inputs `inputs` has the columns of each, of several outputs `outputs` what is said of each.
    """

    name: str
    version: str = "1"
    description: str | None = None
    classes: tuple[str, ...] | None = None
    features: tuple[Feature, ...] | None = None
    threshold: float = THRESHOLD
    inputs: tuple[tuple[Feature, ...] | None, ...] = ()
    outputs: tuple[OutputWords, ...] = ()
    series: SeriesRules = field(default_factory=SeriesRules)
    metadata: dict[str, Any] = field(default_factory=dict)
