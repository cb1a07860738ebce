"""The page is rendered where it changed, ages by itself, and is read whole by everybody."""

import asyncio
import gzip
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.parser import text_string_to_metric_families as text

from exporter.core.readiness import Readiness
from exporter.web import page as page_module
from exporter.web.application import Shown, application
from exporter.web.page import Bodies, Page, Renderer
from exporter.web.views import Views
from tests.core.everything import EVERYTHING, ODD
from tests.programs import required
from tests.simulator.live import served


class Desk:
    """A renderer of views and a registry under a test's control, and a clock that is held."""

    def __init__(self) -> None:
        self.now = 100.0
        self.registry = CollectorRegistry()
        self.counter = Counter("cartesia_exporter_polls", "Polls.", registry=self.registry)
        self.process = Gauge("process_open_fds", "Always another.", registry=self.registry)
        self.views = Views()
        self.renderer = Renderer(self.registry, self.views.newest, lambda: self.now)
        self.page = Page(self.renderer)

    def publish(self, **fields) -> None:
        self.views.publish(replace(EVERYTHING, **fields))

    def render(self) -> Bodies:
        return self.renderer.render()


def names(content: bytes) -> set[str]:
    return {s.name for family in text(content.decode()) for s in family.samples}


@pytest.fixture
def desk():
    return Desk()


def test_what_did_not_change_is_not_rendered_again(desk):
    desk.publish()
    first = desk.render()
    assert desk.render() is first
    desk.counter.inc()
    second = desk.render()
    assert second is not first
    assert second.text.plain[0] is first.text.plain[0]
    assert second.text.gzipped[0] is first.text.gzipped[0]
    assert b"cartesia_exporter_polls_total 1.0\n" in second.text.plain[1]


def test_data_series_are_rendered_again_only_when_one_of_them_changed(desk):
    desk.publish()
    first = desk.render()
    desk.publish(polled_at=EVERYTHING.polled_at + 60, up=False)
    second = desk.render()
    assert second.text.plain[0] is first.text.plain[0]
    assert b'cartesia_up{account="default"} 0.0\n' in second.text.plain[1]
    desk.publish(oldest={"training": 5.0})
    assert desk.render().text.plain[0] != first.text.plain[0]


def test_both_formats_have_the_same_data_series_and_openmetrics_alone_has_an_end(desk):
    desk.publish()
    found = desk.render()
    assert found.text.plain[0] is found.openmetrics.plain[0]
    assert b"".join(found.openmetrics.plain).count(b"\n# EOF\n") == 1
    assert b"".join(found.openmetrics.plain).endswith(b"\n# EOF\n")
    assert b"\n# EOF" not in b"".join(found.text.plain)


def test_figures_of_the_process_alone_are_renewed_once_a_second(desk):
    desk.publish()
    first = desk.render()
    desk.process.set(7)
    desk.now += 0.9
    assert desk.render() is first
    desk.now += 0.1
    assert b"process_open_fds 7.0\n" in desk.render().text.plain[1]


def test_data_series_disappear_and_come_back_without_a_poll_in_between(desk):
    desk.publish(stale_at=200.0)
    assert "cartesia_fine_tunes" in names(desk.render().text.plain[0])
    desk.now = 200.0
    gone = desk.render()
    assert names(gone.text.plain[0]) == set()
    assert b'cartesia_stale{account="default"} 1.0\n' in gone.text.plain[1]
    desk.publish(stale_at=500.0)
    assert "cartesia_fine_tunes" in names(desk.render().text.plain[0])


def test_one_account_that_is_too_old_takes_only_its_own_series_away(desk):
    desk.publish(account="old", stale_at=200.0)
    desk.publish(account="fresh")
    desk.now = 200.0
    data = desk.render().text.plain[0]
    assert b'account="old"' not in data
    assert b'account="fresh"' in data


def running(desk: Desk, test) -> None:
    """Run a test beside the part that renews the page."""

    async def run() -> None:
        stop = asyncio.Event()
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(desk.page.run(stop))
            try:
                await test()
            finally:
                stop.set()

    asyncio.run(run())


def test_the_page_is_renewed_by_itself(desk):
    async def test() -> None:
        first = await desk.page.newest()
        desk.counter.inc()
        while (newest := await desk.page.newest()) is first:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        assert b"cartesia_exporter_polls_total 1.0\n" in newest.text.plain[1]

    running(desk, test)


def test_it_is_looked_four_times_a_second_at_most_and_a_scrape_renders_nothing(desk, monkeypatch):
    assert page_module._TICK_SECONDS == 0.25
    monkeypatch.setattr(page_module, "_TICK_SECONDS", 3600.0)
    renders: list[int] = []
    render = desk.renderer.render

    def noted():
        renders.append(1)
        return render()

    monkeypatch.setattr(desk.renderer, "render", noted)

    async def test() -> None:
        shown = {id(await desk.page.newest()) for _ in range(3)}
        for _ in range(50):
            desk.counter.inc()
            shown.add(id(await desk.page.newest()))
        # One by the part, one for the first scrape, which did not wait for the part.
        assert len(renders) <= 2
        assert len(shown) <= 2

    running(desk, test)


