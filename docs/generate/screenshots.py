"""Makes docs/overview.png, story.png and notifications.png: pages of the demo in Chromium.

Needs Debian's package `chromium`. Run by `make screenshots`.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Final

from playwright.sync_api import Page, sync_playwright

FOLDER: Final = Path(__file__).parent.parent
MOST_BYTES: Final = 150_000
_WIDTH: Final = 1280
_FLAGS: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-lcd-text",  # grey edges of letters compress better than coloured ones
]


@contextmanager
def demo() -> Iterator[str]:
    """Run the demo until its first failure was delivered; yield the URL of the agent's pages."""
    command = [sys.executable, "-m", "exporter", "demo"]
    with subprocess.Popen(  # noqa: S603 - a constant command
        command, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = ""
        try:
            for line in process.stdout:
                if line.startswith("Agent "):
                    url = line.split()[1]
                if "ALERT" in line and "webhook" in line:
                    break
            else:
                raise SystemExit("screenshots: the demo ended before a failure was delivered")
            yield url
        finally:
            process.send_signal(signal.SIGINT)
            process.stdout.read()


def capture(page: Page, name: str, height: int) -> None:
    """Write the upper ``height`` pixels of a page to a file; exit if it becomes too large."""
    page.wait_for_load_state("networkidle")
    height = min(height, page.evaluate("document.documentElement.scrollHeight"))
    path = FOLDER / name
    page.screenshot(
        path=path, full_page=True, clip={"x": 0, "y": 0, "width": _WIDTH, "height": height}
    )
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"screenshots: {path} has {size:,} bytes, more than {MOST_BYTES:,}")
    print(f"{path.relative_to(FOLDER.parent)}: {size:,} bytes")  # noqa: T201


def main() -> None:
    """Make the three pictures."""
    program = which("chromium")
    if program is None:
        raise SystemExit("screenshots: no chromium; on Debian: apt-get install chromium")
    with demo() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_FLAGS)
        page = browser.new_page(
            viewport={"width": _WIDTH, "height": 800}, color_scheme="light", timezone_id="UTC"
        )
        page.goto(f"{url}?range=7d")
        capture(page, "overview.png", 800)
        page.goto(f"{url}notifications")
        capture(page, "notifications.png", 800)
        page.goto(f"{url}fine-tunes?q=Giulia%2C+news+desk&status=failed")
        page.locator("#list a.name").first.click()
        capture(page, "story.png", 900)
        browser.close()


if __name__ == "__main__":
    main()
