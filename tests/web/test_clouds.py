"""Settings and routes in the words of clouds."""

import json

import httpx
import numpy as np
import pytest
from serving import ASKER, PATIENCE, ROOT, SMALL, Golden, Process, call, in_loop, started

from lstm_serve.errors import SettingsError
from lstm_serve.settings import Settings, read
from lstm_serve.web.app import create_app

MODEL = {"LSTMSERVE_MODEL": "m.h5"}
# As Vertex AI has them where nothing is said, for an endpoint and a deployed model.
VERTEX = {
    "AIP_HTTP_PORT": "8080",
    "AIP_HEALTH_ROUTE": "/v1/endpoints/123/deployedModels/45",
    "AIP_PREDICT_ROUTE": "/v1/endpoints/123/deployedModels/45:predict",
}


@pytest.mark.parametrize(
    ("environ", "port"),
    [
        ({}, 8080),
        ({"PORT": "81"}, 81),
        ({"AIP_HTTP_PORT": "82"}, 82),
        ({"PORT": "81", "AIP_HTTP_PORT": "82"}, 82),
        ({"PORT": "81", "LSTMSERVE_PORT": "83"}, 83),
        ({"PORT": "x", "LSTMSERVE_PORT": "83"}, 83),
    ],
)
def test_ports(environ: dict[str, str], port: int) -> None:
    assert read(MODEL | environ, {}).port == port
    assert read(MODEL | environ, {"port": "84"}).port == 84


@pytest.mark.parametrize("name", ["PORT", "AIP_HTTP_PORT", "AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE", "LSTMSERVE_PORT"])
def test_a_wrong_value_is_told_by_its_own_name(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: "):
        read(MODEL | {name: "no route, no port"}, {})


def test_routes_of_vertex() -> None:
    settings = read(MODEL | VERTEX, {})
    assert settings.health_route == VERTEX["AIP_HEALTH_ROUTE"]
    assert settings.predict_route == VERTEX["AIP_PREDICT_ROUTE"]
    own = read(MODEL | VERTEX | {"LSTMSERVE_HEALTH_ROUTE": "/h"}, {"predict_route": "/p"})
    assert (own.health_route, own.predict_route) == ("/h", "/p")


def test_a_service_started_by_vertex(golden: Golden) -> None:
    x, y = golden
    routes = {name: value for name, value in VERTEX.items() if name != "AIP_HTTP_PORT"}
    with (
        Process(ASKER / "k215_model.h5", **routes) as process,
        httpx.Client(base_url=process.url, timeout=PATIENCE) as client,
    ):
        assert client.get(VERTEX["AIP_HEALTH_ROUTE"]).json() == {"status": "ok"}
        response = client.post(VERTEX["AIP_PREDICT_ROUTE"], json={"instances": x.tolist()})
        assert np.abs(np.array(response.json()["predictions"]) - y).max() <= 1e-6
        wrong = client.post(VERTEX["AIP_PREDICT_ROUTE"], json={})
        assert (wrong.status_code, wrong.json().keys()) == (400, {"error"})
        large = client.post(VERTEX["AIP_PREDICT_ROUTE"], content=b" " * (3 << 20))
        assert (large.status_code, large.json().keys()) == (413, {"error"})
        # Probes are no news, at whatever path.
        client.get("/ping")
        client.post("/predict", json={})
        process.wait_for("POST /predict 422")
        assert not any("deployedModels/45 200" in line or "/ping" in line for line in process.lines)


TAKEN = [
    *(("health_route", path) for path in ("/metrics", "/model", "/docs", "/predict", "/v2/models/binary/infer")),
    *(("predict_route", path) for path in ("/metrics", "/readyz", "/openapi.json", "/v1/models/x", "/v2/health/live")),
]


@pytest.mark.parametrize(("name", "taken"), TAKEN)
def test_a_route_that_answers_something_else_is_refused(name: str, taken: str) -> None:
    with pytest.raises(SettingsError, match=f"LSTMSERVE_{name.upper()} is {taken}, which answers something else"):
        create_app(Settings.model_validate({"model": SMALL / "binary.h5", name: taken}))


def test_one_path_for_both_is_refused() -> None:
    with pytest.raises(SettingsError, match="_ROUTE is /x"):
        create_app(Settings(model=SMALL / "binary.h5", health_route="/x", predict_route="/x"))


@pytest.mark.parametrize("health_route", ["/health", "/ping", None])
@in_loop
async def test_routes_that_are_there_already(health_route: str | None) -> None:
    """People say /predict and /health to Vertex AI: then /predict speaks its words."""
    settings = Settings(model=SMALL / "binary.h5", predict_route="/predict", health_route=health_route)
    app = create_app(settings)
    async with started(app):
        steps = app.state.registry.get().current.model.input_shape[0]
        answer = await call(app, "/predict", json.dumps({"instances": [[[0, 0, 0]] * steps]}).encode())
        assert (answer.status, len(answer.json["predictions"])) == (200, 1)
        wrong = await call(app, "/predict", b'{"sequence": 1}')
        assert (wrong.status, wrong.json.keys()) == (400, {"error"})
        assert (await call(app, "/predict/batch", b'{"sequences": []}')).status == 422
        assert (await call(app, "/health")).status == 200
    document = app.openapi()
    assert document["paths"]["/predict"]["post"]["tags"] == ["v1"]
    assert document["paths"].keys() >= {"/predict/batch", "/ping", "/invocations"}


def test_the_image_lets_a_cloud_choose_the_port() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "LSTMSERVE_PORT" not in dockerfile
    assert 'ENTRYPOINT ["lstm-serve"]\nCMD ["serve"]' in dockerfile
