"""The direction of imports is the architecture."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from serving import ROOT

SERVICE = ROOT / "service"
MODULES = sorted(SERVICE.rglob("*.py"))

# Each imports from its own layer and from those to the right of it alone; `errors`, `settings` and `text` from none.
LAYERS = (
    {"__main__"},
    {"cli"},
    {"server"},
    {"app"},
    {"routes", "middleware", "reloading", "protocol"},
    {
        "bodies",
        "schemas",
        "schemas_v2",
        "live",
        "metrics",
        "exposition",
        "logs",
        "answers",
        "keys",
        "inflate",
        "wire",
        "loops",
        "handshakes",
        "names",
    },
    {
        "batching",
        "loading",
        "trial",
        "inflight",
        "aside",
        "lines",
        "polling",
        "turns",
        "admin",
        "places",
        "limits",
        "names",
        "walk",
    },
    {"engine"},
)
LEAVES = {"errors", "settings", "text", "budget", "__init__"}
DEPTH = {name: depth for depth, names in enumerate(LAYERS) for name in names}
# What the command line alone uses stands beside `server`.
BESIDE_SERVER = DEPTH["server"]

FORBIDDEN = {
    "engine": {"h5py", "fastapi", "starlette", "pydantic", "uvicorn", "orjson", "prometheus_client", "json", "zipfile"},
    "loading": {"fastapi", "starlette", "uvicorn", "prometheus_client"},
    "batching": {"fastapi", "starlette", "uvicorn", "pydantic"},
    "trial": {"fastapi", "starlette", "uvicorn", "prometheus_client"},
    "bodies": {"fastapi", "starlette", "uvicorn", "h5py"},
    "schemas": {"fastapi", "starlette", "uvicorn", "h5py"},
    "errors": {"fastapi", "starlette", "uvicorn", "pydantic", "numpy", "h5py"},
    "settings": {"fastapi", "starlette", "uvicorn", "numpy", "h5py"},
}


def part(path: Path) -> str:
    """The name of a module within the package, or of the subpackage that it is in."""
    return path.relative_to(SERVICE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The names of the modules that a module imports at run time, wherever in it."""
    tree = ast.parse(path.read_text())
    types_only = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and isinstance(test.test, ast.Name) and test.test.id == "TYPE_CHECKING"
        for node in ast.walk(test)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in types_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def of_ours(path: Path) -> set[str]:
    """The parts of the package that a module imports."""
    return {name.split(".")[1] for name in imported(path) if name.startswith("lstm_serve.")} - {"__version__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SERVICE)))
def test_imports_go_one_way(path: Path) -> None:
    name, parts = part(path), of_ours(path)
    if name in {"errors", "settings", "text", "budget"}:
        assert parts <= {"errors", "budget"} - {name}
        return
    if name == "__init__":
        assert parts <= {"engine", "loading"}
        return
    depth = DEPTH.get(name, BESIDE_SERVER)
    for other in parts - LEAVES:
        assert DEPTH.get(other, BESIDE_SERVER) >= depth, f"{name} imports {other}"


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_a_part_knows_nothing_of(name: str) -> None:
    for path in MODULES:
        if part(path) == name:
            assert {other.split(".")[0] for other in imported(path)}.isdisjoint(FORBIDDEN[name]), path


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SERVICE)))
def test_no_module_is_over_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import lstm_serve; lstm_serve.__version__", {"numpy", "h5py", "pydantic", "fastapi"}),
        ("from lstm_serve import Model", {"h5py", "pydantic", "fastapi", "uvicorn"}),
        ("from lstm_serve import load_model", {"fastapi", "starlette", "uvicorn"}),
    ],
)
def test_what_an_import_brings_in(statement: str, absent: set[str]) -> None:
    program = f"{statement}; import sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert absent.isdisjoint(found.stdout.split())


def test_names_of_the_library_that_are_not_there() -> None:
    import lstm_serve  # noqa: PLC0415 - the package itself is what is tested

    assert set(lstm_serve.__all__) == {"Model", "__version__", "load_model"}
    with pytest.raises(AttributeError, match="no attribute 'modle'"):
        lstm_serve.modle  # noqa: B018
