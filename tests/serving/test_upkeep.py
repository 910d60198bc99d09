"""What is loaded of a model with versions, as its files come, go, and are refused."""

from pathlib import Path

from kerasfiles import scaled_copy

from lstm_serve.loading.repository import ListedModel
from lstm_serve.serving.deployment import load
from lstm_serve.serving.registry import Registry
from lstm_serve.serving.reload import fingerprint
from lstm_serve.serving.state import ServingState
from lstm_serve.serving.upkeep import Upkeep
from lstm_serve.settings import Settings
from lstm_serve.telemetry.metrics import Metrics


def test_what_was_refused_is_tried_again_and_forgotten_once_it_is_gone(tmp_path: Path) -> None:
    for version in "123":
        (tmp_path / version).mkdir()
    paths: dict[str | None, Path] = {version: scaled_copy(tmp_path / version / "model.h5") for version in "321"}
    settings, registry = Settings(model=tmp_path), Registry(None, several=True)
    serving = ServingState(settings, Metrics())
    seen = {version: fingerprint(path) for version, path in paths.items()}
    every = ListedModel("m", tmp_path, paths)
    upkeep = Upkeep(registry, serving, every)

    def take(version: str) -> None:
        upkeep.take(version, load(settings, upkeep.source(version)))

    def answers() -> tuple[str, list[str], dict[str, str], float]:
        """Which version, which there are besides, what is wrong, and whether the metric says that nothing is."""
        upkeep.settle()
        deployment = registry.get("m")
        (good,) = serving.metrics.reload_good.values["m"].values()
        return deployment.current.model.about.version, deployment.numbers, registry.reasons(), good()

    assert upkeep.due(every, seen, all_of_it=False) == ["3", "2", "1"]
    upkeep.refuse("3", "it is damaged")
    take("2")
    take("1")
    assert registry.get("m").current.model.about.version == "2"  # before all are tried, too
    assert answers() == ("2", ["1", "2"], {"m": "version 3: it is damaged"}, 0)
    assert upkeep.due(every, seen, all_of_it=False) == ["3"]
    upkeep.refuse("3", "it still is")
    assert answers() == ("2", ["1", "2"], {"m": "version 3: it still is"}, 0)
    two = every._replace(versions={version: path for version, path in paths.items() if version != "3"})
    assert upkeep.due(two, {version: seen[version] for version in "21"}, all_of_it=False) == []
    assert answers() == ("2", ["1", "2"], {}, 1)
    assert not upkeep.refused
    assert upkeep.due(every, seen, all_of_it=False) == ["3"]
    take("3")
    assert answers() == ("3", ["1", "2", "3"], {}, 1)
    assert upkeep.due(two, {version: seen[version] for version in "21"}, all_of_it=False) == []
    assert answers() == ("2", ["1", "2"], {}, 1)
