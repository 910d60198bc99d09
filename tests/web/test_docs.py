"""The page at /docs, with nothing from outside: its files, and in a browser that reaches no network."""

import base64
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from serving import PATIENCE, Process

DRIVER = shutil.which("chromedriver")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key that WebDriver has for an element's id
POST_PREDICT = "#operations-predict-predict_predict_post"


def test_page_and_its_files(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert not re.search(r"(?:https?:)?//", re.sub(r"<!--.*?-->", "", page.text, flags=re.DOTALL))
    names = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(names) == 3
    for name in names:
        file = client.get(urljoin("/docs", name))
        assert file.status_code == 200
        assert "max-age" in file.headers["cache-control"]
        assert len(file.content) > 500
    types = [client.get(urljoin("/docs", name)).headers["content-type"].split(";")[0] for name in names]
    assert types == ["text/css", "image/png", "text/javascript"]
    assert client.get("/openapi.json").json()["openapi"].startswith("3.1")


@pytest.mark.parametrize("name", ["__init__.py", "nothing", "..%2Fmain.py", ""])
def test_nothing_else_of_the_package(client: httpx.Client, name: str) -> None:
    assert client.get(f"/docs/{name}").status_code == 404


class Browser:
    """Headless Chromium, spoken to by WebDriver over HTTP."""

    def __init__(self, port: int, folder: Path) -> None:
        arguments = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            *("--window-size=1200,1600", f"--user-data-dir={folder / 'profile'}"),
        ]
        options = {"goog:chromeOptions": {"args": arguments}}
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

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.client.get(f"{self.session}/screenshot").json()["value"]))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if DRIVER is None:
        pytest.skip("chromedriver is not installed: Debian's chromium-driver")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([DRIVER, f"--port={port}", "--silent"], stdout=subprocess.DEVNULL) as driver:
        try:
            while driver.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            found = Browser(port, tmp_path)
            try:
                yield found
            finally:
                found.client.delete(found.session)
                found.client.close()
        finally:
            driver.terminate()


def test_the_page_works_without_a_network(browser: Browser, service: Process, tmp_path: Path) -> None:
    browser.command("url", url=f"{service.url}/docs")
    browser.wait_for("return document.querySelectorAll('.opblock').length >= 20")
    browser.click(f"{POST_PREDICT} .opblock-summary-control")
    browser.click(f"{POST_PREDICT} .try-out__btn")
    browser.click(f"{POST_PREDICT} .execute")
    answer = f"{POST_PREDICT} .live-responses-table tbody .response-col_description"
    said = browser.wait_for(f"return document.querySelector({answer!r})?.innerText")
    assert '"predicted_class"' in said
    assert browser.run(f"return document.querySelector({answer.replace('description', 'status')!r}).innerText") == "200"
    browser.run(f"document.querySelector({answer!r}).scrollIntoView({{block: 'center'}})")
    browser.picture(tmp_path / "docs.png")
    asked = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert asked
    assert all(url.startswith((service.url, "data:")) for url in asked), asked
