"""The documentation is run: every command in it but git, make, docker and installs, and every line of Python."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import PATIENCE, ROOT, ask

from lstm_serve import export, load_model
from lstm_serve.engine.activations import ACTIVATIONS
from lstm_serve.loading.config.activations import UNAMBIGUOUS
from lstm_serve.loading.layers.registry import TABLE
from lstm_serve.settings import Settings
from lstm_serve.telemetry import prometheus
from lstm_serve.telemetry.metrics import Metrics

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "models/README.md"]
TEXT = "\n".join(page.read_text() for page in PAGES)
ELSEWHERE = ("git", "make", "docker", "pip", "cd")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each command of the documentation with the lines that it is said to print."""
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *output = part.rstrip("\n").split("\n")
            if not command.startswith(ELSEWHERE):
                yield command, output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "models", folder / "models")
    shutil.copy(ROOT / "models/turbofan.h5", folder / "my_model.h5")
    return folder


@pytest.fixture(scope="module")
def environment(folder: Path) -> dict[str, str]:
    """An environment in which `lstm-serve` is this code, whether or not it is installed."""
    binaries = folder / "bin"
    binaries.mkdir()
    for name, module in (("lstm-serve", "-m lstm_serve "), ("python", "")):
        script = binaries / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module}"$@"\n')
        script.chmod(0o755)
    path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "LSTMSERVE_PORT": "0"}


