"""The page at /: its files, who gets it, and what a person sees of a model, in a real browser."""

import csv
import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from browser import DRIVER, ELEMENT, MISSING, Browser, opened
from kerasfiles import Layers, dense, lstm, numbers, save_sequential
from kinds import BINARY, LABELS, TAGGER
from relay import Relay
from serving import PATIENCE, ROOT, Process, ask

from lstm_serve import load_model
from lstm_serve.cli import main
from lstm_serve.web.ui.routes import ASSETS

pytestmark = pytest.mark.long

TURBOFAN = ROOT / "models" / "turbofan.h5"
SERIES = TURBOFAN.with_suffix(".example.csv")
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
KEY = "a-key-of-twenty-four-chars"
SEVERAL = ROOT / "tests" / "golden" / "several" / "k3__state_and_rul.h5"
SMALL = ROOT / "tests" / "golden" / "small"  # a model of each kind
SHOWN = "return import('./ui/page.js').then(({shown}) => %s)"


def columns() -> np.ndarray[Any, Any]:
    with SERIES.open() as file:
        return np.array([[float(cell) for cell in row[1:]] for row in list(csv.reader(file))[1:]])


def drop(browser: Browser, text: str) -> None:
    """Give the page a file `x.csv`, as its input for one does."""
    browser.run(
        f"""const data = new DataTransfer(); data.items.add(new File([{json.dumps(text)}], 'x.csv'));
        const input = document.querySelector('#file'); input.files = data.files;
        input.dispatchEvent(new Event('change'));"""
    )


@pytest.fixture(scope="module")
def turbofan() -> Iterator[Process]:
    with Process(TURBOFAN) as process:
        yield process


