"""What is answered by the kind of the model, the same in every dialect and on the command line."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from jsonschema_rs import Draft202012Validator
from kerasfiles import Array, Layers, dense, lstm
from kinds import BINARY, LABELS, NAMES, STEPS, TAGGER, X, json_of, lines_of, made
from open_inference import binary, tensor
from scraping import one_of, scraped
from serving import call, in_loop, started

from lstm_serve import Model, load_model
from lstm_serve.cli import main
from lstm_serve.errors import UnreadableFile
from lstm_serve.model.kinds import Kind
from lstm_serve.scoring.outputs import SAID
from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app
from lstm_serve.web.dialects.v2.tensors import VALUES
from lstm_serve.web.schemas import ANSWERS


@pytest.mark.parametrize("table", [SAID, VALUES, ANSWERS], ids=["SAID", "VALUES", "ANSWERS"])
def test_tables_by_kind_have_each(table: dict[Kind, object]) -> None:
    assert {*table} == {*get_args(Kind)}  # a match that lacks one is what mypy finds


def expected(model: Model, x: Array = X, threshold: float = 0.5) -> list[dict[str, Any]]:
    """The answers to x, by the definition of each kind; numbers to be compared with a tolerance."""

    def of_classes(p: Array) -> dict[str, Any]:
        return {"probabilities": p.tolist(), "predicted_class": int(p.argmax()), "label": NAMES[int(p.argmax())]}

    y = model.predict(x)
    if model.kind == "steps":
        return [{"steps": [of_classes(step) for step in row]} for row in y]
    assert model.kind == "labels"
    return [
        {"probabilities": row.tolist(), "labels": [n for n, p in zip(NAMES, row, strict=True) if p >= threshold]}
        for row in y
    ]


def same(came: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return list(came) == list(wanted) and all(same(came[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(came) == len(wanted) and all(map(same, came, wanted))
    if isinstance(wanted, float):
        return bool(abs(came - wanted) <= 1e-6)
    return bool(came == wanted)


@pytest.mark.parametrize(
    ("layers", "classes", "kind"),
    [
        (LABELS, NAMES, "labels"),
        (LABELS, None, "values"),
        (TAGGER, NAMES, "steps"),
        ([STEPS, dense(3)], NAMES, "steps"),
        (TAGGER, None, "values"),
        (BINARY, ["no", "yes"], "binary"),
        ([lstm(), dense(3), ("Activation", {"activation": "linear"}, [])], NAMES, "classes"),
    ],
)
def test_names_of_classes_tell_probabilities_from_values(
    tmp_path: Path, layers: Layers, classes: list[str] | None, kind: str
) -> None:
    assert load_model(made(tmp_path, layers, **({} if classes is None else {"classes": classes}))).kind == kind


@pytest.mark.parametrize(
    ("layers", "card", "said"),
    [
        (LABELS, {"classes": ["a", "b"]}, "2 classes; the model's output has 3"),
        (TAGGER, {"classes": ["a", "b"]}, "2 classes; the model's output has 3"),
        ([STEPS, dense(3, activation="sigmoid")], {"classes": NAMES}, "plain values"),
        (LABELS, {"threshold": 0.3}, "no probabilities that are each by itself"),
        ([lstm(), dense(3)], {"threshold": 0.3, "classes": NAMES}, "no probabilities that are each by itself"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path: Path, layers: Layers, card: dict[str, Any], said: str) -> None:
    with pytest.raises(UnreadableFile, match=said):
        load_model(made(tmp_path, layers, **card))


@pytest.mark.parametrize("kind", ["labels", "steps"])
@in_loop
async def test_every_dialect(tmp_path_factory: pytest.TempPathFactory, kind: str) -> None:
    folder = tmp_path_factory.mktemp(kind)
    layers, more = (LABELS, {"threshold": 0.4}) if kind == "labels" else (TAGGER, {})
    path = made(folder, layers, classes=NAMES, **more)
    model = load_model(path)
    y, wanted = model.predict(X), expected(model, threshold=0.4)
    app = create_app(Settings(model=path))
    document = app.openapi()
    async with started(app):
        one = json_of(await call(app, "/predict", json.dumps({"sequence": X[0].tolist()}).encode()))
        body = json.dumps({"sequences": X.tolist()}).encode()
        many = json_of(await call(app, "/predict/batch", body))
        clouds = json_of(await call(app, "/invocations", body))
        rows = json.dumps({"instances": X.tolist()}).encode()
        v1 = json_of(await call(app, "/v1/models/m:predict", rows))
        v2 = json_of(await call(app, "/v2/models/m/infer", json.dumps({"inputs": [tensor(X)]}).encode()))
        content, headers = binary(X, parameters={"binary_data_output": True})
        after = await call(app, "/v2/models/m/infer", content, headers=headers)
        metadata = json_of(await call(app, "/v2/models/m"))
        config = json_of(await call(app, "/v2/models/m/config"))
        about = json_of(await call(app, "/model"))
        samples = await scraped(app)
    assert same(one, wanted[0])
    assert same(many["predictions"], wanted)
    assert same(clouds, many)
    assert same(v1["predictions"], y.astype(float).tolist())
    for path_of, answer in (("/predict", one), ("/predict/batch", many)):
        schema = document["paths"][path_of]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert Draft202012Validator({**schema, "components": document["components"]}).is_valid(answer)
    shapes = {"probabilities": list(y.shape)} | ({"predicted_class": list(y.shape[:-1])} if kind == "steps" else {})
    assert {output["name"]: output["shape"] for output in v2["outputs"]} == shapes
    assert {output["name"]: [6, *output["shape"][1:]] for output in metadata["outputs"]} == shapes
    assert {output["name"]: [6, *output["dims"]] for output in config["output"]} == shapes
    data = {output["name"]: output["data"] for output in v2["outputs"]}
    np.testing.assert_allclose(data["probabilities"], y.ravel(), atol=1e-6)
    tail = after.body[int(after.headers["inference-header-content-length"]) :]
    np.testing.assert_allclose(np.frombuffer(tail, "<f4", y.size), y.ravel(), atol=1e-6)
    if kind == "steps":
        assert data["predicted_class"] == y.argmax(axis=-1).ravel().tolist()
        assert np.frombuffer(tail, "<i8", offset=4 * y.size).tolist() == data["predicted_class"]
        counts = np.bincount(y.argmax(axis=-1).ravel(), minlength=3)
        first = np.bincount(y[0].argmax(axis=-1), minlength=3)
    else:
        counts, first = (y >= 0.4).sum(axis=0), (y[0] >= 0.4).astype(int)
    # The first alone, and five times all of them: in the batch, for SageMaker, by v1 and twice by v2.
    for k in range(3):
        assert one_of(samples, "predictions_total", model="m", predicted_class=str(k)) == 5 * counts[k] + first[k]
    assert (about["kind"], about["threshold"]) == (kind, 0.4 if kind == "labels" else None)


@in_loop
async def test_the_threshold_of_a_binary_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("binary")
    path = made(folder, BINARY)
    (p, *_) = sorted(load_model(path).predict(X)[:, 0].tolist(), reverse=True)
    body = json.dumps({"sequences": X.tolist()}).encode()
    for card, threshold in (({}, 0.5), ({"threshold": p}, p)):
        app = create_app(Settings(model=made(folder, BINARY, classes=["no", "yes"], **card)))
        async with started(app):
            found = json_of(await call(app, "/predict/batch", body))["predictions"]
            assert json_of(await call(app, "/model"))["threshold"] == threshold
        over = [int(np.float32(each["probability"]) >= np.float32(threshold)) for each in found]
        assert [each["predicted_class"] for each in found] == over
        assert 1 in over or threshold == 0.5
        assert all(each["label"] == ["no", "yes"][each["predicted_class"]] for each in found)


@pytest.mark.parametrize("kind", ["labels", "steps"])
def test_files_and_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    path = made(tmp_path, LABELS if kind == "labels" else TAGGER, classes=NAMES)
    model = load_model(path)
    y, wanted = model.predict(X), expected(model)
    header, *rows = lines_of(path, tmp_path)
    if kind == "labels":
        assert header == ["sequence", "labels", *NAMES]
        assert [row[1] for row in rows] == ["; ".join(each["labels"]) for each in wanted]
        assert [row[0] for row in rows] == [str(k) for k in range(1, 7)]
    else:
        assert header == ["sequence", "step", "label", "predicted_class", *NAMES]
        assert [row[:2] for row in rows] == [[str(n), str(t)] for n in range(1, 7) for t in range(1, 6)]
        assert [row[2] for row in rows] == [step["label"] for each in wanted for step in each["steps"]]
    np.testing.assert_allclose(np.array([row[-3:] for row in rows], float), y.reshape(-1, 3), atol=1e-6)
    for ending in ("json", "npy"):
        assert main.main(["predict", str(path), str(tmp_path / "x.npy"), "-o", str(tmp_path / f"y.{ending}")]) == 0
    assert same(json.loads((tmp_path / "y.json").read_bytes())["predictions"], wanted)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), y, atol=1e-6)
    capsys.readouterr()
    assert main.main(["predict", str(path), str(tmp_path / "x.npy")]) == 0
    table = capsys.readouterr().out.splitlines()[3:]
    assert len(table) == 1 + len(rows)
    if kind == "labels":
        assert table[0].split() == ["sequence", "0", "1", "2", "labels"]
        assert table[1].split(maxsplit=4)[:4] == ["1", *(f"{p:.4f}" for p in y[0])]
    else:
        assert table[0].split() == ["sequence", "step", "class", "0", "1", "2"]
        assert table[2].split() == ["1", "2", wanted[0]["steps"][1]["label"], *(f"{p:.4f}" for p in y[0, 1])]
    assert main.main(["inspect", str(path), "--trace", str(tmp_path / "x.npy"), "--step", "2"]) == 0
    traced = capsys.readouterr().out
    assert ("answer to step 2" in traced) is (kind == "steps")
    assert main.main(["inspect", str(path)]) == 0
    assert "probabilities of 3 classes" in capsys.readouterr().out
