"""The pages, asked as scrapers, load balancers and people ask them."""

import asyncio

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

from exporter.core.counters import Counters
from exporter.core.health import Liveness, Readiness
from exporter.core.labels import Labels
from exporter.core.view import AccountStatus
from exporter.exposition.page import Page, Renderer, StatusRegistry
from exporter.web.application import WebContext, application
from tests.web.authenticated_server import PASSWORD, USER, File, ask, hash_of

HOSTILE = "<script>alert(1)</script>&\"'\\\n\u2028"

PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"

OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OLD_OPENMETRICS_TYPE = "application/openmetrics-text; version=0.0.1; charset=utf-8"
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def view(**fields) -> AccountStatus:
    whole = {
        "account": "main",
        "up": True,
        "polled_at": 1_800_000_000.0,
        "succeeded_at": 1_800_000_000.0,
        "labels": Labels(("sonic", HOSTILE)),
        "counts": {("sonic", "failed"): 2, (HOSTILE, "failed"): 1, ("sonic", "completed"): 40},
        "counters": Counters({(HOSTILE, "training", "failed"): 1}, {}),
    }
    return AccountStatus(**{**whole, **fields})


def page(method: str, path: str, shown: WebContext, *accept: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(application(shown))
        async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
            client.headers.pop("accept")
            headers = [("Accept", value) for value in accept]
            return await client.request(method, path, headers=headers)

    return asyncio.run(ask())


def shown(*given: AccountStatus, **fields) -> WebContext:
    registry, views = CollectorRegistry(), StatusRegistry()
    for each in given or (view(),):
        views.publish(each)
    Gauge("hostile", HOSTILE, ("value",), registry=registry).labels(HOSTILE).set(1)
    Counter("counted", "A counter.", registry=registry).inc(exemplar={"fine_tune_id": "x"})
    ready = fields.pop("readiness", Readiness(1, 1))
    served = Page(Renderer(registry, views.newest, lambda: 0.0))
    return WebContext(served, lambda: ready, views=views.newest, **fields)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ((PROMETHEUS_2_42,), OPENMETRICS_TYPE),
        ((PROMETHEUS_3,), OPENMETRICS_TYPE),
        (tuple(PROMETHEUS_2_42.split(",")), OPENMETRICS_TYPE),
        (("application/openmetrics-text",), OPENMETRICS_TYPE),
        (('Application/OpenMetrics-Text; Version="1.0.0"',), OPENMETRICS_TYPE),
        ((BROWSER,), TEXT_TYPE),
        (("*/*",), TEXT_TYPE),
        (("text/plain;version=0.0.4",), TEXT_TYPE),
        (("",), TEXT_TYPE),
        ((), TEXT_TYPE),
        (("application/openmetrics-text;version=0.0.1",), OLD_OPENMETRICS_TYPE),
        (("application/openmetrics-text;version=0.0.1;q=0.5,text/plain;q=0.6",), TEXT_TYPE),
        (("application/openmetrics-text;q=0.1,*/*;q=0.5",), TEXT_TYPE),
        (("application/openmetrics-text;q=0.5,text/*;q=0.1,*/*;q=0.1",), OPENMETRICS_TYPE),
        (("application/openmetrics-text;q=2,*/*",), TEXT_TYPE),
        (("application/openmetrics-text;version=abc",), TEXT_TYPE),
        (("application/openmetrics-text;version=1.0.0;q=0,text/plain",), TEXT_TYPE),
        (("application/openmetrics-text; q=0.000, */*",), TEXT_TYPE),
        (("application/openmetrics-text;q=0.01",), OPENMETRICS_TYPE),
        (("application/openmetrics-text;version=99.0.0",), TEXT_TYPE),
        (("text/plain;version=abc;;=;escaping",), TEXT_TYPE),
        ((";,;=,~",), TEXT_TYPE),
    ],
)
def test_the_metrics_are_what_their_content_type_says(accept, content_type):
    answer = page("GET", "/metrics", shown(), *accept)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == content_type
    parse = text if content_type == TEXT_TYPE else openmetrics
    assert answer.text.endswith("# EOF\n") == (parse is openmetrics)
    families = {family.name: family for family in parse(answer.content.decode())}
    counts = {
        (s.labels["account"], s.labels["model_id"], s.labels["status"]): s.value
        for s in families["cartesia_fine_tunes"].samples
    }
    assert counts["main", HOSTILE, "failed"] == 1
    assert families["hostile"].samples[0].labels == {"value": HOSTILE}


