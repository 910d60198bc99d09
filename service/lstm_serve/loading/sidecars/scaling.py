"""The card's scaling: what was done to the data before training, in the forms in which people have it."""

from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from lstm_serve.engine.types import FLOAT32_MAX

Number = Annotated[float, Field(allow_inf_nan=False)]


def _listed(given: object) -> object:
    return [given] if type(given) in {int, float} else given


# A number stands for a list of it alone.
Numbers = Annotated[list[Number], Field(min_length=1), BeforeValidator(_listed)]

FORMS = (
    "mean and scale (as a StandardScaler has them), center and scale (a RobustScaler), or min and max (a "
    "MinMaxScaler), with range where that is not [0, 1]"
)

# What others call the fields.
SYNONYMS = {
    "mean_": "mean",
    "means": "mean",
    "offset": "mean",
    "scale_": "scale",
    "std": "scale",
    "std_": "scale",
    "stddev": "scale",
    "sigma": "scale",
    "center_": "center",
    "centre": "center",
    "median": "center",
    "iqr": "scale",
    "data_min_": "min",
    "data_min": "min",
    "data_max_": "max",
    "data_max": "max",
    "feature_range": "range",
}


class ScalingCard(BaseModel):
    """What was done to the data before training: (x - mean) / scale, or (x - min) / (max - min) put into `range`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    mean: Numbers | None = None
    center: Numbers | None = None
    scale: Numbers | None = None
    min: Numbers | None = None
    max: Numbers | None = None
    range: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = {name for name in ("mean", "center", "scale", "min", "max") if getattr(self, name) is not None}
        if given not in ({"mean", "scale"}, {"center", "scale"}, {"min", "max"}):
            raise ValueError(f"expected {FORMS}; it has {' and '.join(sorted(given)) or 'none of these'}")
        if self.range is not None and (self.max is None or not self.range[0] < self.range[1]):
            raise ValueError("range goes with min and max, and is two numbers of which the second is the larger")
        first, second = (self.mean or self.center, self.scale) if self.scale is not None else (self.min, self.max)
        if len(first or []) != len(second or []):
            raise ValueError("the two lists of scaling are of different lengths")
        if any(low > high for low, high in zip(self.min or [], self.max or [], strict=True)) or 0 in self.divisor:
            raise ValueError("no scale may be 0, and no max may be under its min")
        offset, divisor = np.abs(self.offset), np.abs(self.divisor)
        if not (offset <= FLOAT32_MAX).all() or not ((divisor >= 1 / FLOAT32_MAX) & (divisor <= FLOAT32_MAX)).all():
            raise ValueError("the numbers of scaling leave the range of float32, in which the model computes")
        return self

    @property
    def offset(self) -> list[float]:
        """What is subtracted from each feature."""
        if self.min is None:
            return self.mean or self.center or []
        low = (self.range or [0.0, 1.0])[0]
        return [least - low * size for least, size in zip(self.min, self.divisor, strict=True)]

    @property
    def divisor(self) -> list[float]:
        """What each feature is then divided by."""
        if self.scale is not None:
            return self.scale
        low, high = self.range or [0.0, 1.0]
        spans = [top - least for least, top in zip(self.min or [], self.max or [], strict=True)]
        return [(span if span >= CONSTANT else 1.0) / (high - low) for span in spans]


# What a column that never changes is divided by is 1 in scikit-learn.
# Source: _handle_zeros_in_scale of sklearn/preprocessing/_data.py.
CONSTANT = 10 * float(np.finfo(np.float64).eps)