def test_a_view_that_was_just_published_is_on_the_page(desk):
    async def test() -> None:
        for polled_at in range(1, 30):
            desk.publish(polled_at=polled_at)
            shown = await desk.page.newest()
            assert f" {polled_at}.0\n".encode() in shown.text.plain[1]

    running(desk, test)


def test_an_error_while_it_is_rendered_ends_the_part(desk):
    class Broken:
        def collect(self):
            raise ZeroDivisionError

    desk.registry._collector_to_names[Broken()] = []
    with pytest.raises(ExceptionGroup, match="unhandled errors") as caught:
        running(desk, lambda: asyncio.sleep(5))
    assert caught.group_contains(ZeroDivisionError)


@contextmanager
def serving(desk: Desk) -> Iterator[str]:
    shown = Shown(desk.page, lambda: Readiness(1, 1))
    with served(application(shown)) as url:
        yield f"{url}/metrics"


@pytest.fixture
def large(desk):
    desk.publish(counts={(f"{n}", "en", ODD, "failed"): n for n in range(2000)})
    return desk


def whole(desk: Desk) -> bytes:
    return b"".join(desk.render().text.plain)


def test_httpx_reads_the_gzip_whole(large):
    with serving(large) as url:
        answer = httpx.get(url, trust_env=False)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == whole(large)


def test_curl_reads_the_gzip_whole(large):
    with serving(large) as url:
        command = [required("curl", package="curl"), "--silent", "--compressed", "--noproxy", "*"]
        got = subprocess.run([*command, url], capture_output=True, check=True, timeout=30)
    assert got.stdout == whole(large)


def test_a_browser_reads_the_gzip_whole(large, tmp_path):
    program = required("chromium", package="chromium")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-proxy-server"]
    with serving(large) as url:
        got = subprocess.run(
            [program, *flags, f"--user-data-dir={tmp_path}", "--dump-dom", url],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    page = got.stdout
    assert page.count("cartesia_fine_tunes{") == 2000, got.stderr[-2000:]
    assert "cartesia_exporter_polls_total 0.0" in page


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("deflate, GZIP;q=0.5", "gzip"),
        ("*", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=0.000, *", None),
        ("identity, gzip;q=0.5", None),
        ("br, deflate", None),
        ("identity", None),
        ("", None),
        ("gzip;q=oops", None),
    ],
)
def test_gzip_is_sent_only_to_who_takes_it(desk, accepted, encoding):
    desk.publish()
    with serving(desk) as url, httpx.Client(trust_env=False) as client:
        request = client.build_request("GET", url, headers={"Accept-Encoding": accepted})
        answer = client.send(request, stream=True)
        raw = b"".join(answer.iter_raw())
        answer.close()
    assert answer.headers.get("content-encoding") == encoding
    assert answer.headers["vary"] == "Accept, Accept-Encoding"
    assert int(answer.headers["content-length"]) == len(raw)
    assert (gzip.decompress(raw) if encoding else raw) == whole(desk)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["cartesia_up"], {"cartesia_up"}),
        (
            ["cartesia_up", "cartesia_exporter_polls_total", "nonsense"],
            {"cartesia_up", "cartesia_exporter_polls_total"},
        ),
        (
            ["cartesia_fine_tune_status_duration_seconds_count"],
            {"cartesia_fine_tune_status_duration_seconds_count"},
        ),
        (
            ["cartesia_fine_tune_status_duration_seconds"],
            {f"cartesia_fine_tune_status_duration_seconds_{s}" for s in ("bucket", "count", "sum")},
        ),
        (["cartesia_fine_tunes"], {"cartesia_fine_tunes"}),
        (["nonsense"], set()),
        (["\x00\n"], set()),
    ],
)
@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
def test_a_filter_shows_these_names_alone(desk, asked, found, accept):
    desk.publish()
    with serving(desk) as url, httpx.Client(trust_env=False) as client:
        answer = client.get(url, params={"name[]": asked}, headers={"Accept": accept})
        head = client.head(url, params={"name[]": asked}, headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(accept)
    # A part of a histogram is no histogram: what reads OpenMetrics strictly refuses it.
    plain = answer.text.removesuffix("# EOF\n")
    assert answer.text.endswith("# EOF\n") == (accept != "text/plain")
    assert {s.name for family in text(plain) for s in family.samples} == found
    assert head.headers["content-length"] == answer.headers["content-length"]


def test_a_filter_shows_no_data_series_that_is_too_old(desk):
    desk.publish(stale_at=desk.now)
    with serving(desk) as url:
        answer = httpx.get(url, params={"name[]": "cartesia_fine_tunes"}, trust_env=False)
    assert answer.text == ""
