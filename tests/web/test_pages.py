"""The pages: headers, hostile and long texts, links, filters, and a store that cannot be read."""

import asyncio
import json
import re
import threading
from html import unescape
from html.parser import HTMLParser
from subprocess import run
from urllib.parse import urljoin

import httpx
import pytest
from msgspec.structs import replace

from exporter.core.links import fine_tune_path
from exporter.store import reader as reading
from exporter.store.errors import StoreError
from exporter.web.application import Application
from tests.programs import required
from tests.simulator.served_app import served
from tests.web.stored_pages import NOW, StoredPages, after_a_failure, fine_tune, stored_pages

pytestmark = pytest.mark.anyio

PAGES = ("/", "/fine-tunes", "/fine-tunes/main/ada", "/notifications", "/config")
CSP = {
    "default-src": "'none'",
    "style-src": "'self'",
    "script-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe\u2066",
    "nul \0 nul",
    "\\udc80 as stored",
    "👩‍🔬 emoji",
    "line\nbreak\r\nand\ttab",
    "x" * 10_000,
]
IDS = [
    "a/b", "/a", "a/", "a//b", "../../etc", "..", ".", "a/../b", "a%2Fb", "a%b", "%", "%23", "#",
    "a#b", "a%23b", "?", "a?b=c", "a&b", "a b", " ", "+", "a+b", "line\nbreak", "\r", "nul\0",
    "\u202ertl", "é", "👩‍🔬", "<script>", '"', "'", "a;b", "a:b", "a\\b", "x" * 10_000, "retry",
    "\u2028", "static/style.css", "~", "a@b",
]  # fmt: skip


async def html(pages: StoredPages, path: str) -> str:
    answer = await pages.get(path, accept="text/html")
    assert answer.status_code == 200, (path, answer.text)
    return answer.text


def links(text: str) -> list[str]:
    return [unescape(each) for each in re.findall(r'<a [^>]*?href="([^"]*)"', text)]


def attributes(text: str) -> set[str]:
    """Return the names of all attributes of a page, as a browser reads them."""
    found: set[str] = set()

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.update(name for name, _ in attrs)

    Parser().feed(text)
    return found