@pytest.fixture(scope="module")
def address(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Where `lstm-serve serve models/turbofan.h5` listens."""
    with serving("lstm-serve serve models/turbofan.h5", folder, environment) as found:
        yield found


class serving:  # noqa: N801 - used as a function is
    """Run a serve command until the block ends; gives the address that it says it listens on."""

    def __init__(self, command: str, folder: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(command.split(), cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"http://([0-9.:]+)", line):
                return found[1]
        raise AssertionError("the server ended before it listened")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0


def same(shown: str, printed: str) -> bool:
    """Whether two lines are the same, but for the last digits of numbers: they differ between processors."""
    if NUMBER.sub("#", shown) != NUMBER.sub("#", printed):
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    return all(abs(float(a) - float(b)) <= 2e-4 for a, b in pairs)


def run(command: str, folder: Path, environment: dict[str, str]) -> str:
    """What a command prints. Other commands that write what it reads are run before, where no test has yet."""
    needed(command, folder, environment)
    if command.startswith("lstm-serve export") and needed_before(command, folder):
        command += " --force"
    done = subprocess.run(
        ["/bin/bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def needed_before(command: str, folder: Path) -> bool:
    """Whether what a command writes is there, since another test needed it first."""
    written = re.search(r" -o (\S+)", command)
    return written is not None and (folder / written[1]).exists()


def needed(reader: str, folder: Path, environment: dict[str, str]) -> None:
    """Make the files that a command or Python reads, by the commands that are documented to write them."""
    for command, _ in commands():
        written = re.search(r" (?:-o|>) (\S+)", command)
        if written and written[0] not in reader and written[1] in reader and not (folder / written[1]).exists():
            run(command, folder, environment)


@pytest.mark.parametrize(("command", "shown"), [pytest.param(*pair, id=pair[0][:60]) for pair in commands()])
def test_command(
    command: str, shown: list[str], folder: Path, environment: dict[str, str], request: pytest.FixtureRequest
) -> None:
    if command.startswith("lstm-serve serve"):
        needed(command, folder, environment)
        with serving(command, folder, environment) as address:
            assert ask("GET", f"http://{address}/readyz").status_code == 200
        return
    if shutil.which(command.split(maxsplit=1)[0], path=environment["PATH"]) is None:
        pytest.skip("the tool for it is not here")
    if "--to onnx" in command and importlib.util.find_spec("onnx") is None:
        pytest.skip("needs the package onnx: make exports")
    if "127.0.0.1:8080" in command:
        command = command.replace("127.0.0.1:8080", request.getfixturevalue("address"))
    printed = iter(run(command, folder, environment).splitlines())
    following = True  # whether the next line shown is to be the next line printed
    for line in shown:
        if line == "...":
            following = False
        elif following:
            assert same(line, next(printed)), line
        else:
            assert any(same(line, candidate) for candidate in printed), line
            following = True


def test_python(folder: Path, address: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    golden = np.load("models/turbofan.golden.npz")
    names: dict[str, Any] = {"x": golden["x"], "model": load_model("my_model.h5"), "numpy": np}
    for block in blocks("python"):
        if "scaler" in block or "paho" in block:
            continue  # they have tests of their own
        imported = re.findall(r"^(?:from|import) (\w+)", block, re.MULTILINE)
        wanted = [*imported, *(["onnx"] if "onnxruntime" in imported else [])]
        if any(importlib.util.find_spec(name) is None for name in wanted):
            continue  # another server's client, or ONNX, which `make clients` and `make exports` install
        needed(block, folder, environment)
        exec(block.replace("127.0.0.1:8080", address), names)  # noqa: S102 - the documentation's own
        if "probabilities" in block:
            found = names.pop("probabilities")
            assert np.allclose(found, golden["y"][: len(found)], rtol=0, atol=1e-5)
    assert names["answer"]["predicted_class"] == golden["y"][0].argmax()


class Frame:
    """As much of a DataFrame as the recipe needs."""

    columns = ("speed", "load")

    def to_numpy(self) -> Any:
        return np.array([[1480.2, 11.7], [1500.0, 3.25], [900.5, 40.0]])


class Scaler:
    """A fitted StandardScaler or MinMaxScaler, by its attributes."""

    def __init__(self, scale: Any, shift: Any, kind: str) -> None:
        self.scale_, self.shift, self.kind = np.array(scale), np.array(shift), kind

    def transform(self, frame: Frame) -> Any:
        x = frame.to_numpy()
        return (x - self.shift) / self.scale_ if self.kind == "standard" else x * self.scale_ + self.shift

    def inverse_transform(self, y: Any) -> Any:
        y = np.asarray(y)
        return y * self.scale_ + self.shift if self.kind == "standard" else (y - self.shift) / self.scale_


@pytest.mark.parametrize("kind", ["standard", "min and max"])
def test_the_card_of_a_scaler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    from lstm_serve.loading.sidecars.card import read  # noqa: PLC0415 - where it is used
    from lstm_serve.model.files import ModelFiles  # noqa: PLC0415 - the same

    monkeypatch.chdir(tmp_path)
    scaler, frame = Scaler([32.1, 4.4] if kind == "standard" else [0.003, 0.05], [-3.1, 12.5], kind), Frame()
    (block,) = (block for block in blocks("python") if "scaler" in block)
    exec(block, {"numpy": np, "scaler": scaler, "frame": frame})  # noqa: S102 - the documentation's own
    card = read(ModelFiles.of(tmp_path / "my_model.h5"))
    assert card.columns is not None
    assert tuple(column.name for column in card.columns) == frame.columns
    assert card.scaling is not None
    scaled = (frame.to_numpy() - card.scaling.offset) / card.scaling.divisor
    np.testing.assert_allclose(scaled, scaler.transform(frame), rtol=1e-12)


C_MAIN = """
#include <stdio.h>

void use_answer(int number, const float *out)
{
    printf("%d", number);
    for (int k = 0; k < M_OUTPUTS; ++k) printf(" %.9g", (double)out[k]);
    printf("\\n");
}

int main(void)
{
    float row[M_FEATURES];
    for (int number = 1;; ++number) {
        for (int k = 0; k < M_FEATURES; ++k)
            if (scanf("%f", &row[k]) != 1) return 0;
        take_row(number, row);
    }
}
"""


BUILD = "-std=c99 -Wall m.c device.c -lm -o device"


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc) here")
def test_c(tmp_path: Path) -> None:
    """A device that keeps the last rows answers each as the service does."""
    model = load_model(ROOT / "models" / "turbofan.h5")
    export.export(model, "c", tmp_path / "c")
    (shown,) = blocks("c")
    source = "void use_answer(int number, const float *out);\n" + shown + C_MAIN
    (tmp_path / "c" / "device.c").write_text(source)
    subprocess.run([str(shutil.which("cc")), *BUILD.split()], cwd=tmp_path / "c", check=True)
    rows = np.loadtxt(ROOT / "models" / "turbofan.example.csv", np.float32, delimiter=",", skiprows=1)[:, 1:]
    given = "\n".join(" ".join(map(str, row)) for row in rows)
    done = subprocess.run([tmp_path / "c" / "device"], input=given, capture_output=True, text=True, check=True)
    answers = np.array([line.split() for line in done.stdout.splitlines()], float)
    assert answers[:, 0].tolist() == list(range(20, len(rows) + 1))
    windows = np.lib.stride_tricks.sliding_window_view(rows, 20, axis=0).transpose(0, 2, 1)
    np.testing.assert_allclose(answers[:, 1:], model.predict(windows), atol=2e-6)


def test_metrics_table() -> None:
    """Every metric that is documented exists, and the other way round."""
    documented = re.findall(r"^\| `(lstmserve_\w+)` \|", TEXT, re.MULTILINE)
    text = prometheus.text(Metrics()).decode()
    exposed = re.findall(r"^# TYPE (lstmserve_\w+)", text, re.MULTILINE)
    # When a counter was made is no metric of its own.
    assert {name for name in exposed if not name.endswith("_created")} == set(documented)


def limits_of(schema: dict[str, Any]) -> str:
    """The bounds of a setting's number, in words."""
    number = next((each for each in schema.get("anyOf", [schema]) if "maximum" in each), None)
    if number is None:
        return ""
    low, over = number.get("minimum"), number.get("exclusiveMinimum")
    if number["type"] == "integer":
        return f"{low if over is None else over + 1} to {number['maximum']}"
    return f"{f'{low:g}' if over is None else f'over {over:g}'} to {number['maximum']:g}"


def test_settings_table() -> None:
    rows = re.findall(r"^\| `LSTMSERVE_(\w+)` \| (\S+) \| (.*) \| (.*) \|$", TEXT, re.MULTILINE)
    assert [name.lower() for name, *_ in rows] == list(Settings.model_fields)
    document = Settings.model_json_schema()["properties"]
    for name, default, limits, text in rows:
        field = Settings.model_fields[name.lower()]
        assert text == field.description
        assert limits == limits_of(document[name.lower()]), name
        shown = "required" if field.is_required() else field.default
        assert str(shown).lower().removesuffix(".0") == default, name


def test_card_example() -> None:
    from lstm_serve.loading.sidecars.card import Card  # noqa: PLC0415 - where it is used

    for example in blocks("json"):
        card = Card.model_validate_json(example)
        assert card.scaling is not None
        assert (card.classes is None) != (card.output_scaling is None)
    table = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| .* \|$", TEXT, re.MULTILINE)
    named = {name for cell in table for name in re.findall(r"`(\w+)`", cell)}
    assert set(Card.model_fields) <= named


def test_the_documentation_leads_to_what_is_there() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} leads to {link}"