@pytest.fixture(scope="module")
def small() -> Iterator[Process]:
    with Process(SMALL) as process:
        yield process


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if DRIVER is None:
        pytest.skip(MISSING)
    with opened(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    chromium.complaints()
    yield chromium
    assert chromium.complaints() == []


def test_a_browser_gets_the_page_and_others_what_they_got_before(turbofan: Process) -> None:
    with httpx.Client(base_url=turbofan.url, timeout=PATIENCE) as client:
        page = client.get("/", headers=BROWSER)
        assert (page.status_code, page.headers["vary"]) == (200, "accept")
        assert page.headers["content-type"].startswith("text/html")
        names = re.findall(r'(?:href|src)="([^"]+)"', page.text)
        assert all(not name.startswith(("/", "http")) for name in names), "a proxy may put it anywhere"
        for name in (*names, *(f"ui/{name}" for name in ASSETS)):
            assert client.get(f"/{name}").status_code == 200
        policy = page.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "http" not in policy
        for accept in ("*/*", "application/json", ""):
            other = client.get("/", headers={"accept": accept})
            assert (other.json()["status"], other.headers["vary"]) == ("alive", "accept")
        assert client.get("/model/example").content == SERIES.read_bytes()


def test_every_file_of_the_page_is_served() -> None:
    static = ROOT / "service" / "lstm_serve" / "web" / "ui" / "static"
    assert {path.name for path in static.iterdir()} == {"index.html", *ASSETS}
    for path in static.iterdir():
        assert "innerHTML" not in path.read_text(), "text from outside is set as text"


def test_without_the_page_and_without_an_example(tmp_path: Path) -> None:
    model = tmp_path / "m.h5"
    shutil.copy(TURBOFAN, model)
    with (
        Process(model, LSTMSERVE_PAGE="false") as process,
        httpx.Client(base_url=process.url, timeout=PATIENCE) as client,
    ):
        assert client.get("/", headers=BROWSER).headers["location"] == "docs"
        assert client.get("/ui/page.js").status_code == 404
    with Process(model) as process, httpx.Client(base_url=process.url, timeout=PATIENCE) as client:
        assert client.get("/model/example").status_code == 404


def test_what_is_drawn_is_what_the_model_answers(browser: Browser, turbofan: Process) -> None:
    """And it is no news of what comes in."""
    before = ask("GET", f"{turbofan.url}/drift").raise_for_status().json()
    browser.command("url", url=f"{turbofan.url}/")
    browser.click("#take")
    browser.wait_for("return document.querySelector('#readout').textContent !== ''")
    assert ask("GET", f"{turbofan.url}/drift").json() == before
    x = columns()
    windows = np.lib.stride_tricks.sliding_window_view(x, 20, axis=0).transpose(0, 2, 1)
    expected = load_model(TURBOFAN).predict(windows)
    drawn = browser.run(
        SHOWN % "[shown.data.rows, shown.data.predictions.map((p) => p.probabilities), shown.data.inputs]"
    )
    assert drawn[0] == list(range(20, len(x) + 1))
    np.testing.assert_allclose(drawn[1], expected, atol=2e-6)
    np.testing.assert_allclose(drawn[2], x, rtol=1e-6)
    assert len(browser.run("return [...document.querySelectorAll('#legend li')].map((item) => item.textContent)")) == 5


def test_a_click_a_key_and_a_link_choose_a_row(browser: Browser, turbofan: Process) -> None:
    browser.command("url", url=f"{turbofan.url}/")
    browser.click("#take")
    browser.wait_for("return document.querySelector('#readout').textContent !== ''")
    browser.click("#answers")
    row = browser.run(SHOWN % "shown.row")
    assert 90 < row < 115
    browser.run("document.querySelector('#answers').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))")
    assert browser.run(SHOWN % "shown.row") == row + 1
    link = browser.run("return location.href")
    browser.command("url", url="about:blank")
    browser.command("url", url=link)
    browser.wait_for(f"return document.querySelector('#readout').textContent.startsWith('Row {row + 1}: ')")


def test_of_several_models_one_is_chosen(browser: Browser, tmp_path: Path) -> None:
    """Whose paths are asked from then on; a link tells it."""
    for name in ("engine", "other"):
        (tmp_path / name).mkdir()
        shutil.copy(TURBOFAN, tmp_path / name / "model.h5")
    save_sequential(tmp_path / "valve.h5", [lstm(), dense()], [5, 3])
    for path in TURBOFAN.parent.glob("turbofan.*"):
        if path != TURBOFAN:
            shutil.copy(path, tmp_path / "other" / path.name.replace("turbofan", "model", 1))
    with Process(tmp_path) as process:
        browser.command("url", url=f"{process.url}/")
        browser.wait_for("return document.querySelectorAll('#chosen option').length === 3")
        browser.wait_for("return document.querySelector('#name').textContent === 'engine'")
        drop(browser, "\n".join(",".join(map(str, row)) for row in columns()))
        browser.wait_for("return document.querySelector('#readout').textContent !== ''")
        browser.run(
            """const select = document.querySelector('#chosen'); select.value = 'other';
            select.dispatchEvent(new Event('change'));"""
        )
        browser.wait_for("return document.querySelector('#name').textContent === 'other'")
        assert browser.run("return document.querySelector('#found').hidden")
        browser.click("#take")
        browser.wait_for("return !document.querySelector('#found').hidden")
        browser.click("#tab-why")
        browser.wait_for("return document.querySelectorAll('#reasons li').length > 0")
        browser.click("#tab-inside")
        browser.wait_for("return document.querySelectorAll('#layers canvas').length > 5")
        link = browser.run("return location.href")
        assert "model=other" in link
        browser.command("url", url="about:blank")
        browser.command("url", url=link)
        browser.wait_for("return document.querySelectorAll('#layers canvas').length > 5")
        assert browser.run("return document.querySelector('#about').href") == f"{process.url}/models/other"
        browser.command("url", url=f"{process.url}/#model=gone<b>&example=")
        problem = "document.querySelector('#problem').textContent"
        browser.wait_for(f"return {problem} === 'The model “gone<b>” is not served here.'")
        assert browser.run("return document.querySelector('#chosen').value") == ""
        for hidden in ("views", "drop", "found", "nothing"):
            assert browser.run(f"return document.querySelector('#{hidden}').hidden")
        browser.run(
            """const select = document.querySelector('#chosen'); select.value = 'engine';
            select.dispatchEvent(new Event('change'));"""
        )
        browser.wait_for(f"return !document.querySelector('#drop').hidden && {problem} === ''")


def test_a_model_of_several_inputs_or_outputs_is_not_for_the_page(browser: Browser) -> None:
    with Process(SEVERAL) as process:
        browser.command("url", url=f"{process.url}/#view=live&series=a")
        browser.wait_for("return document.querySelector('#problem').textContent !== ''")
        assert browser.run("return document.querySelector('#problem').textContent") == (
            "This page is of one input and one output, and the model has 3 inputs (words, static, sensors) and "
            "2 outputs (state, rul)."
        )
        for hidden in ("views", "drop", "live"):
            assert browser.run(f"return document.querySelector('#{hidden}').hidden")


@pytest.mark.parametrize(
    ("model", "takes"), [("each_step/k3__layers.h5", "3 x 4 x 5 x 2"), ("encoding/k3__ids.h5", "5")]
)
def test_a_model_of_no_rows_is_not_for_the_page(browser: Browser, model: str, takes: str) -> None:
    with Process(ROOT / "tests" / "golden" / model) as process:
        browser.command("url", url=process.url)
        browser.wait_for("return document.querySelector('#problem').textContent !== ''")
        assert browser.run("return document.querySelector('#problem').textContent") == (
            f"This page is of series, a row for each time step, and the model takes {takes} numbers at once."
        )
        for hidden in ("views", "drop", "live"):
            assert browser.run(f"return document.querySelector('#{hidden}').hidden")


def test_a_dot_at_the_edge_of_a_picture_is_whole(browser: Browser, turbofan: Process) -> None:
    """As of the first row and the last, the least value and the greatest."""
    browser.command("url", url=f"{turbofan.url}/")
    painted = browser.run(
        """return import('./ui/chart.js').then(({axis, line, sheet}) => {
            const canvas = document.createElement('canvas');
            canvas.getContext('2d', {willReadFrequently: true});
            const {pen} = sheet(canvas, 90, 210);
            const x = axis(210, 1, 4);
            const of = {top: 20, height: 50, low: 0, high: 1, ink: '#000000', joined: false};
            line(pen, x, [1, 2, 3, 4], [0.5, 0, 1, 0.5], of);
            return [[1, 0.5], [2, 0], [3, 1], [4, 0.5]].map(([row, value]) => {
                const {data} = pen.getImageData(x.at(row) - 5, 70 - 50 * value - 5, 10, 10);
                return data.reduce((sum, part) => sum + 255 - part, 0);
            });
        })"""
    )
    assert painted[0] > 0
    assert painted == [painted[0]] * 4


def test_no_peak_is_lost_where_there_are_more_rows_than_pixels(browser: Browser, turbofan: Process) -> None:
    browser.command("url", url=f"{turbofan.url}/")
    drawn = browser.run(
        """return import('./ui/chart.js').then(({axis, line}) => {
            const pen = document.createElement('canvas').getContext('2d'), found = [], rows = [...Array(5001).keys()];
            pen.lineTo = pen.moveTo = (x, y) => found.push(y);
            const values = rows.map((row) => ({2501: 1, 3007: -1}[row] ?? 0));
            line(pen, axis(260, 0, 5000), rows, values, {top: 10, height: 40, low: -1, high: 1, ink: 'red'});
            return [found.length, Math.min(...found), Math.max(...found)];
        })"""
    )
    assert drawn[0] < 1000
    assert drawn[1:] == [10, 50]


def test_numbers_of_an_answer_have_four_digits_each(browser: Browser, turbofan: Process) -> None:
    browser.command("url", url=f"{turbofan.url}/")
    said = browser.run(
        """return import('./ui/answers.js').then(({words}) => (
            words({kind: 'values'}, {values: [123456.7, 123456.7, 0.0123456]})))"""
    )
    assert said == "123500, 123500, 0.01235"


def test_of_an_answer_for_each_step_the_last_is_told(browser: Browser, turbofan: Process) -> None:
    browser.command("url", url=f"{turbofan.url}/")
    steps = [{"predicted_class": k, "label": None, "probabilities": [0.25 + k / 2, 0.75 - k / 2]} for k in (0, 1)]
    given = json.dumps({"steps": steps})
    said = browser.run(
        f"""return import('./ui/answers.js').then(({{curves, words}}) => {{
            const given = {given}, model = {{kind: 'steps'}};
            return [words(model, given), curves(model, [given], 3).values];
        }})"""
    )
    assert said == ["class 1 (25.0 %)", [[0.75], [0.25]]]


def test_of_many_classes_the_largest_are_drawn_and_the_sum_of_the_others(browser: Browser, turbofan: Process) -> None:
    browser.command("url", url=f"{turbofan.url}/")
    y = np.random.default_rng(5).dirichlet([1, 5, 1, 1, 5, 1], 8)
    given = json.dumps([{"probabilities": row} for row in y.tolist()])
    drawn = browser.run(
        f"return import('./ui/answers.js').then(({{curves}}) => curves({{kind: 'classes'}}, {given}, 3))"
    )
    assert drawn["names"] == ["class 1", "class 4", "4 others"]
    np.testing.assert_allclose(drawn["values"], [y[:, 1], y[:, 4], 1 - y[:, 1] - y[:, 4]])


def test_gates_are_those_of_the_trace(browser: Browser, turbofan: Process) -> None:
    browser.command("url", url=f"{turbofan.url}/#example=&row=150&view=inside")
    browser.wait_for("return document.querySelectorAll('#layers canvas').length > 5")
    sequence = columns()[130:150]
    traced = load_model(TURBOFAN).trace(sequence[np.newaxis])
    answer = ask("POST", f"{turbofan.url}/trace", json={"sequence": sequence.tolist()}).json()
    for layer, arrays in zip(answer["layers"], traced, strict=True):
        assert [array["name"] for array in layer["arrays"]] == list(arrays)
        for array in layer["arrays"]:
            np.testing.assert_allclose(array["values"], arrays[array["name"]][0], atol=1e-6)
    captions = browser.run("return [...document.querySelectorAll('figcaption')].map((each) => each.textContent)")
    (forget,) = (caption for caption in captions if caption.startswith("f,"))
    least, greatest = (float(number) for number in re.findall(r"[\d.]+", forget)[:2])
    np.testing.assert_allclose([least, greatest], [traced[1]["f"].min(), traced[1]["f"].max()], rtol=1e-3)


def test_what_is_refused_is_told_in_the_words_of_the_service(browser: Browser, turbofan: Process) -> None:
    browser.command("url", url=f"{turbofan.url}/")
    browser.wait_for("return document.querySelector('#expects').textContent !== ''")
    text = "T24,T30\n1,2\n"
    drop(browser, text)
    told = browser.wait_for("return document.querySelector('#problem').textContent")
    answer = httpx.post(
        f"{turbofan.url}/predict/series", content=text, headers={"content-type": "text/csv"}, timeout=PATIENCE
    ).json()
    assert answer["errors"][0]["detail"] in told
    (said,) = browser.complaints()
    assert "422" in said


def test_a_file_that_cannot_be_read_is_told(browser: Browser, turbofan: Process, tmp_path: Path) -> None:
    """Of text in another encoding two units would have one name; a folder, or a file that is gone, gives nothing."""
    browser.command("url", url=f"{turbofan.url}/")
    browser.wait_for("return document.querySelector('#expects').textContent !== ''")
    path = tmp_path / "units.csv"
    header, *lines = SERIES.read_text().splitlines()
    units = [f"{key},{line}" for key in "ÄÖ" for line in lines[:40]]
    path.write_text("\n".join([f"unit,{header}", *units]), encoding="latin-1")
    element = browser.command("element", using="css selector", value="#file")[ELEMENT]
    browser.run(
        """document.querySelector('#file').addEventListener(
            'change', ({target}) => { window.file = target.files[0]; }, {capture: true, once: true})"""
    )
    told = "return document.querySelector('#problem').textContent.includes(%r)"
    browser.command(f"element/{element}/value", text=str(path))
    browser.wait_for(told % "units.csv is not text in UTF-8")
    path.unlink()
    browser.run(
        """const data = new DataTransfer(); data.items.add(window.file);
        dispatchEvent(new DragEvent('drop', {dataTransfer: data, cancelable: true}));"""
    )
    browser.wait_for(told % "units.csv cannot be read")
    assert browser.run(SHOWN % "shown.data") is None


def test_many_numbers_inside_are_drawn(browser: Browser, tmp_path: Path) -> None:
    """As of a layer along a long window: a function takes no 125,000 arguments."""
    model = save_sequential(tmp_path / "m.h5", [dense(128, 3), lstm(2, 128), dense(2, 2)], [1000, 3])
    with Process(model) as process:
        browser.command("url", url=f"{process.url}/#view=inside")
        browser.wait_for("return document.querySelector('#expects').textContent !== ''")
        drop(browser, "".join(f"{k % 7},{k % 11},{k % 13}\n" for k in range(1000)))
        browser.wait_for("return document.querySelectorAll('#layers canvas').length > 5")


def test_a_long_series_goes_in_parts(browser: Browser, turbofan: Process) -> None:
    lines = SERIES.read_text().splitlines()
    data = (lines[1:] * 15)[:2500]
    browser.command("url", url=f"{turbofan.url}/")
    browser.wait_for("return document.querySelector('#expects').textContent !== ''")
    drop(browser, "\n".join([lines[0], *data]))
    browser.wait_for("return document.querySelector('#readout').textContent.startsWith('Row 2500: ')")
    x = np.array([[float(cell) for cell in line.split(",")[1:]] for line in data])
    windows = np.lib.stride_tricks.sliding_window_view(x, 20, axis=0).transpose(0, 2, 1)
    rows, found = browser.run(SHOWN % "[shown.data.rows, shown.data.predictions.map((p) => p.probabilities)]")
    assert rows == list(range(20, 2501))
    np.testing.assert_allclose(found, load_model(TURBOFAN).predict(windows), atol=2e-6)


def test_of_several_units_one_is_shown(browser: Browser, turbofan: Process, tmp_path: Path) -> None:
    """As `predict --by` answers them: no window reaches into the next one. A link tells which."""
    header, *lines = SERIES.read_text().splitlines()
    ends = {"7": 100, "8": 130, "x<b>": 200}
    data = [f"{key},{line}" for key, end in ends.items() for line in lines[:end]]
    text = "\n".join([f"unit,{header}", *data, ""])
    browser.command("url", url=f"{turbofan.url}/")
    browser.wait_for("return document.querySelector('#expects').textContent !== ''")
    drop(browser, text)
    browser.wait_for("return document.querySelector('#readout').textContent.startsWith('Row 100 of unit 7: ')")
    assert "told units apart" not in browser.run("return document.querySelector('#note').textContent")
    link = browser.run("return location.href")
    pick = """const select = document.querySelector('#unit');
        select.value = %r; select.dispatchEvent(new Event('change'));"""
    browser.run(pick % "x<b>")
    browser.wait_for("return document.querySelector('#readout').textContent.startsWith('Row 200 of unit x<b>: ')")
    assert "unit=x%3Cb%3E" in browser.run("return location.href")
    (tmp_path / "x.csv").write_text(text)
    main.main(["predict", str(TURBOFAN), str(tmp_path / "x.csv"), "--by", "unit", "-o", str(tmp_path / "y.csv")])
    answers = csv.DictReader((tmp_path / "y.csv").read_text().splitlines())
    of_unit = [row for row in answers if row["unit"] == "x<b>"]
    found = browser.run(SHOWN % "[shown.data.rows, shown.data.predictions.map((p) => p.probabilities)]")
    assert [row + 230 for row in found[0]] == [int(row["row"]) for row in of_unit]
    expected = [[float(cell) for cell in [*row.values()][-5:]] for row in of_unit]
    np.testing.assert_allclose(found[1], expected, atol=2e-6)
    browser.run(f"location.href = {link.replace('row=100', 'row=90')!r}")
    browser.wait_for("return document.querySelector('#readout').textContent.startsWith('Row 90 of unit 7: ')")
    browser.run(pick % "")
    browser.wait_for("return document.querySelector('#readout').textContent.startsWith('Row 430: ')")
    assert "told units apart" in browser.run("return document.querySelector('#note').textContent")


def test_units_are_found_in_a_file_that_goes_in_parts(browser: Browser, turbofan: Process) -> None:
    header, *lines = SERIES.read_text().splitlines()
    every = lines * 2
    lengths = [150 + 37 * k % 200 for k in range(100)]
    units = [(f"P-{k}", every[:length]) for k, length in enumerate(lengths)]
    text = "\n".join([f"unit,{header}", *(f"{key},{line}" for key, rows in units for line in rows)])
    assert len(text) > 2 << 20, "more than a request may have"
    browser.command("url", url=f"{turbofan.url}/")
    browser.wait_for("return document.querySelector('#expects').textContent !== ''")
    browser.run(f"window.text = {json.dumps(text)}")
    found = browser.run(
        """return import('./ui/service.js').then(async (service) => {
            const {by, texts} = await service.units(window.text, 20);
            return [by, [...texts].map(([key, text]) => [key, text.trim().split('\\n').length - 1])];
        })"""
    )
    assert found == ["unit", [[key, len(rows)] for key, rows in units]]
    assert all("413" in said for said in browser.complaints())


def test_the_header_of_a_long_series_is_what_the_service_takes_for_one(browser: Browser, small: Process) -> None:
    """Numbers have letters too (1e+01, nan is refused), a header may have none, and lines may end in any way."""
    x = numbers(2300, 3)
    lines = [",".join(f"{value:.8e}" for value in row) for row in x]
    browser.command("url", url=f"{small.url}/#model=values")
    browser.wait_for("return document.querySelector('#expects').textContent !== ''")
    ask = "return import('./ui/service.js').then((service) => service.series(%s, 6, () => {}))"
    expected = load_model(SMALL / "values.h5").predict_series(x)
    for header, end in (([], "\n"), (["Темп,Давл,Ток"], "\r\n"), (["0,1,2"], "\r"), (["#TYPE X", "a,b,c"], "\n")):
        found = browser.run(ask % json.dumps(end.join([*header, *lines, ",,", ""])))
        assert found["rows"] == list(range(6, 2301)), (header, end)
        np.testing.assert_allclose([each["values"] for each in found["predictions"]], expected, atol=2e-6)
        np.testing.assert_allclose(found["inputs"], x, rtol=1e-6)
    refused = ask.replace("() => {}))", "() => {})).catch((error) => error.message)")
    for wrong, told in (("1,?,3", "row 1001 (line 1001)"), ("", "Line 1001 is empty, and more rows come after it.")):
        text = "\n".join([*lines[:1000], wrong, *lines[1000:]])
        assert told in browser.run(refused % json.dumps(text))
    late = "\n".join([*lines[:1500], "1,?,3", *lines[1500:]])
    assert browser.run(refused % json.dumps(late)).startswith("Of the rows after row 1000: ")
    assert all("422" in said for said in browser.complaints())


def test_another_file_takes_the_place_of_the_one_before(browser: Browser, turbofan: Process) -> None:
    """Where it is refused too; and nothing of the address, which was of the one before, is used for it."""
    browser.command("url", url=f"{turbofan.url}/#example=&row=150&from=100&to=160&view=try")
    browser.wait_for("return document.querySelector('#readout').textContent.startsWith('Row 150: ')")
    drop(browser, "T24,T30\n1,2\n")
    browser.wait_for("return document.querySelector('#problem').textContent")
    assert browser.run("return document.querySelector('#found').hidden")
    assert browser.run("return document.querySelector('#source').textContent") == "The data: x.csv"
    drop(browser, "".join(SERIES.read_text().splitlines(keepends=True)[:161]))
    browser.wait_for("return document.querySelector('#readout').textContent.startsWith('Row 160: ')")
    assert browser.run(SHOWN % "[shown.first, shown.last]") == [1, 160]
    browser.click("#tab-why")
    browser.wait_for("return document.querySelectorAll('#reasons li').length > 0")
    browser.run("window.fetch = () => Promise.reject()")
    set_row = "const row = document.querySelector('#row'); row.value = 159; row.dispatchEvent(new Event('change'));"
    browser.run(set_row)
    browser.wait_for("return document.querySelector('#problem').textContent.includes('does not answer')")
    assert browser.run("return getComputedStyle(document.querySelector('#reasons')).visibility") == "hidden"
    assert all("422" in said for said in browser.complaints())


def test_what_is_said_of_two_classes_and_of_steps(browser: Browser, small: Process) -> None:
    """The probability is that of the class that is named, and the numbers those of the last step."""
    x = numbers(8, 3)
    text = "\n".join(",".join(map(str, row)) for row in x)
    said = {}
    for name in ("binary", "steps"):
        browser.command("url", url="about:blank")
        browser.command("url", url=f"{small.url}/#model={name}&view=inside")
        browser.wait_for("return !document.querySelector('#nothing').hidden")
        browser.click("#tab-try")
        drop(browser, text)
        said[name] = browser.wait_for("return document.querySelector('#readout').textContent")
    assert browser.run(SHOWN % "shown.view") == "try", "it was chosen after the address was followed"
    drawn = browser.run(SHOWN % "[shown.curves.values, document.querySelector('#answers-title').textContent]")
    last = load_model(SMALL / "steps.h5").predict(x[np.newaxis])[0, -1]
    np.testing.assert_allclose(drawn[0], last[:, np.newaxis], atol=2e-6)
    assert drawn[1].endswith("at the last step of each window")
    assert said["steps"] == "Row 8: " + ", ".join(f"{value:.4g}" for value in last)
    (share,) = load_model(SMALL / "binary.h5").predict_series(x)[-1]
    k = int(share >= 0.5)
    assert said["binary"] == f"Row 8: class {k} ({100 * (share if k else 1 - share):.1f} %)"
    browser.click("#tab-why")
    browser.wait_for("return document.querySelectorAll('#reasons li').length > 0")
    assert "the last step of its window" in browser.run("return document.querySelector('#why-title').textContent")


def test_a_row_that_nobody_saw_is_not_painted(browser: Browser, turbofan: Process) -> None:
    """But a single one is; and the numbers below a map stand below their columns."""
    browser.command("url", url=f"{turbofan.url}/")
    browser.wait_for("return document.querySelector('#expects').textContent !== ''")
    painted = """return import('./ui/chart.js').then(({axis, stack}) => {
        const x = axis(260, 1, 21), columns = [];
        const pen = {fillRect: (left) => columns.push(left)};
        stack(pen, x, ROWS, [ROWS.map(() => 1)], ['red'], {top: 0, height: 9});
        return columns.map((left) => (left - x.at(1)) / (x.at(2) - x.at(1)) + 1)
            .filter((row) => Math.abs(row % 1 - 0.5) > 0.2).map(Math.round);
    })"""
    assert {*browser.run(painted.replace("ROWS", "[4, 5, 6, 15, 16]"))} == {4, 5, 6, 15, 16}
    assert {*browser.run(painted.replace("ROWS", "[21]"))} == {21}
    (places, width) = browser.run(
        """return import('./ui/chart.js').then(({map}) => {
        const canvas = document.createElement('canvas'), found = [];
        document.body.append(canvas);
        canvas.getContext('2d').fillText = (text, x) => found.push([Number(text), x]);
        map(canvas, [Array(20).fill(1)], {first: 131});
        const width = canvas.clientWidth;
        canvas.remove();
        return [found, width];
    })"""
    )
    assert [row for row, _ in places] == list(range(132, 151, 2))
    for row, x in places:
        np.testing.assert_allclose(x, (row - 131 + 0.5) * (width - 8) / 20)


def test_a_broken_sensor_leaves_the_others_readable(browser: Browser, turbofan: Process) -> None:
    """What it sends is a mark at the edge of its scale; what is rare but no hundred times as far off is on it."""
    browser.command("url", url=f"{turbofan.url}/")
    reach = "return import('./ui/chart.js').then(({reach}) => reach(%s))"
    signal = numbers(600).ravel().tolist()
    whole = {"low": min(signal), "high": max(signal)}
    assert browser.run(reach % [*signal, *[3e38] * 50, -3e38]) == whole
    assert browser.run(reach % [*[518.67] * 9, 3e38]) == {"low": 518.67, "high": 518.67}
    for values in ([0.0] * 500 + [1.0], [*signal, 30.0], [7.0], [1.0, 3e38]):
        assert browser.run(reach % values) == {"low": min(values), "high": max(values)}
    marked = """return import('./ui/chart.js').then(({axis, line}) => {
        const found = [], pen = document.createElement('canvas').getContext('2d');
        pen.fillRect = (x, y) => found.push([x + 1.5, y]);
        const band = {top: 9, height: 30, low: 4, high: 6, ink: 'red'};
        line(pen, axis(260, 2, 4), [1, 2, 3, 4], [-99, 5, 3e38, -99], band);
        return found;
    })"""
    assert browser.run(marked) == [[152, 9], [252, 32]]


def test_with_a_key_and_hostile_names(browser: Browser, tmp_path: Path) -> None:
    model = tmp_path / "m.h5"
    shutil.copy(TURBOFAN, model)
    card = json.loads(TURBOFAN.with_suffix(".card.json").read_text())
    hostile = "<img src=x onerror=alert(1)>" + "long" * 60
    card["description"] = card["classes"][0] = card["features"][0]["unit"] = hostile
    (tmp_path / "m.card.json").write_text(json.dumps(card))
    with Process(model, LSTMSERVE_API_KEYS=KEY) as process:
        browser.command("url", url=f"{process.url}/")
        browser.wait_for("return !document.querySelector('#ask').hidden")
        assert browser.run("return document.querySelector('#drop').hidden"), "what it takes is not known yet"
        browser.run("document.querySelector('#key').value = 'a wrong one'")
        browser.run("document.querySelector('#ask').requestSubmit()")
        browser.wait_for("return document.querySelector('#problem').textContent.includes('does not know this key')")
        browser.run(f"document.querySelector('#key').value = {KEY!r}")
        browser.run("document.querySelector('#ask').requestSubmit()")
        browser.wait_for("return document.querySelector('#expects').textContent !== ''")
        drop(browser, SERIES.read_text())
        browser.wait_for("return document.querySelector('#readout').textContent !== ''")
        assert browser.run("return document.querySelectorAll('img').length") == 0
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        assert KEY not in browser.run("return location.href + JSON.stringify({...localStorage, ...sessionStorage})")
    assert all("401" in said for said in browser.complaints())  # what it began with


def test_why_is_what_explain_answers(browser: Browser, turbofan: Process) -> None:
    browser.command("url", url=f"{turbofan.url}/#example=&row=150&view=why")
    reasons = browser.wait_for(
        "const found = [...document.querySelectorAll('#reasons li')].map((each) => each.textContent);"
        "return found.length && found"
    )
    sequence = columns()[130:150].tolist()
    answer = httpx.post(
        f"{turbofan.url}/explain", json={"sequence": sequence, "grain": "cell"}, timeout=PATIENCE
    ).json()
    effects = np.array(answer["attribution"])
    step, feature = np.unravel_index(np.abs(effects).argmax(), effects.shape)
    name = json.loads(TURBOFAN.with_suffix(".card.json").read_text())["features"][feature]["name"]
    assert len(reasons) == 10
    assert f" points from {name} " in reasons[0]
    assert f"at row {131 + step}: " in reasons[0]
    told = float(reasons[0].split()[0].replace("\N{MINUS SIGN}", "-"))
    np.testing.assert_allclose(told, 100 * effects[step, feature], atol=0.0501)
    assert f", compared with {answer['baseline']['values'][feature]:.4g}" in reasons[0]
    how = browser.run("return document.querySelector('#why-how').textContent")
    base, score = (float(found) for found in re.findall(r"[\d.]+(?= %)", how))
    np.testing.assert_allclose(
        [base, score], 100 * np.array([answer["score"] - effects.sum(), answer["score"]]), atol=0.0501
    )
    sums = browser.run("return [...document.querySelectorAll('#sums li')].map((each) => each.textContent)")
    order = np.argsort(-np.abs(answer["by_feature"]))[:10]
    names = [each["name"] for each in json.loads(TURBOFAN.with_suffix(".card.json").read_text())["features"]]
    assert [said.split()[3] for said in sums] == [names[k] for k in order]
    drawn = browser.run(SAVED % "document.querySelector('#why')")
    assert drawn[0] == "turbofan"
    assert {*sums, *reasons, "speaks for it"} <= {*drawn}, "a picture that is saved says what it is of"


SAVED = """return import('./ui/picture.js').then(({saved}) => {
    const pen = CanvasRenderingContext2D.prototype, {fillText} = pen, said = [];
    pen.fillText = (text) => said.push(text);
    saved(%s, [document.querySelector('#name')]);
    pen.fillText = fillText;
    return said;
})"""
LONG = "a,b,c\n" + "".join(f"{k % 7 / 7},{k % 11 / 11},{k % 13 / 13}\n" for k in range(40))
IDS: Layers = [
    ("Embedding", {"input_dim": 9, "output_dim": 3, "batch_input_shape": [None, 5]}, [numbers(9, 3)]),
    lstm(),
    dense(3, activation="softmax"),
]


def all_numbers(answers: Any) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d[\d.e+-]*", json.dumps(answers, sort_keys=True))]


@pytest.mark.parametrize(
    ("layers", "card", "text", "view"),
    [
        (BINARY, {"classes": ["fine", "worn"], "threshold": 0.4}, LONG, "why"),
        ([lstm(), dense(2)], {}, LONG, "why"),
        (LABELS, {"classes": ["hot", "loud", "slow"]}, LONG, "why"),
        (TAGGER, {"classes": ["on", "off", "idle"]}, LONG, "inside"),
        (IDS, {}, "".join(f"{k % 9},{k % 7},1,2,{k % 5}\n" for k in range(30)), "why"),
    ],
    ids=["binary", "values", "labels", "steps", "ids"],
)
def test_each_kind_of_model_is_drawn(
    browser: Browser, tmp_path: Path, layers: Layers, card: dict[str, Any], text: str, view: str
) -> None:
    model = tmp_path / "m.h5"
    save_sequential(model, layers)
    if card:
        names = {"features": ["a", "b", "c"]}
        (tmp_path / "m.card.json").write_text(json.dumps(card | names))
    with Process(model) as process:
        browser.command("url", url=f"{process.url}/")
        browser.wait_for("return document.querySelector('#expects').textContent !== ''")
        drop(browser, text)
        browser.wait_for("return document.querySelector('#readout').textContent !== ''")
        answers = httpx.post(
            f"{process.url}/predict/series", content=text, headers={"content-type": "text/csv"}, timeout=PATIENCE
        ).json()
        rows, predictions = browser.run(SHOWN % "[shown.data.rows, shown.data.predictions]")
        assert rows == answers["rows"]
        np.testing.assert_allclose(all_numbers(predictions), all_numbers(answers["predictions"]), atol=2e-6)
        browser.click(f"#tab-{view}")
        drawn = {"why": "#reasons li", "inside": "#layers canvas"}[view]
        browser.wait_for(f"return document.querySelector({drawn!r}) !== null")


@contextmanager
def prefixed(port: int) -> Iterator[str]:
    """The address of a proxy that has the service on `port` under /machines/ and takes that off, as nginx does."""

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._forward()

        def do_POST(self) -> None:
            self._forward()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
            pass

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            given = {name: self.headers[name] for name in ("accept", "content-type") if name in self.headers}
            url = f"http://127.0.0.1:{port}{self.path.removeprefix('/machines')}"
            answer = ask(self.command, url, content=body, headers=given)
            if not self.path.startswith("/machines/"):
                answer = httpx.Response(404)
            self.send_response(answer.status_code)
            for name in ("content-type", "content-security-policy"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/machines/"
        finally:
            server.shutdown()
            thread.join()


def test_behind_a_proxy_that_puts_it_under_a_path(browser: Browser, turbofan: Process) -> None:
    with prefixed(turbofan.port) as url:
        browser.command("url", url=f"{url}#example=&row=150&view=why")
        browser.wait_for("return document.querySelector('#reasons li') !== null")
        browser.click("#tab-inside")
        browser.wait_for("return document.querySelector('#layers canvas') !== null")
        browser.command("url", url="about:blank")


# Whether the live picture of rows 0 to 60 is painted at rows 9 and 39, and how many curves its legend has.
PAINTED = """return import('./ui/chart.js').then(({axis}) => {
    const canvas = document.querySelector('#live-answers'), scale = devicePixelRatio;
    const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    const at = (x, y) => 4 * (Math.round(y * scale) * canvas.width + Math.round(x * scale));
    const ink = (x, y) => data.slice(at(x, y), at(x, y) + 3).join();
    const painted = [9, 39].map((row) => ink(axis(canvas.clientWidth, 0, 60).at(row), 20) !== ink(1, 1));
    return [...painted, document.querySelectorAll('#live-legend li').length];
})"""


def test_a_live_series_has_no_hole_after_its_connection_broke(browser: Browser) -> None:
    """Nor is one hidden that there is: of who was away for too long."""
    expected = load_model(TURBOFAN).predict_series(x := columns()[:110])
    rows, numbers = (
        f"return import('./ui/live.js').then(({{live}}) => live.rows{of})" for of in ("", ".map(({number}) => number)")
    )

    with (
        Process(TURBOFAN, LSTMSERVE_API_KEYS=KEY) as process,
        Relay(process.port) as relay,
        httpx.Client(base_url=process.url, headers={"authorization": f"Bearer {KEY}"}, timeout=PATIENCE) as device,
    ):

        def send(first: int, stop: int) -> None:
            for k in range(first, stop):
                device.post("/series/pump/rows", json={"rows": [x[k].tolist()], "seq": k}).raise_for_status()

        def seen(row: int) -> None:
            browser.wait_for(f"return document.querySelector('#live-said').textContent.startsWith('Row {row}: ')")

        send(0, 10)
        browser.command("url", url=f"http://127.0.0.1:{relay.port}/#view=live&series=pump")
        browser.wait_for("return !document.querySelector('#ask').hidden")
        browser.run(f"document.querySelector('#key').value = {KEY!r}; document.querySelector('#ask').requestSubmit()")
        seen(9)
        assert "more rows are needed" in browser.run("return document.querySelector('#live-said').textContent")
        send(10, 40)
        seen(39)
        relay.cut()
        send(40, 60)
        relay.mend()
        send(60, 61)
        seen(60)
        browser.wait_for("return /^It came \\d+ s ago/.test(document.querySelector('#live-age').textContent)")
        found = browser.run(rows)
        assert [row["number"] for row in found] == list(range(61))
        np.testing.assert_allclose([row["row"] for row in found], x[:61], rtol=1e-6)
        assert [row["answer"] for row in found[:19]] == [None] * 19
        np.testing.assert_allclose([row["answer"]["probabilities"] for row in found[19:]], expected[:42], atol=2e-6)
        assert browser.run(PAINTED) == [False, True, 5]
        relay.cut()
        send(61, 110)
        relay.mend()
        seen(109)
        assert browser.run(numbers) == [*range(61), 60.5, *range(89, 110)]
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        relay.cut()
        device.delete("/series/pump").raise_for_status()
        send(0, 30)  # another one of its name
        relay.mend()
        seen(29)
        assert browser.run(numbers) == [*range(30)]
        device.delete("/series/pump").raise_for_status()
        browser.wait_for("return document.querySelector('#live-said').textContent.startsWith('Ended, ')")
        browser.wait_for("return document.querySelector('#live-age').textContent === ''")
        browser.run(
            "document.querySelector('#series').value = 'other'; document.querySelector('#follow').requestSubmit()"
        )
        browser.wait_for("return document.querySelector('#live-state').textContent.includes('no such series')")
        assert browser.run("return document.querySelector('#live-found').hidden"), "it would seem to be of the other"
        browser.run("location.hash = new URLSearchParams({view: 'live', series: 'no/where'})")
        browser.wait_for("return document.querySelector('#problem').textContent.startsWith('No series can have this')")
        browser.command("url", url="about:blank")  # or it would try again
    assert all("401" in said or "404" in said or "net::ERR" in said for said in browser.complaints())


def test_what_asking_again_does_not_change_is_not_asked_again(browser: Browser, small: Process) -> None:
    text = "document.querySelector('#live-state').textContent"
    state = f"return /follow|again/.test({text}) && {text}"
    browser.command("url", url="about:blank")
    browser.command("url", url=f"{small.url}/#model=free&view=live&series=a")
    assert browser.wait_for(state) == "It is not followed."
    assert "length is free" in browser.run("return document.querySelector('#problem').textContent")
    browser.run('window.fetch = async () => new Response(\'{"detail": "Why."}\', {status: window.said})')
    for said in (400, 409, 422, 501, 429, 503):
        browser.run(
            f"""window.said = {said}; {text} = ''; document.querySelector('#series').value = 's{said}';
            document.querySelector('#follow').requestSubmit();"""
        )
        assert browser.wait_for(state) == ("Why. It is tried again." if said in {429, 503} else "It is not followed.")
    browser.command("url", url="about:blank")
    assert all("409" in complaint for complaint in browser.complaints())


def test_a_series_that_has_ended_does_not_go_on_as_the_next_of_its_name(browser: Browser, small: Process) -> None:
    browser.command("url", url="about:blank")
    browser.command("url", url=f"{small.url}/#model=values&view=live")
    browser.wait_for("return !document.querySelector('#live').hidden")
    told = [f'id: {k}\ndata: {{"row": [1, 2, 3], "answer": null, "missing": 5}}\n\n' for k in (1, 2, 7)]
    streams = json.dumps([f"{told[0]}{told[1]}event: end\ndata: {{}}\n\n", told[2]])
    browser.run(
        f"""const streams = {streams}; window.fetch = async () => new Response(streams.shift() ?? '', {{status: 200}});
        document.querySelector('#series').value = 'a'; document.querySelector('#follow').requestSubmit();"""
    )
    browser.wait_for("return document.querySelector('#live-said').textContent.startsWith('Row 7: ')")
    numbers = browser.run("return import('./ui/live.js').then(({live}) => live.rows.map(({number}) => number))")
    assert numbers == [7]
    browser.command("url", url="about:blank")


def test_what_is_watched_is_what_drift_answers(browser: Browser) -> None:
    """What is off comes first; without data on the page, in the width of a phone, and anew by itself."""
    x = np.tile(columns(), (5, 1))[: 1000 + 19]
    with (
        Process(TURBOFAN, LSTMSERVE_DRIFT_ROWS="1000") as process,
        httpx.Client(base_url=process.url, timeout=PATIENCE) as client,
    ):
        browser.command("url", url=f"{process.url}/#view=watch")
        browser.wait_for("return document.querySelectorAll('#watched canvas').length === 17")
        assert "nothing is judged" in browser.run("return document.querySelector('#watch-said').textContent")
        x[:, 4] = 553.0  # P30 is stuck
        for _ in range(2):
            client.post("/predict/series", json={"series": x.tolist()}).raise_for_status()
        found = client.get("/drift").json()
        browser.wait_for("return document.querySelector('#watch-said').className.includes('drifted')")
        told = browser.run(
            "return [...document.querySelectorAll('#watched figcaption')].map((each) => each.textContent)"
        )
        off = {
            of["name"]: max(
                of["psi"] / of["psi_limit"], (of["wasserstein_sd"] or 0) / (of["wasserstein_sd_limit"] or 1)
            )
            for of in found["features"]
            if of["state"] == "drifted"
        }
        drifted = sorted(off, key=off.__getitem__, reverse=True)
        assert "P30" in drifted
        assert "of 0-29 cycles left, 30-59" in browser.run(
            """return [...document.querySelectorAll('#watched canvas')].at(-2).getAttribute('aria-label')"""
        )
        assert [caption.split()[0] for caption in told[: len(drifted)]] == drifted
        (p30,) = (caption for caption in told if caption.startswith("P30 (psia) drifted PSI "))
        (of,) = (of for of in found["features"] if of["name"] == "P30")
        np.testing.assert_allclose(float(p30.split()[4]), of["psi"], rtol=1e-3)
        browser.command("window/rect", width=360, height=900)
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        browser.command("window/rect", width=1200, height=1600)
        browser.run(
            "document.querySelector('#tab-watch').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft'}))"
        )
        assert browser.run("return document.querySelector('#watch').hidden")


def test_a_model_that_is_not_watched_says_how_it_would_be(browser: Browser, tmp_path: Path) -> None:
    shutil.copy(TURBOFAN, tmp_path / "m.h5")
    with Process(tmp_path / "m.h5") as process:
        browser.command("url", url=f"{process.url}/#view=watch")
        told = browser.wait_for("return document.querySelector('#problem').textContent")
        assert "lstm-serve profile m.h5 TRAIN.csv" in told
        browser.click("#tab-try")
        browser.wait_for("return document.querySelector('#problem').hidden")
    assert all("404" in said for said in browser.complaints())