@pytest.mark.parametrize("path", [*PAGES, "/none", "/fine-tunes/main/none", "/fine-tunes?q=1&q=2"])
async def test_every_page_has_the_headers_that_keep_it_safe(path, tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        answer = await pages.get(path, accept="text/html")
        head = await pages.request("HEAD", path, headers={"accept": "text/html"})
    policy = dict(
        each.strip().split(" ", 1) for each in answer.headers["content-security-policy"].split(";")
    )
    assert policy == CSP
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    if answer.status_code == 200:
        assert answer.headers["cache-control"] == "private, no-cache"
        assert "Authorization" in answer.headers["vary"]
    else:
        assert answer.headers["cache-control"] == "no-store"
    assert head.status_code == answer.status_code
    assert head.headers.get("etag") == answer.headers.get("etag")


@pytest.mark.parametrize("path", PAGES)
async def test_no_page_has_an_inline_script_or_style(path, tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        text = await html(pages, path)
    assert re.findall(r"<script[^>]*>[^<]", text) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", text) == []
    assert not re.search(r"""(?:src|href|action)=["'](?:https?:)?//(?!play\.cartesia\.ai)""", text)


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_304_until_something_changes(path, tmp_path):
    async with after_a_failure(tmp_path) as pages:
        first = await pages.get(path, accept="text/html")
        etag = first.headers["etag"]
        headers = {"accept": "text/html", "If-None-Match": f'"other", {etag}'}
        again = await pages.request("GET", path, headers=headers)
        await pages.poll(fine_tune("new", "created"), at=NOW - 1)
        changed = await pages.request("GET", path, headers=headers)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert again.headers["content-security-policy"] == first.headers["content-security-policy"]
    assert changed.status_code == 200


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_texts_are_text_on_every_page(name, tmp_path):
    texts = {"name": name, "dataset": name, "model_id": name, "description": name}
    async with stored_pages(tmp_path) as pages:
        await pages.poll(fine_tune("x", "training", **texts), at=NOW - 100)
        odd = fine_tune("odd", name, **texts)
        await pages.poll(fine_tune("x", "failed", **texts), odd, at=NOW - 50)
        paths = ("/", "/fine-tunes", "/notifications", "/fine-tunes/main/x", "/fine-tunes/main/odd")
        shown = [await html(pages, path) for path in paths]
        served = (await pages.json("/fine-tunes/main/x"))["data"]["fine_tune"]
    for text in shown:
        assert "<script>alert" not in text
        assert "<img" not in text
        assert not any(name.startswith("on") for name in attributes(text))
        assert len(text) < 120_000
    assert served["name"] == name
    title = shown[3].split("<title>")[1].split("</title>")[0]
    assert not {*title} & {*"\u202e\u2066\0\n"}


async def test_texts_of_a_megabyte_do_not_make_a_page_of_a_megabyte(tmp_path):
    huge = "w" * 1_000_000
    texts = {"name": huge, "dataset": huge, "model_id": huge, "description": huge}
    async with stored_pages(tmp_path) as pages:
        await pages.poll(fine_tune("x", "training", **texts), at=NOW - 100)
        odd = [fine_tune(f"odd{n}", huge, language=huge, **texts) for n in range(3)]
        await pages.poll(fine_tune("x", "failed", **texts), *odd, at=NOW - 50)
        paths = (
            "/",
            "/fine-tunes",
            "/notifications",
            "/fine-tunes/main/x",
            "/fine-tunes/main/odd1",
        )
        for path in paths:
            assert (path, len(await html(pages, path)) < 100_000) == (path, True)


async def test_every_fine_tune_is_reached_by_the_links_of_the_pages(tmp_path):
    async with stored_pages(tmp_path) as pages:
        await pages.poll(
            *(fine_tune(each, "training", name=f"n{at}") for at, each in enumerate(IDS)),
            at=NOW - 50,
        )
        with served(Application(pages.context())) as url:
            found: dict[str, str] = {}
            path, pages_read = "/fine-tunes?sort=name", 0
            while path:
                pages_read += 1
                assert pages_read <= len(IDS)
                text = await fetched(f"{url}{path}")
                for link in links(text):
                    if link.startswith("/fine-tunes/"):
                        story = await fetched(urljoin(url, link))
                        name = story.split("<h1><bdi>")[1].split("<")[0]
                        [api] = [e for e in links(story) if e.startswith("/api/v1/")]
                        answer = json.loads(await fetched(urljoin(url, api)))
                        assert answer["data"]["fine_tune"]["name"] == name
                        found[answer["data"]["fine_tune"]["id"]] = name
                path = next(iter(re.findall(r'href="([^"]*)" rel="next"', text)), "")
                path = unescape(path)
    assert found == {each: f"n{at}" for at, each in enumerate(IDS)}


async def fetched(url: str) -> str:
    """Return what curl gets: it resolves dots in a path as a browser does."""
    curl = required("curl", package="curl")
    command = [curl, "-sf", "--noproxy", "*", "--globoff", "--max-time", "20", url]
    done = await asyncio.to_thread(run, command, capture_output=True, check=False)
    assert done.returncode == 0, url[:200]
    return done.stdout.decode()


async def test_kept_pages_are_not_mixed_up_and_bounded(tmp_path):
    ids = ["a#b", "a%23b", "a?b", "a%3Fb", *(f"x{n}" for n in range(40))]
    async with stored_pages(tmp_path) as pages:
        await pages.poll(*(fine_tune(each, "training") for each in ids), at=NOW - 50)
        app = Application(pages.context())
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
            for each in ids * 2:
                text = (await client.get(fine_tune_path("main", each))).text
                assert f"<code>{each}</code>" in text
            host = await client.get(
                "/config", headers={"accept": "text/html", "host": "evil.example"}
            )
            own = await client.get("/config", headers={"accept": "text/html"})
    assert "evil.example" in host.text
    assert "evil.example" not in own.text


async def test_more_failures_than_fit_are_behind_a_link(tmp_path):
    async with stored_pages(tmp_path) as pages:
        everything = [fine_tune(f"f{n:02}", "training") for n in range(37)]
        await pages.poll(*everything, at=NOW - 80_000)
        everything[:12] = [fine_tune(f"f{n:02}", "failed") for n in range(12)]
        await pages.poll(*everything, at=NOW - 7200)
        everything[12:] = [fine_tune(f"f{n:02}", "failed") for n in range(12, 37)]
        await pages.poll(*everything, at=NOW - 60)
        text = await html(pages, "/?range=24h")
        more = re.findall(r'<a href="([^"]*)">(\d+) more</a>', text)
        every = await html(pages, unescape(more[0][0]))
    rows = re.findall(r'<li class="fail( new)?" id="e-', text)
    assert (rows.count(" new"), rows.count("")) == (10, 10)
    assert [number for _, number in more] == ["15", "2"]
    rows = re.findall(r'<li class="fail( new)?" id="e-', every)
    assert (rows.count(" new"), rows.count("")) == (25, 12)
    assert " more</a>" not in every
    assert "(37) Overview" in text


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        ("/fine-tunes?status=failed", {"ada", "odd"}),
        ("/fine-tunes?status=unknown", {"new"}),
        ("/fine-tunes?status=exploded", {"odd"}),
        ("/fine-tunes?status=stuck", {"slow"}),
        ("/fine-tunes?status=removed", {"gone"}),
        ("/fine-tunes?status=none-such", set()),
    ],
)
async def test_lists_by_label_status_and_condition(path, ids, tmp_path):
    async with stored_pages(tmp_path) as pages:
        pages.failed_statuses = frozenset({"exploded"})
        now_there = [
            fine_tune("ada", "training"), fine_tune("odd", "training"),
            fine_tune("new", "warming up"), fine_tune("slow", "training"),
        ]  # fmt: skip
        await pages.poll(*now_there, fine_tune("gone", "completed"), at=NOW - 9000)
        now_there[:2] = [fine_tune("ada", "failed"), fine_tune("odd", "exploded")]
        for seconds in (5000, 4000, 100, 50):
            await pages.poll(*now_there, at=NOW - seconds)
        text = await html(pages, path)
        answer = await pages.json(path)
    shown = set(re.findall(r'<span class="id">([^<]*)</span>', text))
    assert shown == {each["id"] for each in answer["data"]} == ids


