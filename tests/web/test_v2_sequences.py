"""Triton's sequences: rows of a series by `sequence_id`, answered as its windows are."""

from typing import Any

import httpx
import numpy as np
import open_inference
from open_inference import tensor
from serving import ASKER, Golden

from lstm_serve import load_model

MODEL = load_model(ASKER / "k215_model.h5")


def infer(client: httpx.Client, rows: Any, name: int | str, **flags: bool) -> Any:
    parameters = {"sequence_id": name, **{f"sequence_{flag}": value for flag, value in flags.items()}}
    response = client.post(
        "/v2/models/k215_model/infer",
        json={"inputs": [tensor(np.asarray(rows)[np.newaxis])], "parameters": parameters},
    )
    content = response.json()
    if response.status_code == 200:
        open_inference.check("inference_response", content)
    return content


def outputs(content: Any) -> dict[str, Any]:
    return {output["name"]: np.reshape(output["data"], output["shape"]) for output in content["outputs"]}


def test_rows_are_answered_as_their_windows_are(client: httpx.Client, golden: Golden) -> None:
    rows = golden[0][:2].reshape(-1, 15)
    wanted = MODEL.predict_series(rows)
    assert "has not begun" in infer(client, rows[:1], 42)["error"]
    first = infer(client, rows[:19], 42, start=True)
    assert first["parameters"] == {"ready": False}
    assert {name: found.shape for name, found in outputs(first).items()} == {
        "probabilities": (0, 5),
        "predicted_class": (0,),
    }
    for at in range(19, 30):
        found = infer(client, rows[at : at + 1], "42" if at % 2 else 42)
        assert "parameters" not in found
        np.testing.assert_allclose(outputs(found)["probabilities"], wanted[at - 19][np.newaxis], atol=2e-6)
        assert outputs(found)["predicted_class"] == [wanted[at - 19].argmax()]
    state = client.get("/series/42").json()
    assert (state["seq"], state["rows"]) == (None, 20)
    last = infer(client, rows[30:], 42, end=True)
    np.testing.assert_allclose(outputs(last)["probabilities"], wanted[-1:], atol=2e-6)
    assert client.get("/series/42").status_code == 404
    assert "has not begun" in infer(client, rows[:1], 42)["error"]


def test_a_start_begins_anew(client: httpx.Client, golden: Golden) -> None:
    rows = golden[0][0]
    for _ in range(2):
        assert "parameters" not in infer(client, rows, "again", start=True)
    assert infer(client, rows[:3], "again", start=True)["parameters"] == {"ready": False}
    assert client.get("/series/again").json()["rows"] == 3
    infer(client, rows[:1], "again", end=True)


def test_a_series_with_numbers_goes_on_with_them(client: httpx.Client, golden: Golden) -> None:
    rows = golden[0][0]
    client.post("/series/numbered/rows", json={"rows": rows[:2].tolist(), "seq": 1})
    assert "or in none" in infer(client, rows[2:3], "numbered")["error"]
    client.delete("/series/numbered")


def test_the_extensions_are_told(client: httpx.Client) -> None:
    extensions = client.get("/v2").json()["extensions"]
    assert {"sequence", "sequence(string_id)"} <= {*extensions}
