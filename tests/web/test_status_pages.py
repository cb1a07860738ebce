"""The front page: the state of each account, and nothing that an account's text could do."""

import re
from html.parser import HTMLParser

from exporter import __version__
from exporter.core.view import AccountStatus
from exporter.web.status_pages import front_page
from tests.web.test_application import HOSTILE, page, shown, view


class Cells(HTMLParser):
    """The rows of the table, and every tag of the page; raises for what is not well nested."""

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


def test_each_account_has_a_row_with_its_state_and_counts():
    views = [
        view(),
        view(account="broken", up=False, failure="rate_limited"),
        AccountStatus("new"),
        AccountStatus("refused", up=False, polled_at=1.0, failure="unauthorized"),
        view(account="old", up=False, failure="timeout", stale_at=50.0),
    ]
    head, *rows = Cells(front_page(views, "/metrics", 50.0)).rows
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


def test_no_text_becomes_markup():
    hostile = view(account=HOSTILE, up=False, failure=HOSTILE)
    cells = Cells(front_page([hostile], f'/x"><script>{HOSTILE}', 0.0))
    assert "script" not in cells.tags
    assert cells.rows[1][0] == HOSTILE


def test_no_script_could_run_if_some_did():
    answer = page("GET", "/", shown())
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_says_what_it_is_and_leads_on():
    shown_page = page("GET", "/", shown()).text
    assert "Counts the fine-tunes of Cartesia accounts" in shown_page
    assert f"Version {__version__}" in shown_page
    links = re.findall('href="([^"]+)"', shown_page)
    assert links == ["/metrics", "/config", "/-/healthy", "/-/ready"]
    for link in links:
        assert page("GET", link, shown()).status_code == 200
