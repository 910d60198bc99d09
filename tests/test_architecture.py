"""The order of the rooms is the architecture: a module imports its own room and those to the left of it."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from serving import ROOT

import lstm_serve

PACKAGE = ROOT / "service/lstm_serve"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path.read_text()
    for path in PACKAGE.rglob("*.py")
}
ROOMS = (
    *("errors", "limits", "settings", "engine", "formats", "model", "loading", "scoring", "explain", "export"),
    *("telemetry", "serving", "web", "process", "cli"),
)
# The names by which the package is imported and run: they import what they open.
DOORS = {"lstm_serve", "__main__", "bulk"}
WEB = {"fastapi", "starlette", "uvicorn", "uvloop", "httptools", "prometheus_client"}
# Packages beside the standard library that a room may know.
MAY_KNOW = {
    "errors": set[str](),
    "limits": set[str](),
    "settings": {"pydantic", "pydantic_core"},
    "engine": {"numpy", "threadpoolctl"},
    "formats": {"numpy", "h5py"},
    "model": {"numpy"},
    "loading": {"numpy", "h5py", "pydantic"},
    "scoring": {"numpy", "tqdm", "orjson", "h5py", "pydantic"},
    "explain": {"numpy", "h5py"},
    "export": {"numpy", "h5py"},
    "telemetry": {"prometheus_client", "orjson", "numpy"},
    "serving": {"numpy"},
    "web": {"fastapi", "fastapi_swagger", "numpy", "orjson", "pydantic", "pydantic_core", "starlette"},
    "process": {"httptools", "orjson", "starlette", "uvicorn", "uvloop"},
    "cli": {"numpy", "tqdm"},
}
# And what one module alone may know, and imports where it is used: nobody who does not export to it needs it.
ONE_MODULE = {
    "keras": "lstm_serve.export.keras_v3",
    "onnx": "lstm_serve.export.onnx",
    "onnxruntime": "lstm_serve.export.onnx",
    "pyarrow": "lstm_serve.formats.parquet",
    "redis": "lstm_serve.serving.series.redis_server",
}


@cache
def imports(source: str) -> tuple[str, ...]:
    """The dotted names of what a module imports at run time, wherever in it; of `from a import b` that is a.b."""
    return tuple(_imports(source))


def _imports(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    for_types = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and isinstance(test.test, ast.Name) and test.test.id == "TYPE_CHECKING"
        for node in ast.walk(test)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str:
    """The room of a module of ours by its dotted name; of the package itself `lstm_serve`."""
    return module.split(".")[1] if "." in module else module


def faults(module: str, source: str) -> list[str]:
    """What a module imports against the rule."""
    room, found = room_of(module), []
    if room in DOORS:
        return []
    if room not in ROOMS:
        return [f"{room} is no room"]
    for name in imports(source):
        first, *rest = name.split(".")
        if first != "lstm_serve":
            if name.startswith("."):
                found.append(f"{name}: imports are absolute")
            elif first not in {*sys.stdlib_module_names, *MAY_KNOW[room]} and ONE_MODULE.get(first) != module:
                found.append(f"{room} does not know {first}")
        elif rest and rest[0] != "__version__":
            imported = rest[0] if rest[0] in ROOMS else "loading"  # the names of the package itself come from there
            if ROOMS.index(imported) > ROOMS.index(room):
                found.append(f"{room} imports {imported}, which is to the right of it")
    return found


def within_a_room(modules: Mapping[str, str]) -> dict[str, set[str]]:
    """Which modules of its own room each module imports."""
    return {
        module: {
            known
            for name in imports(source)
            for known in (name, name.rpartition(".")[0])
            if known in modules and known != module and room_of(known) == room_of(module)
        }
        for module, source in modules.items()
    }


def test_a_module_imports_its_own_room_and_those_to_the_left() -> None:
    assert {module: found for module, source in MODULES.items() if (found := faults(module, source))} == {}


def test_the_rooms_are_those_on_the_map() -> None:
    on_disk = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert {name for name in on_disk if not name.startswith(("_", "py.typed"))} - DOORS == set(ROOMS)
    said = " ".join((ROOT / "docs/architecture.md").read_text().split())
    assert f"`{' < '.join(ROOMS)}`" in said


def test_nothing_runs_in_a_circle_inside_a_room() -> None:
    order = tuple(TopologicalSorter(within_a_room(MODULES)).static_order())
    assert set(order) == set(MODULES)


@pytest.mark.parametrize("room", ROOMS)
def test_a_wrong_import_is_seen_in_every_room(room: str) -> None:
    module = f"lstm_serve.{room}.planted"
    for later in ROOMS[ROOMS.index(room) + 1 :]:
        assert faults(module, f"def f():\n    from lstm_serve.{later} import x") != []
        assert faults(module, f"import lstm_serve.{later}.x") != []
    for package in (WEB | set(ONE_MODULE)) - MAY_KNOW[room]:
        assert faults(module, f"import {package}") != []
    assert faults(module, "from . import x") != []
    assert faults(f"lstm_serve.{room}s", "") != []


def test_a_circle_is_seen() -> None:
    planted = {"lstm_serve.web.a": "from lstm_serve.web import b", "lstm_serve.web.b": "from lstm_serve.web.a import x"}
    with pytest.raises(CycleError):
        tuple(TopologicalSorter(within_a_room(planted)).static_order())


@pytest.mark.parametrize("folder", sorted(path.parent for path in PACKAGE.rglob("__init__.py")), ids=lambda p: p.name)
def test_every_room_says_what_it_knows(folder: Path) -> None:
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert said is not None
    assert len(said.split()) > 5


def test_no_module_is_over_400_lines() -> None:
    lines = {module: len(source.splitlines()) for module, source in MODULES.items()}
    assert {module: count for module, count in lines.items() if count > 400} == {}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import lstm_serve; lstm_serve.__version__", {"numpy", "h5py", "pydantic", "fastapi"}),
        ("from lstm_serve import Model", {"h5py", "pydantic", "fastapi", "uvicorn"}),
        ("from lstm_serve import load_model", {"fastapi", "starlette", "uvicorn"}),
        ("from lstm_serve import export; [*map(export.target, export.TARGETS)]", {*ONE_MODULE}),
    ],
)
def test_what_an_import_brings_in(statement: str, absent: set[str]) -> None:
    program = f"{statement}; import sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert absent.isdisjoint(found.stdout.split())


def test_names_of_the_library_that_are_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'modle'"):
        lstm_serve.modle  # noqa: B018
