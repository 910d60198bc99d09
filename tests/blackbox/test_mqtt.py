"""The recipe for MQTT in the documentation, run against Debian's mosquitto."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Event
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
import pytest
from chaos import free_ports
from paho.mqtt.enums import CallbackAPIVersion
from serving import PATIENCE, ROOT, Process

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed (Debian: mosquitto)")

(RECIPE,) = re.findall(r"```python\n([^`]*paho.*?)```", (ROOT / "docs/devices.md").read_text(), re.DOTALL)
ROWS = np.loadtxt(ROOT / "models/turbofan.example.csv", delimiter=",", skiprows=1)[:20, 1:].tolist()


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    """Run mosquitto until the block ends; gives its port."""
    (port,) = free_ports(1)
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with (folder / "mosquitto.log").open("w") as log:
        process = subprocess.Popen([str(MOSQUITTO), "-c", config], stdout=log, stderr=log)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), PATIENCE).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, (folder / "mosquitto.log").read_text()
                time.sleep(0.01)
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE)


@contextmanager
def bridge(service: int, broker: int) -> Iterator[subprocess.Popen[str]]:
    """Run the recipe until the block ends, from when it has subscribed."""
    assert RECIPE.count("127.0.0.1:8080") == RECIPE.count("1883") == RECIPE.count("client.loop_forever") == 1
    code = RECIPE.replace("127.0.0.1:8080", f"127.0.0.1:{service}").replace("1883", str(broker))
    told = "client.on_subscribe = lambda *_: print('subscribed', flush=True)\nclient.loop_forever"
    command = [sys.executable, "-c", code.replace("client.loop_forever", told)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "subscribed\n"
            yield process
        finally:
            process.terminate()


class Device:
    """What publishes rows, and hears what comes back."""

    def __init__(self, port: int) -> None:
        self.heard: Queue[tuple[str, Any]] = Queue()
        subscribed = Event()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self.client.on_connect = lambda client, *_: client.subscribe([("pumps/+/answer", 1), ("pumps/+/error", 1)])
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.on_message = lambda *come: self.heard.put((come[2].topic, json.loads(come[2].payload)))
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert subscribed.wait(PATIENCE)

    def publish(self, pump: str, seq: int, row: list[float]) -> None:
        body = json.dumps({"seq": seq, "rows": [row]})
        self.client.publish(f"pumps/{pump}/rows", body, qos=1).wait_for_publish(PATIENCE)

    def answered(self, pump: str, seq: int, row: list[float]) -> tuple[str, Any]:
        self.publish(pump, seq, row)
        return self.heard.get(timeout=PATIENCE)


@pytest.fixture(scope="module")
def service() -> Iterator[int]:
    with Process(ROOT / "models/turbofan.h5") as process:
        yield process.port


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with broker(tmp_path) as port:
        yield port


@pytest.fixture
def device(port: int) -> Iterator[Device]:
    device = Device(port)
    yield device
    device.client.loop_stop()


def test_rows_repeats_and_gaps(service: int, port: int, device: Device) -> None:
    with bridge(service, port):
        for k, row in enumerate(ROWS[:19]):
            topic, told = device.answered("a", k, row)
            assert (topic, told["missing"]) == ("pumps/a/answer", 19 - k)
        first, again = (device.answered("a", 19, ROWS[19])[1] for _ in range(2))
        assert first["answer"]["label"] == "125 or more cycles left"
        assert again["duplicate"]
        assert again["answer"]["predicted_class"] == first["answer"]["predicted_class"]
        topic, told = device.answered("a", 30, ROWS[19])
        assert (topic, told["status"], told["expected"]) == ("pumps/a/error", 409, 20)


def test_what_comes_while_the_service_is_away_is_answered_later(service: int, port: int, device: Device) -> None:
    (nowhere,) = free_ports(1)
    with bridge(nowhere, port) as process:
        for k in range(19):
            device.publish("b", k, ROWS[k])
        assert process.wait(PATIENCE) != 0
        assert process.stderr is not None
        assert "Connection refused" in process.stderr.read()
    device.publish("b", 19, ROWS[19])
    assert device.heard.empty()
    with bridge(service, port):
        told = [device.heard.get(timeout=PATIENCE)[1] for _ in range(20)]
        assert [each["seq"] for each in told] == [*range(20)]
        assert told[-1]["answer"]["label"] == "125 or more cycles left"
