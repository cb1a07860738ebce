"""A scrape is read whole by everybody, and has what it asked for."""

import gzip
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families as text

from exporter.core.health import Readiness
from exporter.web.application import WebContext, application
from tests.core.sample_account import ODD
from tests.exposition.page_fixture import PageFixture
from tests.programs import required
from tests.simulator.served_app import served


@pytest.fixture
def page():
    return PageFixture()


@contextmanager
def serving(page: PageFixture) -> Iterator[str]:
    shown = WebContext(page.page, lambda: Readiness(1, 1))
    with served(application(shown)) as url:
        yield f"{url}/metrics"


@pytest.fixture
def large(page):
    page.publish(counts={(f"{n}", "en", ODD, "failed"): n for n in range(2000)})
    return page


def whole(page: PageFixture) -> bytes:
    return b"".join(page.render().text.plain)


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
    shown = got.stdout
    assert shown.count("cartesia_fine_tunes{") == 2000, got.stderr[-2000:]
    assert "cartesia_exporter_polls_total 0.0" in shown


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
def test_gzip_is_sent_only_to_who_takes_it(page, accepted, encoding):
    page.publish()
    with serving(page) as url, httpx.Client(trust_env=False) as client:
        request = client.build_request("GET", url, headers={"Accept-Encoding": accepted})
        answer = client.send(request, stream=True)
        raw = b"".join(answer.iter_raw())
        answer.close()
    assert answer.headers.get("content-encoding") == encoding
    assert answer.headers["vary"] == "Accept, Accept-Encoding"
    assert int(answer.headers["content-length"]) == len(raw)
    assert (gzip.decompress(raw) if encoding else raw) == whole(page)


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
def test_a_filter_shows_these_names_alone(page, asked, found, accept):
    page.publish()
    with serving(page) as url, httpx.Client(trust_env=False) as client:
        answer = client.get(url, params={"name[]": asked}, headers={"Accept": accept})
        head = client.head(url, params={"name[]": asked}, headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(accept)
    # A part of a histogram is no histogram: what reads OpenMetrics strictly refuses it.
    plain = answer.text.removesuffix("# EOF\n")
    assert answer.text.endswith("# EOF\n") == (accept != "text/plain")
    assert {s.name for family in text(plain) for s in family.samples} == found
    assert head.headers["content-length"] == answer.headers["content-length"]


def test_a_filter_shows_no_data_series_that_is_too_old(page):
    page.publish(stale_at=page.now)
    with serving(page) as url:
        answer = httpx.get(url, params={"name[]": "cartesia_fine_tunes"}, trust_env=False)
    assert answer.text == ""
