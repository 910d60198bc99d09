"""Other people's clients, unchanged, against the service: Triton's, and KServe's of both versions.

They come with the extra `clients`: `make clients`. Without them these tests are skipped, by the client's name.
"""

import asyncio
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from serving import Golden, Process

NAME = "k215_model"
# By the native names, and by those in the file; without outputs all are answered.
NAMES = [("sequences", "probabilities"), ("lstm_1_input", "dense_1"), ("whatever", None)]


def installed(package: str) -> None:
    """Skip where a client is not installed, and let it warn of what it likes: it is not our code."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: make clients")
    warnings.simplefilter("ignore")


def native(client: httpx.Client, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    answers = client.post("/predict/batch", json={"sequences": x.tolist()}).json()["predictions"]
    return np.array([answer["probabilities"] for answer in answers])


@pytest.fixture(params=[1, 64])
def rows(request: pytest.FixtureRequest, golden: Golden) -> npt.NDArray[np.float32]:
    return np.resize(golden[0], (request.param, 20, 15))


# tritonclient


@pytest.fixture
def triton(service: Process) -> Iterator[Any]:
    with warnings.catch_warnings():
        installed("tritonclient")
        http = importlib.import_module("tritonclient.http")
        client = http.InferenceServerClient(f"127.0.0.1:{service.port}")
        client.http = http
        yield client
        client.close()


def test_triton_asks_about_server_and_model(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready(NAME)
    assert triton.is_model_ready(NAME, "1")
    assert not triton.is_model_ready("resnet")
    assert triton.get_server_metadata()["name"] == "lstm-serve"
    about = triton.get_model_metadata(NAME)
    assert [tensor["name"] for tensor in about["inputs"] + about["outputs"]] == [
        "sequences",
        "probabilities",
        "predicted_class",
    ]
    assert triton.get_model_config(NAME)["input"][0]["dims"] == [20, 15]
    assert triton.get_model_repository_index()[0]["state"] == "READY"


@pytest.mark.parametrize(("given", "asked"), NAMES)
@pytest.mark.parametrize("binary", [True, False])
def test_triton_infers(
    triton: Any, client: httpx.Client, rows: npt.NDArray[np.float32], given: str, asked: str | None, *, binary: bool
) -> None:
    tensor = triton.http.InferInput(given, list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    outputs = None if asked is None else [triton.http.InferRequestedOutput(asked, binary_data=binary)]
    result = triton.infer(NAME, [tensor], outputs=outputs, request_id="r7", timeout=10_000_000)
    assert result.get_response()["id"] == "r7"
    found, wanted = result.as_numpy(asked or "probabilities"), native(client, rows)
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() <= 1e-7
    if asked is None:
        assert result.as_numpy("predicted_class").tolist() == wanted.argmax(axis=1).tolist()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_triton_compresses(triton: Any, client: httpx.Client, golden: Golden, algorithm: str) -> None:
    tensor = triton.http.InferInput("sequences", [16, 20, 15], "FP32")
    tensor.set_data_from_numpy(golden[0])
    result = triton.infer(
        NAME, [tensor], request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
    )
    assert np.abs(result.as_numpy("probabilities") - native(client, golden[0])).max() <= 1e-7


def test_triton_sends_bfloat16(triton: Any, client: httpx.Client, golden: Golden) -> None:
    bfloat16 = importlib.import_module("ml_dtypes").bfloat16  # comes with tritonclient
    x = golden[0].astype(bfloat16)
    tensor = triton.http.InferInput("sequences", [16, 20, 15], "BF16")
    tensor.set_data_from_numpy(x)
    found = triton.infer(NAME, [tensor]).as_numpy("probabilities")
    assert np.abs(found - native(client, x.astype(np.float32))).max() <= 1e-7


def test_triton_reads_the_statistics(triton: Any, golden: Golden) -> None:
    def count() -> int:
        (stats,) = triton.get_inference_statistics(NAME)["model_stats"]
        found: int = stats["inference_stats"]["success"]["count"]
        return found

    before = count()
    tensor = triton.http.InferInput("sequences", [16, 20, 15], "FP32")
    tensor.set_data_from_numpy(golden[0])
    triton.infer(NAME, [tensor])
    assert count() == before + 1
    assert triton.get_inference_statistics()["model_stats"][0]["name"] == NAME


def test_triton_is_told_what_is_wrong(triton: Any) -> None:
    tensor = triton.http.InferInput("sequences", [1, 19, 15], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 19, 15), np.float32))
    errors = importlib.import_module("tritonclient.utils")
    with pytest.raises(errors.InferenceServerException, match=r"expected an array of shape \(n, 20, 15\)"):
        triton.infer(NAME, [tensor])
    with pytest.raises(errors.InferenceServerException, match="expected sequence_start"):
        triton.infer(NAME, [tensor], sequence_id=1)


@pytest.mark.parametrize("name", [(1 << 64) - 1, "pump-7"])
@pytest.mark.parametrize("binary", [True, False])
def test_triton_sends_rows_in_sequence(
    triton: Any, client: httpx.Client, golden: Golden, name: str | int, *, binary: bool
) -> None:
    rows = golden[0][:2].reshape(-1, 15)
    wanted = native(client, np.lib.stride_tricks.sliding_window_view(rows, 20, axis=0).swapaxes(1, 2))
    assert "sequence(string_id)" in triton.get_server_metadata()["extensions"]
    for k in range(len(rows)):
        tensor = triton.http.InferInput("sequences", [1, 1, 15], "FP32")
        tensor.set_data_from_numpy(rows[np.newaxis, k : k + 1], binary_data=binary)
        flags = {"sequence_id": name, "sequence_start": k == 0, "sequence_end": k == len(rows) - 1}
        result = triton.infer(NAME, [tensor], **flags)
        found = result.as_numpy("probabilities")
        if k < 19:
            assert found.shape == (0, 5)
            assert result.get_response()["parameters"] == {"ready": False}
        else:
            assert np.abs(found - wanted[k - 19]).max() <= 2e-6
            assert result.as_numpy("predicted_class").tolist() == [wanted[k - 19].argmax()]
    assert client.get(f"/series/{name}").status_code == 404


# KServe


@pytest.fixture
def kserve() -> Iterator[Any]:
    with warnings.catch_warnings():
        installed("kserve")
        yield importlib.import_module("kserve")


def with_client(kserve: Any, protocol: str, use: Callable[[Any], Any]) -> Any:
    """What a coroutine function gives that is handed KServe's client."""

    async def run() -> Any:
        config = kserve.inference_client.RESTConfig(protocol=protocol, retries=0)
        async with kserve.InferenceRESTClient(config) as client:
            return await use(client)

    return asyncio.run(run())


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_kserve_asks_about_server_and_model(kserve: Any, service: Process, protocol: str) -> None:
    async def use(client: Any) -> None:
        assert await client.is_server_live(service.url)
        assert protocol == "v1" or await client.is_server_ready(service.url)
        assert await client.is_model_ready(service.url, NAME)

    with_client(kserve, protocol, use)


