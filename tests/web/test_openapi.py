"""The OpenAPI document says what is answered, and nothing else."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from jsonschema_rs import Draft202012Validator
from openapi_document import WRITTEN, made
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from serving import ASKER, SMALL, Process

from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app

Document = dict[str, Any]

POST = {"200", "400", "401", "408", "413", "415", "422", "429", "500", "503", "504"}
PLAIN_POST = POST - {"401", "422"} | {"404"}
V1_MODEL, V2_MODEL = (
    [f"/{v}/models/{{model_name}}", f"/{v}/models/{{model_name}}/versions/{{model_version}}"] for v in ("v1", "v2")
)
VERBS = ("predict", "predict/batch", "explain", "trace")
MODEL = "/models/{model_name}"
VERSION = f"{MODEL}/versions/{{model_version}}"
STATUSES = {
    ("get", "/models"): {"200", "401", "500"},
    ("get", MODEL): {"200", "401", "404", "500"},
    **{("post", f"{at}/{verb}"): POST | {"404"} for at in (MODEL, VERSION) for verb in VERBS},
    ("post", f"{MODEL}/predict/series"): POST | {"404"},
    **{("post", f"{MODEL}/series{path}/rows"): POST | {"404", "409", "501"} for path in ("", "/{series}")},
    ("get", f"{MODEL}/series/{{series}}"): {"200", "401", "404", "409", "422", "429", "500", "501", "503", "504"},
    ("delete", f"{MODEL}/series/{{series}}"): {"204", "401", "404", "409", "422", "500", "501", "503"},
    **{
        ("get", f"{prefix}/series/{{series}}/events"): {
            "200",
            "400",
            "401",
            "404",
            "409",
            "422",
            "429",
            "500",
            "501",
            "503",
        }
        for prefix in ("", MODEL)
    },
    **{("get", f"{at}/drift"): {"200", "401", "404", "500"} for at in ("", MODEL)},
    ("post", "/predict"): POST,
    ("post", "/predict/batch"): POST,
    ("post", "/predict/series"): POST,
    **{("post", f"/series{path}/rows"): POST | {"404", "409", "501"} for path in ("", "/{series}")},
    ("get", "/series/{series}"): {"200", "401", "404", "409", "422", "429", "500", "501", "503", "504"},
    ("delete", "/series/{series}"): {"204", "401", "404", "409", "422", "500", "501", "503"},
    ("post", "/explain"): POST,
    **{("post", f"{prefix}:explain"): PLAIN_POST for prefix in V1_MODEL},
    ("post", "/trace"): POST,
    ("get", "/model"): {"200", "401", "500"},
    ("get", "/metrics"): {"200", "401"},
    ("get", "/livez"): {"200", "500"},
    ("get", "/readyz"): {"200", "503"},
    ("get", "/health"): {"200", "503"},
    ("get", "/healthz"): {"200", "503"},
    ("get", "/ping"): {"200", "503"},
    ("post", "/invocations"): POST,
    **{("post", f"{prefix}/infer"): PLAIN_POST | {"409", "501"} for prefix in V2_MODEL},
    **{("get", f"{prefix}{path}"): {"200", "404", "500"} for prefix in V2_MODEL for path in ("", "/config", "/stats")},
    **{("get", f"{prefix}/ready"): {"200", "404", "500", "503"} for prefix in V2_MODEL},
    **{("get", f"/v2{path}"): {"200"} for path in ("", "/models", "/models/stats")},
    **{("get", f"/v2/health/{path}"): {"200", "503"} for path in ("live", "ready")},
    ("post", "/v2/repository/index"): {"200"},
    **{("post", f"{prefix}:predict"): PLAIN_POST for prefix in V1_MODEL},
    **{("get", prefix): {"200", "404", "500", "503"} for prefix in V1_MODEL},
    **{("get", f"{prefix}/metadata"): {"200", "404", "500"} for prefix in V1_MODEL},
    ("get", "/v1/models"): {"200"},
    ("get", "/"): {"200", "307"},
}


@pytest.fixture(scope="module")
def document() -> Document:
    found: Document = create_app(Settings(model=ASKER / "k215_model.h5")).openapi()
    return found


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def resolved(document: Document, schema: Document) -> Document:
    """A schema of the document that can stand alone."""
    return {**schema, "components": document["components"]}


def test_every_path_and_status_is_there(document: Document) -> None:
    found = {(method, path): set(operation["responses"]) for method, path, operation in operations(document)}
    assert found == STATUSES
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert "ValidationError" not in document["components"]["schemas"]


def test_every_operation_is_described_once(document: Document) -> None:
    found = [operation for _, _, operation in operations(document)]
    assert all(operation["summary"] and operation["tags"] for operation in found)
    assert len({operation["operationId"] for operation in found}) == len(found)


def test_the_request_has_the_shape_of_the_model(document: Document) -> None:
    schemas = document["components"]["schemas"]
    one = schemas["PredictRequest"]
    assert one["required"] == ["sequence"]
    assert one["additionalProperties"] is False
    steps = one["properties"]["sequence"]
    assert (steps["minItems"], steps["maxItems"], steps["items"]["minItems"], steps["items"]["maxItems"]) == (
        20,
        20,
        15,
        15,
    )
    assert steps["items"]["items"]["type"] == "number"
    many = schemas["PredictBatchRequest"]["properties"]["sequences"]
    assert (many["minItems"], many["maxItems"]) == (1, 1024)


def test_a_time_step_may_be_an_object_by_the_names_of_the_card(tmp_path: Path) -> None:
    shutil.copy(SMALL / "binary.h5", tmp_path)
    (tmp_path / "binary.card.json").write_text('{"features": ["a", "b", "c"]}')
    named: Document = create_app(Settings(model=tmp_path / "binary.h5")).openapi()
    schema = Draft202012Validator(resolved(named, named["components"]["schemas"]["PredictBatchRequest"]))
    steps = len(named["components"]["schemas"]["PredictRequest"]["properties"]["sequence"]["examples"][0])
    good: list[Any] = [[1, 2.5, 3], {"c": 3, "a": 1, "b": 2}]
    for step in good:
        assert schema.is_valid({"sequences": [[step] * steps]})
    bad: list[Any] = [[1, 2], {"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3, "d": 4}, {"a": 1, "b": 2, "c": "3"}]
    for step in bad:
        assert not schema.is_valid({"sequences": [[step] * steps]})


def test_every_status_has_a_schema_and_every_error_an_example_that_fits_it(document: Document) -> None:
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if status in {"204", "307"}:
                continue
            for content in response["content"].values():
                assert content["schema"], (method, path, status)
            if status == "200":
                continue
            ((kind, content),) = response["content"].items()
            assert Draft202012Validator(resolved(document, content["schema"])).is_valid(content["example"])
            if kind == "application/problem+json":
                assert content["example"]["status"] == int(status)
            if status in {"429", "503"} and method == "post":
                assert "Retry-After" in response["headers"]


def test_every_row_of_the_table_of_errors_has_an_example(document: Document) -> None:
    examples = [
        response["content"]["application/problem+json"]["example"]
        for response in document["components"]["responses"].values()
    ]
    codes = {400, 401, 404, 405, 408, 409, 413, 415, 422, 429, 431, 500, 501, 503, 504}
    assert {example["status"] for example in examples} == codes
    assert len({example["type"] for example in examples}) == len(examples)


@pytest.fixture(scope="module")
def api() -> Iterator[Any]:
    with Process(SMALL / "binary.h5") as process:
        yield schemathesis.openapi.from_url(f"{process.url}/openapi.json")


# A GET takes nothing that could be wrong, nor does Triton's index.
CASES = [
    (method, path, mode)
    for method, path in STATUSES
    for mode in GenerationMode
    if (method == "post" and path != "/v2/repository/index") or mode == GenerationMode.POSITIVE
]


@pytest.mark.long
@pytest.mark.parametrize(("method", "path", "mode"), CASES)
def test_what_is_documented_is_what_is_answered(api: Any, method: str, path: str, mode: GenerationMode) -> None:
    @given(case=api[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=25 if method == "post" else 8, deadline=None, suppress_health_check=list(HealthCheck))
    def check(case: Any) -> None:
        response = case.call()
        assert response.status_code < 500
        # That 413 is a refusal too is news to it, and that of many rows each is refused alone; and no schema says
        # that a tensor has as many data as its shape, what is in a line of CSV, that a query is of another form of
        # the body, or that a row's number has rows before it.
        one_by_one = response.status_code == 413 or path.endswith("/series/rows")
        excluded: list[Any] = [negative_data_rejection] if one_by_one else []
        excluded += (
            [positive_data_acceptance]
            if path.endswith(("/infer", "/series", "/rows")) or case.media_type == "text/csv"
            else []
        )
        case.validate_response(response, excluded_checks=excluded)

    check()


def test_the_written_document_is_that_of_the_code() -> None:
    assert WRITTEN.read_text() == made(), "the API has changed: `make openapi` writes docs/openapi.json anew"
