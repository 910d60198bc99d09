"""The exported JavaScript in a browser, where there is one and it is asked for: `make exports`."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from exporting import KERAS_PYTHON, written

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

PAGE = """<!doctype html>
<pre></pre>
<script type="module">
  const told = document.querySelector("pre");
  const differences = {};
  const flat = (y) => [Array.isArray(y) ? y : Object.values(y)].flat(Infinity);
  try {
    for (const folder of FOLDERS) {
      const { predict } = await import(`./${folder}/model.mjs`);
      const golden = await (await fetch(`./${folder}/model.golden.json`)).json();
      differences[folder] = 0;
      golden.x.forEach((x, k) => {
        const expected = flat(golden.y[k]), units = flat(golden.unit);
        flat(predict(x)).forEach((y, j) => {
          const difference = Math.abs(y - expected[j]) / Math.max(units[j], Math.abs(expected[j]));
          if (!(difference <= differences[folder])) differences[folder] = difference;
        });
      });
    }
    told.textContent = JSON.stringify(differences);
  } catch (error) {
    told.textContent = String(error);
  }
</script>
"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base has it
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The files of a folder, at an address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(KERAS_PYTHON is None, reason="it takes a browser: make exports")
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
def test_a_browser_answers_as_keras_did(tmp_path: Path) -> None:
    folders = [path.name for _, path, _ in written("js", tmp_path, every=8)]
    (tmp_path / "page.html").write_text(PAGE.replace("FOLDERS", json.dumps(folders)), "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    with served(tmp_path) as address:
        command = [str(BROWSER), *flags, "--virtual-time-budget=60000", "--dump-dom", f"{address}/page.html"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    told = done.stdout.partition("<pre>")[2].partition("</pre>")[0]
    assert told.startswith("{"), told or done.stderr[-500:]
    differences = json.loads(told)
    assert list(differences) == folders
    assert {folder: difference for folder, difference in differences.items() if not difference <= 1e-5} == {}