def test_kserve_v1_infers(kserve: Any, service: Process, client: httpx.Client, rows: npt.NDArray[np.float32]) -> None:
    answer = with_client(kserve, "v1", lambda c: c.infer(service.url, {"instances": rows.tolist()}, model_name=NAME))
    assert np.abs(np.array(answer["predictions"]) - native(client, rows)).max() <= 1e-7


@pytest.mark.parametrize(("given", "asked"), NAMES)
@pytest.mark.parametrize("binary", [True, False])
def test_kserve_v2_infers(
    kserve: Any,
    service: Process,
    client: httpx.Client,
    rows: npt.NDArray[np.float32],
    given: str,
    asked: str | None,
    *,
    binary: bool,
) -> None:
    tensor = kserve.InferInput(given, list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    parameters = {"binary_data_output": True} if binary else None
    outputs = None
    if asked is not None:
        outputs = [kserve.protocol.infer_type.RequestedOutput(asked, parameters and {"binary_data": True})]
    request = kserve.InferRequest(NAME, [tensor], parameters=parameters, request_outputs=outputs)
    answer = with_client(kserve, "v2", lambda c: c.infer(service.url, request, model_name=NAME))
    (found, *_) = answer.outputs
    assert found.name == (asked or "probabilities")
    assert np.abs(found.as_numpy() - native(client, rows)).max() <= 1e-7
