"""Which model a path means that names none."""

from pathlib import Path

import pytest
from kerasfiles import scaled_copy

from lstm_serve.errors import UnknownModel
from lstm_serve.serving.deployment import Deployment, NamedFiles, load
from lstm_serve.serving.registry import Registry
from lstm_serve.settings import Settings
from lstm_serve.telemetry.metrics import Metrics


@pytest.fixture
def pump(tmp_path: Path) -> Deployment:
    settings = Settings(model=scaled_copy(tmp_path / "m.h5"))
    return Deployment(load(settings, NamedFiles(settings.model, "pump")), settings, Metrics())


def test_the_only_model_is_meant_unless_another_is_there_that_cannot_be_served(pump: Deployment) -> None:
    """Were it the only one that can be, clients of the other would be answered by it."""
    registry = Registry(None, several=True)
    registry.add(pump)
    assert registry.get() is pump
    registry.refused["fan"] = "it is damaged"
    with pytest.raises(UnknownModel, match="several models are served here, and which one this path means is not set"):
        registry.get()
    with pytest.raises(UnknownModel, match='"fan" is not served'):
        registry.get("fan")
    assert registry.get("pump") is pump
    del registry.refused["fan"]
    assert registry.get() is pump


def test_the_default_model_is_meant_and_no_other_in_its_place(pump: Deployment) -> None:
    registry = Registry("fan", several=True)
    registry.add(pump)
    registry.refused["fan"] = "it is damaged"
    with pytest.raises(UnknownModel, match="the default model fan is not served: it is damaged"):
        registry.get()
    registry = Registry("pump", several=True)
    registry.refused |= {"pump": "it was damaged", "fan": "it is"}
    registry.add(pump)
    assert registry.get() is pump
    assert registry.reasons() == {"fan": "it is"}
