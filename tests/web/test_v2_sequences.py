"""Triton's sequences: rows of a series by `sequence_id`, answered as its windows are."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import open_inference
from kerasfiles import dense, functional, lstm, save, save_sequential
from open_inference import tensor
from serving import ASKER, Golden, client_of

from lstm_serve import load_model

MODEL = load_model(ASKER / "k215_model.h5")


def infer(client: httpx.Client, rows: Any, name: int | str, **flags: bool) -> Any:
    parameters = {"sequence_id": name, **{f"sequence_{flag}": value for flag, value in flags.items()}}
    response = client.post(
        f"/v2/models/{client.get('/model').json()['name']}/infer",
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
    rows, largest = golden[0][0], (1 << 64) - 1
    for _ in range(2):
        assert "parameters" not in infer(client, rows, largest, start=True)
    assert infer(client, rows[:3], largest, start=True)["parameters"] == {"ready": False}
    assert client.get(f"/series/{largest}").json()["rows"] == 3
    infer(client, rows[:1], largest, end=True)


def test_a_series_with_numbers_goes_on_with_them(client: httpx.Client, golden: Golden) -> None:
    rows = golden[0][0]
    client.post("/series/numbered/rows", json={"rows": rows[:2].tolist(), "seq": 1})
    assert "or in none" in infer(client, rows[2:3], "numbered")["error"]
    client.delete("/series/numbered")


def test_an_end_ends_a_sequence_on_which_the_model_overflows(tmp_path: Path) -> None:
    arrays = [np.full((3, 1), 2, np.float32), np.zeros((1, 1), np.float32), np.zeros(1, np.float32)]
    path = save_sequential(tmp_path / "m.h5", [("SimpleRNN", {"units": 1, "activation": "linear"}, arrays)], [2, 3])
    with client_of(path) as client:
        for end in (False, True):
            assert "NaN or infinity" in infer(client, np.full((2, 3), 3e38), 7, start=not end, end=end)["error"]
            assert client.get("/series/7").status_code == (404 if end else 500)
        assert "has not begun" in infer(client, np.ones((1, 3)), 7)["error"]


def test_a_window_that_is_not_there_yet_has_none_of_several_outputs(tmp_path: Path) -> None:
    (_, lstm_config, lstm_arrays), (_, dense_config, dense_arrays) = lstm(), dense()
    first: Any = ("InputLayer", {"name": "x", "batch_shape": [None, 2, 3]}, [])
    heads: Any = [("Dense", {**dense_config, "name": name}, ["rnn"]) for name in "ab"]
    config = functional([first, ("LSTM", {**lstm_config, "name": "rnn"}, ["x"]), *heads])
    config["config"]["output_layers"] = [["a", 0, 0], ["b", 0, 0]]
    path = save(tmp_path / "m.h5", config, {"rnn": lstm_arrays, "a": dense_arrays, "b": dense_arrays})
    with client_of(path) as client:
        for sizes in ((0, 2), (1, 2)):
            found = outputs(infer(client, np.ones((1, 3)), 7, start=sizes[0] == 0))
            assert {name: each.shape for name, each in found.items()} == {"a": sizes, "b": sizes}


def test_the_extensions_are_told(client: httpx.Client) -> None:
    extensions = client.get("/v2").json()["extensions"]
    assert {"sequence", "sequence(string_id)"} <= {*extensions}


def test_rows_are_counted_before_their_numbers_are_looked_at(client: httpx.Client) -> None:
    assert "1025 rows" in infer(client, np.full((1025, 15), 1e39), "many", start=True)["error"]
