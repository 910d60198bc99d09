"""What a served model has made to hold requests to."""

from small_models import classes

from lstm_serve.model.model import Model
from lstm_serve.serving.deployment import Served


def test_what_is_made_is_made_once_for_each_of_its_limits() -> None:
    asked = list[tuple[int, ...]]()

    def make(_: Model, *limits: int) -> list[int]:
        asked.append(limits)
        return [*limits]

    served = Served.of(classes())
    assert served.made(make, 1) is served.made(make, 1)
    assert (served.made(make, 1), served.made(make, 2), served.made(make)) == ([1], [2], [])
    assert asked == [(1,), (2,), ()]
