"""What the service is measured against: ASGI apps for uvicorn, chosen by the variable PEER.

bare      a constant answer: the ceiling of any Python server
noop      stock FastAPI that validates the body with Pydantic, and answers a constant
onnx      FastAPI around ONNX Runtime, tuned by hand: raw request, orjson in and out, one thread
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

CONSTANT = b'{"probabilities":[0.97899216,0.020965206,0.000032976466,0.000007092133,2.4e-06],"predicted_class":0}'


async def bare(scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
    """Read the body, answer a constant."""
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(CONSTANT))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": CONSTANT})


class One(BaseModel):
    """One sequence."""

    sequence: list[list[float]]


class Many(BaseModel):
    """Several sequences."""

    sequences: list[list[list[float]]]


class Answer(BaseModel):
    """A classifier's answer."""

    probabilities: list[float]
    predicted_class: int


def noop() -> FastAPI:
    """Stock FastAPI without any computation."""
    app = FastAPI()
    answer = Answer.model_validate_json(CONSTANT)

    @app.post("/predict")
    async def predict(body: One) -> Answer:  # noqa: ARG001 - to be validated is its purpose
        return answer

    @app.post("/predict/batch")
    async def predict_batch(body: Many) -> list[Answer]:
        return [answer] * len(body.sequences)

    return app


def onnx() -> FastAPI:
    """FastAPI around ONNX Runtime's fused LSTM, as a careful person writes it."""
    import onnxruntime  # noqa: PLC0415 - the other peers do without

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(Path(os.environ["PEER_ONNX"])), options)
    app = FastAPI()

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        x = np.array(orjson.loads(await request.body())["sequence"], np.float32)
        if x.shape != (20, 15):
            return Response(status_code=422)
        (y,) = session.run(None, {"x": x[np.newaxis]})
        content = {"probabilities": y[0].tolist(), "predicted_class": int(y[0].argmax())}
        return Response(orjson.dumps(content), media_type="application/json")

    @app.post("/predict/batch")
    async def predict_batch(request: Request) -> Response:
        x = np.array(orjson.loads(await request.body())["sequences"], np.float32)
        if x.shape[1:] != (20, 15):
            return Response(status_code=422)
        (y,) = session.run(None, {"x": x})
        content = [{"probabilities": row.tolist(), "predicted_class": int(row.argmax())} for row in y]
        return Response(orjson.dumps({"predictions": content}), media_type="application/json")

    return app


app: Any = {"bare": lambda: bare, "noop": noop, "onnx": onnx}[os.environ.get("PEER", "noop")]()
