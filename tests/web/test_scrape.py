"""A scrape: every client decodes the whole page, and selects samples by name."""

import gzip
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.core.health import Readiness
from exporter.web.application import Application, WebContext
from tests.core.sample_account import ODD
from tests.exposition.page_fixture import PageFixture
from tests.process.agent_process import NO_AUTHORITIES
from tests.programs import required
from tests.simulator.served_app import served


@pytest.fixture
def page():
    return PageFixture()


@pytest.fixture
def large_page(page):
    page.publish(counts={(f"{n}", "en", ODD, "failed"): n for n in range(2000)})
    return page


@contextmanager
def serving(page: PageFixture) -> Iterator[str]:
    with served(Application(WebContext(page.page, lambda: Readiness(1, 1)))) as url:
        yield f"{url}/metrics"


def plain_text(page: PageFixture) -> bytes:
    return b"".join(page.render().text.plain)


def test_httpx_decodes_the_whole_page(large_page):
    with serving(large_page) as url:
        answer = httpx.get(url, verify=NO_AUTHORITIES, trust_env=False)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == plain_text(large_page)


def test_curl_decodes_the_whole_page(large_page):
    with serving(large_page) as url:
        command = [required("curl", package="curl"), "--silent", "--compressed", "--noproxy", "*"]
        done = subprocess.run([*command, url], capture_output=True, check=True, timeout=30)
    assert done.stdout == plain_text(large_page)


def test_a_browser_decodes_the_whole_page(large_page, tmp_path):
    program = required("chromium", package="chromium")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-proxy-server"]
    with serving(large_page) as url:
        done = subprocess.run(
            [program, *flags, f"--user-data-dir={tmp_path}", "--dump-dom", url],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert done.stdout.count("cartesia_fine_tunes{") == 2000, done.stderr[-2000:]
    assert "cartesia_exporter_polls_total 0.0" in done.stdout


def test_gzip_is_used_only_if_accepted_and_not_less_preferred(page):
    page.publish()
    with serving(page) as url, httpx.Client(verify=NO_AUTHORITIES, trust_env=False) as client:
        for accepted, encoding in (
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
        ):
            request = client.build_request("GET", url, headers={"Accept-Encoding": accepted})
            answer = client.send(request, stream=True)
            raw = b"".join(answer.iter_raw())
            answer.close()
            assert answer.headers.get("content-encoding") == encoding, accepted
            assert answer.headers["vary"] == "Accept, Accept-Encoding"
            assert int(answer.headers["content-length"]) == len(raw)
            assert (gzip.decompress(raw) if encoding else raw) == plain_text(page)


DURATION = "cartesia_fine_tune_status_duration_seconds"


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
def test_name_parameters_select_samples_and_families(page, accept):
    page.publish()
    with serving(page) as url, httpx.Client(verify=NO_AUTHORITIES, trust_env=False) as client:
        for names, expected in (
            (["cartesia_up"], {"cartesia_up"}),
            (
                ["cartesia_up", "cartesia_exporter_polls_total", "nonsense"],
                {"cartesia_up", "cartesia_exporter_polls_total"},
            ),
            ([f"{DURATION}_count"], {f"{DURATION}_count"}),
            ([DURATION], {f"{DURATION}_{suffix}" for suffix in ("bucket", "count", "sum")}),
            (["cartesia_fine_tunes"], {"cartesia_fine_tunes"}),
            (["nonsense"], set()),
            (["\x00\n"], set()),
        ):
            answer = client.get(url, params={"name[]": names}, headers={"Accept": accept})
            head = client.head(url, params={"name[]": names}, headers={"Accept": accept})
            assert answer.headers["content-type"].startswith(accept)
            # Not the parser of OpenMetrics: it refuses a histogram that has only some samples.
            plain = answer.text.removesuffix("# EOF\n")
            assert answer.text.endswith("# EOF\n") == (accept != "text/plain")
            assert {s.name for family in parse_text(plain) for s in family.samples} == expected
            assert head.headers["content-length"] == answer.headers["content-length"]


def test_selected_samples_are_never_stale(page):
    page.publish(stale_at=page.now)
    with serving(page) as url:
        answer = httpx.get(
            url, params={"name[]": "cartesia_fine_tunes"}, verify=NO_AUTHORITIES, trust_env=False
        )
    assert answer.text == ""
