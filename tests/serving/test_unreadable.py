"""Folders that cannot be read beside models; and a look that fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import SMALL, call, in_loop, started
from test_many_models import put, reread, version_of

from lstm_serve.cli import main
from lstm_serve.serving import reload
from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app

LOST = "locked"


@pytest.fixture
def _lost_is_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only root may read cannot be made where tests run as root."""
    iterdir = Path.iterdir

    def of_others(path: Path) -> Iterator[Path]:
        if path.name == LOST:
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", of_others)


@pytest.mark.usefixtures("_lost_is_roots")
@in_loop
async def test_the_others_are_served_and_it_is_named(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path_factory.mktemp("volume")
    for name in ("fan", "pump"):
        put(root / name / "model.h5", SMALL / "binary.h5")
    (root / LOST).mkdir()
    app = create_app(Settings(model=root))
    async with started(app):
        assert sorted(app.state.registry.deployments) == ["fan", "pump"]
        assert "cannot be read: Permission denied" in app.state.registry.refused[LOST]
        (root / LOST).rmdir()
        await reread(app, "fan")
        assert not app.state.registry.refused
        (root / LOST).mkdir()
        put(root / "gear" / "model.h5", SMALL / "binary.h5")
        await reread(app, "gear")
        assert sorted(app.state.registry.deployments) == ["fan", "gear", "pump"]
        assert [*app.state.registry.refused] == [LOST]
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.usefixtures("_lost_is_roots")
def test_versions_and_inspect_go_on_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        version_of(tmp_path / "engine", number)
    (tmp_path / "engine" / LOST).mkdir()
    registry = create_app(Settings(model=tmp_path / "engine")).state.registry
    assert len(registry.deployments) == 1
    assert registry.get().current.model.origin.file.startswith("model.h5")
    put(tmp_path / "fan.h5", SMALL / "binary.h5")
    put(tmp_path / "gear.h5", SMALL / "binary.h5")
    (tmp_path / LOST).mkdir()
    main.main(["inspect", str(tmp_path)])
    listed = capsys.readouterr()
    assert f"{LOST}: not served: cannot be read: Permission denied" in listed.out
    assert "fan 1: " in listed.out
    assert not listed.err


def test_links_to_themselves_are_named(tmp_path: Path) -> None:
    put(tmp_path / "fan.h5", SMALL / "binary.h5")
    for name in ("gear.h5", "pump"):
        (tmp_path / name).symlink_to(name)
    put(tmp_path / "valve.h5", SMALL / "binary.h5")
    (tmp_path / "valve.card.json").symlink_to("valve.card.json")
    registry = create_app(Settings(model=tmp_path)).state.registry
    assert [*registry.deployments] == ["fan"]
    assert sorted(registry.refused) == ["gear", "valve"]


@in_loop
async def test_watching_goes_on_after_a_fault(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path_factory.mktemp("models")
    for name in ("fan", "pump"):
        put(root / name / "model.h5", SMALL / "binary.h5")
    app = create_app(Settings(model=root))
    async with started(app):
        put(root / "gear" / "model.h5", SMALL / "binary.h5")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reload, "look", lambda *_, **__: 1 / 0)
            await reread(app, "gear")
            assert any(record.exc_info and "fault of the service" in record.message for record in caplog.records)
            patch.setattr(reload, "look", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "Input/output error")))
            await reread(app, "gear")
            assert any("stay as they are: [Errno 5]" in record.message for record in caplog.records)
        deployment = await reread(app, "gear")
        assert (await call(app, f"/models/{deployment.name}")).status == 200
