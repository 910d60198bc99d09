"""The device of the documentation: what it does where a request fails, on a real service behind a server that fails."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError

import httpx
import numpy as np
import pytest
from serving import PATIENCE, ROOT, client_of

from lstm_serve import load_model

(RECIPE,) = re.findall(r"^```python\n(.*?)^for number", (ROOT / "docs/series.md").read_text(), re.DOTALL | re.MULTILINE)
ROWS = np.loadtxt(ROOT / "models/turbofan.example.csv", delimiter=",", skiprows=1)[:40, 1:]


@contextmanager
def in_front_of(service: httpx.Client, faults: list[str]) -> Iterator[str]:
    """A server that hands on what comes, but for the faults, of which each request has the next one."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            fault = faults.pop(0) if faults else ""
            body = self.rfile.read(int(self.headers["content-length"]))
            if fault.isdigit():
                self.send_error(int(fault))
                return
            answer = service.post(self.path, content=body)
            if fault == "lost":
                return
            self.send_response(answer.status_code)
            self.send_header("content-length", str(len(answer.content) + (fault == "cut")))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/series/pump/rows"
        server.shutdown()


def test_the_device_loses_no_row_and_doubles_none(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    exec(RECIPE, names)  # noqa: S102 - the documentation's own
    monkeypatch.setattr(names["time"], "sleep", lambda _seconds: None)
    wanted = load_model(ROOT / "models/turbofan.h5").predict_series(ROWS)
    faults: list[str] = []
    with client_of(ROOT / "models/turbofan.h5") as client, in_front_of(client, faults) as url:

        def send(number: int) -> None:
            answer = names["send"](number, ROWS[number].tolist(), url)
            if number < 19:
                assert answer is None
            else:
                np.testing.assert_allclose(answer["probabilities"], wanted[number - 19], rtol=0, atol=1e-5)
            assert not faults

        for number in range(25):
            faults[:] = {3: ["503", "504"], 20: ["lost"], 22: ["cut", "429", "502"]}.get(number, [])
            send(number)
        client.delete("/series/pump")  # as a store that lost the last rows has it
        client.post("/series/pump/rows", json={"seq": 20, "rows": ROWS[:21].tolist()}, timeout=PATIENCE)
        send(25)
        assert client.get("/series/pump").json()["seq"] == 25
        client.delete("/series/pump")
        client.post("/series/pump/rows", json={"seq": 26, "rows": ROWS[:1].tolist()})
        with pytest.raises(HTTPError, match="409"):  # other values of the same number
            names["send"](26, ROWS[26].tolist(), url)