@pytest.mark.parametrize("path", ["/", "/metrics", "/config", "/-/healthy", "/-/ready"])
def test_head_is_answered_as_get_is(path):
    same = shown()
    head, get = page("HEAD", path, same), page("GET", path, same)
    assert head.status_code == get.status_code == 200
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers["content-length"] == get.headers["content-length"]


def test_nothing_can_be_posted():
    for path in ("/", "/metrics", "/config", "/-/healthy", "/-/ready"):
        assert page("POST", path, shown()).status_code == 405


def test_healthy_says_that_the_parts_are_on_time_whatever_the_accounts_do():
    well = shown(readiness=Readiness(0, 3, "no room"), health=lambda: Liveness(4))
    answer = page("GET", "/-/healthy", well)
    assert answer.status_code == 200
    assert answer.text == "cartesia-exporter is healthy: 4 of 4 parts are on time.\n"


LATE = Liveness(4, {"poll main": 75.4, "deliver ops": 61.0})


def test_healthy_is_503_when_a_part_is_late_and_names_it():
    answer = page("GET", "/-/healthy", shown(health=lambda: LATE))
    assert answer.status_code == 503
    assert answer.text == (
        "cartesia-exporter is not healthy: 2 of 4 parts are on time.\n"
        "deliver ops: 61 s late\npoll main: 75 s late\n"
    )


def test_who_gave_no_password_is_told_how_many_parts_are_late_and_not_which(tmp_path):
    file = File(tmp_path, basic_auth_users={USER: hash_of(PASSWORD)})
    with file.served(application(shown(health=lambda: LATE))) as [url]:
        answer = ask(f"{url}/-/healthy")
        assert answer.status_code == 503
        assert answer.text == "cartesia-exporter is not healthy: 2 of 4 parts are on time.\n"
        assert "poll main: 75 s late" in ask(f"{url}/-/healthy", auth=(USER, PASSWORD)).text


@pytest.mark.parametrize(
    ("readiness", "status", "said"),
    [
        (Readiness(1, 1), 200, "is ready: 1 of 1 accounts have a fresh snapshot.\n"),
        (Readiness(1, 3), 200, "is ready: 1 of 3 accounts have a fresh snapshot.\n"),
        (Readiness(0, 1), 503, "not ready: 0 of 1 accounts have a fresh snapshot.\n"),
        (Readiness(1, 1, "no room"), 503, "; the state cannot be stored: no room.\n"),
    ],
)
def test_ready_says_how_many_accounts_are_fresh(readiness, status, said):
    answer = page("GET", "/-/ready", shown(readiness=readiness))
    assert answer.status_code == status
    assert answer.text.endswith(said)


def test_ready_names_the_accounts_that_are_troubled_and_no_other():
    views = [
        view(account="well", stale_at=51.0),
        view(account="old", stale_at=50.0),
        view(account="failing", up=False, failure="timeout"),
    ]
    answer = page("GET", "/-/ready", shown(*views, monotonic=lambda: 50.0))
    assert answer.text.splitlines()[1:] == [
        "old: complete; its data is too old and withheld",
        "failing: failed: timeout",
    ]


def test_the_metrics_are_where_the_flag_says():
    moved = shown(telemetry_path="/probe/metrics")
    assert page("GET", "/probe/metrics", moved).status_code == 200
    assert page("GET", "/metrics", moved).status_code == 404
    assert 'href="/probe/metrics"' in page("GET", "/", moved).text


def test_the_configuration_is_shown_as_it_is_now_and_kept_by_nobody():
    texts = iter(["poll: {}\n", "poll: {interval: 1s}\n"])
    changing = shown(configuration=lambda: next(texts))
    answers = [page("GET", "/config", changing) for _ in range(2)]
    assert [answer.text for answer in answers] == ["poll: {}\n", "poll: {interval: 1s}\n"]
    for answer in answers:
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
