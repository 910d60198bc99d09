"""Headless Chromium, by WebDriver: what a person with a browser sees."""

import base64
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from serving import PATIENCE

DRIVER = shutil.which("chromedriver")
MISSING = "chromedriver is not installed: Debian's chromium-driver"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key that WebDriver has for an element's id


class Browser:
    """Headless Chromium, spoken to by WebDriver over HTTP."""

    def __init__(self, port: int, folder: Path, *more: str) -> None:
        arguments = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--hide-scrollbars", "--disable-component-update", "--disable-sync"),
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            *("--window-size=1200,1600", f"--user-data-dir={folder / 'profile'}", *more),
        ]
        options = {"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)
        made = self.client.post("/session", json={"capabilities": {"alwaysMatch": options}}).json()["value"]
        self.session = f"/session/{made['sessionId']}"

    def command(self, path: str, **given: Any) -> Any:
        answer = self.client.post(f"{self.session}/{path}", json=given).json()["value"]
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def run(self, script: str) -> Any:
        return self.command("execute/sync", script=script, args=[])

    def wait_for(self, script: str) -> Any:
        """What a script returns as soon as that is true."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := self.run(script):
                return found
            time.sleep(0.1)
        raise AssertionError(f"never true: {script}; {self.run('return document.body.innerText')[:2000]}")

    def click(self, selector: str) -> None:
        self.wait_for(f"return document.querySelector({selector!r}) !== null")
        self.run(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        element = self.command("element", using="css selector", value=selector)[ELEMENT]
        self.command(f"element/{element}/click")

    def complaints(self) -> list[str]:
        """What its console was told since it was asked last: errors, and what a page's policy forbids."""
        return [entry["message"] for entry in self.command("se/log", type="browser")]

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.client.get(f"{self.session}/screenshot").json()["value"]))


@contextmanager
def opened(folder: Path, *more: str) -> Iterator[Browser]:
    """A browser of its own, with its profile in `folder` and `more` flags; nothing but 127.0.0.1 is there for it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([str(DRIVER), f"--port={port}", "--silent"], stdout=subprocess.DEVNULL) as driver:
        try:
            while driver.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            found = Browser(port, folder, *more)
            try:
                yield found
            finally:
                found.client.delete(found.session)
                found.client.close()
        finally:
            driver.terminate()
