"""Draw the pictures of the page for the docs: `make screenshots` writes docs/page.png and docs/page-why.png.

With a folder as argument, each view there at 1280 and 360 pixels, in the light and in the dark: to be looked at.
"""

import sys
import tempfile
from pathlib import Path

from browser import Browser, opened
from serving import ROOT, Process

DOCS = ROOT / "docs"
VIEWS = ("try", "why", "inside", "watch")
DRAWN = {
    "try": "document.querySelector('#legend li')",
    "why": "document.querySelector('#reasons li')",
    "watch": "document.querySelector('#watched canvas')",
    "inside": "document.querySelector('#layers canvas')",
}
ROW = 190
DARK = ("--blink-settings=preferredColorScheme=0",)


def draw(browser: Browser, url: str, view: str, path: Path, *, width: int = 1280, height: int = 1000) -> None:
    browser.command("window/rect", width=width, height=height)
    browser.command("url", url="about:blank")
    browser.command("url", url=f"{url}/#example=&row={ROW}&view={view}")
    browser.wait_for(f"return {DRAWN[view]} !== null")
    browser.picture(path)


def main() -> None:
    with Process(ROOT / "models" / "turbofan.h5") as process, tempfile.TemporaryDirectory() as folder:
        if not sys.argv[1:]:
            with opened(Path(folder)) as browser:
                draw(browser, process.url, "try", DOCS / "page.png")
                draw(browser, process.url, "why", DOCS / "page-why.png", height=1400)
            return
        for dark in (False, True):
            with opened(Path(folder) / str(dark), *DARK[:dark]) as browser:
                for view in VIEWS:
                    for width in (1280, 360):
                        name = f"{view}-{width}-{'dark' if dark else 'light'}.png"
                        draw(browser, process.url, view, Path(sys.argv[1]) / name, width=width, height=1400)


if __name__ == "__main__":
    main()
