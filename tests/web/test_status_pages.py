"""The status page: one row per account, and all text escaped."""

import re
from html.parser import HTMLParser

from exporter.web.status_pages import status_page

from exporter import __version__
from exporter.core.view import AccountStatus
from tests.web.application_fixture import HOSTILE, request, sample_status, web_context


class ParsedPage(HTMLParser):
    """Rows of the table and all tags of a page. Raises AssertionError for bad nesting."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(markup)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "meta":
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] in {"td", "th"}:
            self.rows[-1][-1] += data


def test_each_account_has_a_row_with_its_last_poll_and_counts():
    statuses = [
        sample_status(),
        sample_status(account="broken", up=False, failure="rate_limited"),
        AccountStatus("new"),
        AccountStatus("refused", up=False, polled_at=1.0, failure="unauthorized"),
        sample_status(account="old", up=False, failure="timeout", stale_at=50.0),
    ]
    head, *rows = ParsedPage(status_page(statuses, "/metrics", 50.0)).rows
    assert head[:3] == ["Account", "Last poll", "Last complete poll"]
    assert head[3:] == ["Created", "Training", "Completed", "Failed", "Unknown"]
    at = "2027-01-15T08:00:00Z"
    assert rows == [
        ["main", "complete", at, "0", "0", "40", "3", "0"],
        ["broken", "failed: rate limited", at, "0", "0", "40", "3", "0"],
        ["new", "not yet", "\u2013", *["\u2013"] * 5],
        ["refused", "failed: unauthorized", "\u2013", *["\u2013"] * 5],
        ["old", "failed: timeout; its data is too old and withheld", at, *["\u2013"] * 5],
    ]


def test_text_is_escaped():
    hostile = sample_status(account=HOSTILE, up=False, failure=HOSTILE)
    page = ParsedPage(status_page([hostile], f'/x"><script>{HOSTILE}', 0.0))
    assert "script" not in page.tags
    assert page.rows[1][0] == HOSTILE


async def test_the_content_security_policy_forbids_scripts():
    answer = await request("GET", "/", web_context())
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_page_has_a_description_and_working_links():
    page = (await request("GET", "/", web_context())).text
    assert "Counts the fine-tunes of Cartesia accounts" in page
    assert f"Version {__version__}" in page
    links = re.findall('href="([^"]+)"', page)
    assert links == ["/metrics", "/config", "/-/healthy", "/-/ready"]
    for link in links:
        assert (await request("GET", link, web_context())).status_code == 200
