"""The page at /docs, with nothing from outside: its files, and in a browser that reaches no network."""

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from browser import DRIVER, MISSING, Browser, opened
from serving import ASKER, PATIENCE, Process, call, in_loop, started

from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app

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


@pytest.mark.parametrize("path", ["/docs/swagger-ui.css", "/ui/page.js"])
def test_a_file_that_is_there_already_is_not_sent_again(client: httpx.Client, path: str) -> None:
    """RFC 9110, 13.1.2: the comparison is weak, of any in a list, which may be in several lines."""
    whole = client.get(path)
    tag = whole.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', tag)
    several = httpx.Headers([("if-none-match", '"a"'), ("if-none-match", tag)])
    good = [httpx.Headers({"if-none-match": given}) for given in (tag, f"W/{tag}", f'"other", W/"a,b" , {tag}', "*")]
    for method in ("GET", "HEAD"):
        for headers in (*good, several):
            same = client.request(method, path, headers=headers)
            assert (same.status_code, same.content) == (304, b""), headers
            for name in ("etag", "cache-control"):
                assert same.headers[name] == whole.headers[name]
            assert "content-type" not in same.headers
        for given in ('"other"', tag.strip('"'), f'"{tag[1:9]}"', f'"*", "{tag[1:-1]}x"', ""):
            other = client.request(method, path, headers={"if-none-match": given})
            assert (other.status_code, other.headers["etag"]) == (200, tag), given
            assert other.content == (whole.content if method == "GET" else b"")


@pytest.mark.parametrize("name", ["__init__.py", "nothing", "..%2Fmain.py", ""])
def test_nothing_else_of_the_package(client: httpx.Client, name: str) -> None:
    assert client.get(f"/docs/{name}").status_code == 404


@in_loop
async def test_others_are_answered_while_the_document_is_made_once_for_all_who_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = create_app(Settings(model=ASKER / "k215_model.h5"))
    make, calls, begun, go_on = app.openapi, list[int](), threading.Event(), threading.Event()

    def slow() -> dict[str, Any]:
        calls.append(1)
        begun.set()
        assert go_on.wait(PATIENCE)
        return make()

    monkeypatch.setattr(app, "openapi", slow)
    async with started(app), asyncio.TaskGroup() as asking:
        first, second = (asking.create_task(call(app, "/openapi.json")) for _ in range(2))
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        assert (await call(app, "/livez")).status == 200
        assert not first.done()
        go_on.set()
    assert (first.result().status, first.result().body) == (200, second.result().body)
    assert calls == [1]


@in_loop
async def test_a_document_that_could_not_be_made_is_made_when_it_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = create_app(Settings(model=ASKER / "k215_model.h5"))
    make = app.openapi

    def fail() -> dict[str, Any]:
        raise RuntimeError("can't start new thread")

    async with started(app):
        monkeypatch.setattr(app, "openapi", fail)
        assert (await call(app, "/openapi.json")).status == 500
        monkeypatch.setattr(app, "openapi", make)
        assert (await call(app, "/openapi.json")).status == 200


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if DRIVER is None:
        pytest.skip(MISSING)
    with opened(tmp_path) as found:
        yield found


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