def test_nothing_is_left_of_a_merge() -> None:
    assert not re.search(r"^(<<<<<<<|>>>>>>>) ", TEXT + (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 140


def test_layers_are_those_that_are_read() -> None:
    (rows,) = re.findall(r"^\| layers \| \|\n\|---\|---\|\n((?:\|.*\|\n)+)", TEXT, re.MULTILINE)
    listed = [name for row in rows.splitlines() for name in row.split("|")[2].strip().split(", ")]
    assert sorted(listed) == sorted(TABLE)


def test_activations_are_those_that_are_read() -> None:
    (listed,) = re.findall(r"^Both take Keras' names: (.*?)\. ", TEXT, re.DOTALL | re.MULTILINE)
    assert {*re.findall(r"`(\w+)`", listed)} == {"hard_sigmoid", *UNAMBIGUOUS, *ACTIVATIONS}


def test_forms_are_read() -> None:
    """The table of what is read, row by row, on a file of each form by each Keras that the tests have."""
    golden = ROOT / "tests/golden"
    rows = {
        "whole-model HDF5": ["asker/k122_model.h5", "asker/k215_model.h5", "asker/tf215_model.h5", "asker/k3_model.h5"],
        ".keras": ["asker/k3_model.keras", "features/tf215__gru_ra.keras"],
        "SavedModel": ["savedmodel/tf215__hard"],
    }
    for form, files in rows.items():
        for file in files:
            assert form in load_model(golden / file, replay=False).origin.format
    for file in ("k122_weights.h5", "k215_weights.h5", "k3_model.weights.h5", "k3_weights_arr.npz"):
        said: dict[str, Any] = {"recurrent_activation": "sigmoid", "output_activation": "softmax"}
        model = load_model(golden / "asker" / file, replay=False, **said)
        assert (model.kind, model.input_shape, model.output_shape) == ("classes", (None, 15), (5,))