@pytest.mark.parametrize(
    ("query", "page", "api"),
    [
        ("starting_after=none", 400, 404),
        ("starting_after=x", 400, 400),
        ("starting_after=x&account=a", 200, 200),
        ("starting_after=x&after_account=b", 200, 200),
        ("q=%ff%fe", 200, 200),
        ("q=%00", 200, 200),
        ("q=%ED%A0%80", 200, 200),
        ("account=%F0%9F%91%A9", 200, 200),
        ("%ff=1", 400, 400),
        ("since=-1h", 400, 400),
        ("since=99999999y", 200, 200),
        ("&&&", 200, 200),
        ("status=" + "&status=".join("abcdefghijklmnopqrstu"), 400, 400),
    ],
)
async def test_queries_that_are_odd_get_a_clear_answer(query, page, api, tmp_path):
    async with stored_pages(tmp_path, accounts=["a", "b"]) as pages:
        for account in ("a", "b"):
            await pages.poll(fine_tune("x", "training"), at=NOW - 50, account=account)
        found_page = await pages.get(f"/fine-tunes?{query}", accept="text/html")
        found_api = await pages.get(f"/api/v1/fine-tunes?{query}")
    assert (found_page.status_code, found_api.status_code) == (page, api)
    if page == 400:
        assert "<h1>" in found_page.text
    if api != 200:
        assert found_api.json()["message"]


async def test_completeness_and_age_are_those_of_the_account_that_is_asked_for(tmp_path):
    async with stored_pages(tmp_path, accounts=["a", "b"]) as pages:
        await pages.poll(fine_tune("x", "training"), at=NOW - 50, account="a")
        await pages.poll(fine_tune("x", "training"), at=NOW - 500, account="b")
        pages.statuses["b"] = replace(pages.statuses["b"], up=False, stale_at=-1.0)
        answers = {
            query: await pages.json(f"/fine-tunes{query}")
            for query in ("", "?account=a", "?account=b", "?account=none")
        }
        story = await pages.json("/fine-tunes/b/x")
    found = {query: (each["complete"], each["as_of"]) for query, each in answers.items()}
    assert found == {
        "": (False, "2027-01-15T07:51:40Z"),
        "?account=a": (True, "2027-01-15T07:59:10Z"),
        "?account=b": (False, "2027-01-15T07:51:40Z"),
        "?account=none": (False, None),
    }
    assert (story["complete"], story["as_of"]) == found["?account=b"]


async def test_a_saturated_reader_refuses_pages_and_serves_metrics(tmp_path):
    release = threading.Event()
    async with after_a_failure(tmp_path) as pages:
        waiting = [
            asyncio.create_task(pages.reader.read(lambda _: release.wait(30)))
            for _ in range(reading.MAX_WAITING)
        ]
        try:
            await asyncio.sleep(0)
            for path in ("/", "/fine-tunes", "/notifications", "/api/v1/status", "/api/v1/events"):
                answer = await pages.get(path, accept="text/html")
                assert (path, answer.status_code) == (path, 503)
                assert answer.headers["retry-after"] == "5"
            for path in ("/metrics", "/-/healthy", "/-/ready", "/static/style.css"):
                assert (path, (await pages.get(path)).status_code) == (path, 200)
        finally:
            release.set()
            await asyncio.gather(*waiting)
        assert (await pages.get("/")).status_code == 200


async def test_a_damaged_state_has_a_page_that_says_so(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        with pages.database.write() as connection:
            connection.exec_driver_sql("UPDATE events SET content = x'00'")
        page = await pages.get("/", accept="text/html")
        api = await pages.get("/api/v1/events")
    assert (page.status_code, api.status_code) == (503, 503)
    assert "The state cannot be read" in page.text
    assert api.json()["title"] == "The state cannot be read"


async def test_a_state_that_is_lost_has_a_page_that_says_so(tmp_path, monkeypatch):
    def lost(*_):
        raise StoreError("the file is gone")

    async with after_a_failure(tmp_path) as pages:
        monkeypatch.setattr(pages.reader._engine, "version", lost)
        page = await pages.get("/", accept="text/html")
        metrics = await pages.get("/metrics")
    assert page.status_code == 503
    assert "the file is gone" in page.text
    assert metrics.status_code == 200


async def test_the_next_page_of_notifications_has_the_older_ones(tmp_path):
    async with stored_pages(tmp_path) as pages:
        await pages.poll(at=NOW - 100)
        await pages.poll(*(fine_tune(f"f{n}", "failed") for n in range(25)), at=NOW - 50)
        path, found = "/notifications?receiver=ops", list[str]()
        while path and len(found) < 100:
            text = await html(pages, path)
            found += re.findall(r'<tr role="row" id="d-([^"]*)"', text)
            path = unescape(next(iter(re.findall(r'href="([^"]*)" rel="next"', text)), ""))
    assert len(found) == len({*found}) == 25
