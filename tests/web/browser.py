"""Chromium for tests, and what a page must never do in it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from exporter.web.templating import ASSETS, read_asset
from tests.programs import required

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--no-proxy-server",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium."""
    program = required("chromium", package="chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser, url: str, *, allowed: Sequence[str] = (), **options: Any
) -> Iterator[Page]:
    """Open a page; at the end fail for each message in its console and each foreign request.

    A message with a text in ``allowed`` is none.
    """
    context = browser.new_context(**options)
    page = context.new_page()
    refresh_often(page)
    problems: list[str] = []
    origin = "/".join(url.split("/")[:3])

    def check_request(request: Any) -> None:
        if not f"{request.url}/".startswith(f"{origin}/"):
            problems.append(f"request to {request.url}")

    def check_message(message: Any) -> None:
        if not any(text in message.text for text in allowed):
            problems.append(f"console: {message.text}")

    page.on("console", check_message)
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("request", check_request)
    try:
        page.goto(url)
        yield page
        assert problems == []
    finally:
        context.close()


def refresh_often(page: Page) -> None:
    """Let the script of the page refresh it every 2 s, so that tests need not wait."""

    text = read_asset("script.js").decode()
    assert "REFRESH_MS = 5000" in text
    shortened = text.replace("REFRESH_MS = 5000", "REFRESH_MS = 2000")
    kind = ASSETS["script.js"]
    page.route(
        "**/static/script.js*", lambda route: route.fulfill(body=shortened, content_type=kind)
    )


def violations(page: Page) -> list[str]:
    """Return what axe-core finds wrong with a page, with the elements."""
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]
