"""The endpoints: content types, health, readiness and configuration."""

import re
from html import unescape

import httpx
import pytest
from markupsafe import escape
from msgspec.structs import replace
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter import __version__
from exporter.core.health import Liveness, Readiness
from exporter.core.ownership import AGENT, Item
from exporter.web.application import Application, WebContext
from tests.web.application_fixture import HOSTILE, request, sample_status, web_context
from tests.web.authenticated_server import PASSWORD, USER, WebConfigFixture, ask, hash_of
from tests.web.stored_pages import StoredPages, after_a_failure, stored_pages

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

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OPENMETRICS_0 = "application/openmetrics-text; version=0.0.1; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"

NEGOTIATED: list[tuple[tuple[str, ...], str]] = [
    ((PROMETHEUS_2_42,), OPENMETRICS),
    ((PROMETHEUS_3,), OPENMETRICS),
    (tuple(PROMETHEUS_2_42.split(",")), OPENMETRICS),
    (("application/openmetrics-text",), OPENMETRICS),
    (('Application/OpenMetrics-Text; Version="1.0.0"',), OPENMETRICS),
    ((BROWSER,), TEXT),
    (("*/*",), TEXT),
    (("text/plain;version=0.0.4",), TEXT),
    (("",), TEXT),
    ((), TEXT),
    (("application/openmetrics-text;version=0.0.1",), OPENMETRICS_0),
    (("application/openmetrics-text;version=0.0.1;q=0.5,text/plain;q=0.6",), TEXT),
    (("application/openmetrics-text;q=0.1,*/*;q=0.5",), TEXT),
    (("application/openmetrics-text;q=0.5,text/*;q=0.1,*/*;q=0.1",), OPENMETRICS),
    (("application/openmetrics-text;q=2,*/*",), TEXT),
    (("application/openmetrics-text;version=abc",), TEXT),
    (("application/openmetrics-text;version=1.0.0;q=0,text/plain",), TEXT),
    (("application/openmetrics-text; q=0.000, */*",), TEXT),
    (("application/openmetrics-text;q=0.01",), OPENMETRICS),
    (("application/openmetrics-text;version=99.0.0",), TEXT),
    (("text/plain;version=abc;;=;escaping",), TEXT),
    ((";,;=,~",), TEXT),
]

ENDPOINTS = ("/metrics", "/-/active", "/-/healthy", "/-/ready")
PAGES = (
    *("/", "/fine-tunes", "/fine-tunes/main/ada", "/notifications", "/config"),
    *("/static/icon.svg", "/static/script.js", "/static/style.css", "/api/v1/status"),
)


async def test_metrics_have_the_negotiated_content_type():
    for accept, content_type in NEGOTIATED:
        answer = await request("GET", "/metrics", web_context(), *accept)
        assert answer.status_code == 200, accept
        assert answer.headers["content-type"] == content_type, accept
        parse = parse_text if content_type == TEXT else parse_openmetrics
        assert answer.text.endswith("# EOF\n") == (parse is parse_openmetrics), accept
        families = {family.name: family for family in parse(answer.content.decode())}
        counts = {
            (s.labels["account"], s.labels["model_id"], s.labels["status"]): s.value
            for s in families["cartesia_fine_tunes"].samples
        }
        assert counts["main", HOSTILE, "failed"] == 1, accept
        assert families["hostile"].samples[0].labels == {"value": HOSTILE}, accept


async def test_head_is_answered_like_get(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        for path in (*ENDPOINTS, *PAGES):
            head, get = await pages.request("HEAD", path), await pages.get(path)
            assert head.status_code == get.status_code == 200, path
            assert not head.content
            for name in ("content-type", "content-length"):
                assert head.headers[name] == get.headers[name], path


async def test_post_is_not_allowed(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        for path in {*ENDPOINTS, *PAGES} - {"/notifications"}:
            assert (await pages.request("POST", path)).status_code == 405, path
        # The form of the actions is sent there; they are off.
        assert (await pages.request("POST", "/notifications")).status_code == 403


async def test_healthy_depends_on_the_services_only():
    context = web_context(readiness=Readiness(0, 3, "no room"), liveness=lambda: Liveness(4))
    answer = await request("GET", "/-/healthy", context)
    assert answer.status_code == 200
    assert answer.text == "cartesia-exporter is healthy: 4 of 4 parts are on time.\n"


async def test_active_is_200_for_an_agent_or_a_replica_that_owns_something():
    for owned, status, text in (
        (None, 200, "active: the only agent"),
        ([Item("account", "a")], 200, "active: owns 1 accounts and receivers"),
        (
            [AGENT, Item("account", "a"), Item("receiver", "a")],
            200,
            "active: owns 2 accounts and receivers, does the work of one agent",
        ),
        ([AGENT], 200, "active: owns 0 accounts and receivers, does the work of one agent"),
        ([], 503, "not active: owns 0 accounts and receivers"),
    ):
        answer = await request("GET", "/-/active", web_context(owned=lambda: owned))  # noqa: B023 - called at once
        assert answer.status_code == status
        assert answer.text == f"cartesia-exporter is {text}.\n"


async def test_a_standby_is_ready_while_the_state_can_be_stored():
    for trouble, status, text in (
        ("", 200, "ready: standby, other replicas poll the accounts"),
        ("no route", 503, "not ready: standby, other replicas poll the accounts; the state"),
    ):
        readiness = Readiness(0, 0, trouble, standby=True)
        answer = await request("GET", "/-/ready", web_context(readiness=readiness))
        assert answer.status_code == status
        assert answer.text.startswith(f"cartesia-exporter is {text}")


LATE = Liveness(4, {"poll main": 75.4, "deliver ops": 61.0})


async def test_healthy_is_503_and_names_the_late_services():
    answer = await request("GET", "/-/healthy", web_context(liveness=lambda: LATE))
    assert answer.status_code == 503
    assert answer.text == (
        "cartesia-exporter is not healthy: 2 of 4 parts are on time.\n"
        "deliver ops: 61 s late\npoll main: 75 s late\n"
    )


def test_late_services_are_named_only_with_a_password(tmp_path):
    file = WebConfigFixture(tmp_path, basic_auth_users={USER: hash_of(PASSWORD)})
    with file.served(Application(web_context(liveness=lambda: LATE))) as [url]:
        answer = ask(f"{url}/-/healthy")
        assert answer.status_code == 503
        assert answer.text == "cartesia-exporter is not healthy: 2 of 4 parts are on time.\n"
        assert "poll main: 75 s late" in ask(f"{url}/-/healthy", auth=(USER, PASSWORD)).text


async def test_ready_counts_the_fresh_accounts():
    for readiness, status, text in (
        (Readiness(1, 1), 200, "is ready: 1 of 1 accounts have a fresh snapshot.\n"),
        (Readiness(1, 3), 200, "is ready: 1 of 3 accounts have a fresh snapshot.\n"),
        (Readiness(0, 1), 503, "not ready: 0 of 1 accounts have a fresh snapshot.\n"),
        (Readiness(1, 1, "no room"), 503, "; the state cannot be stored: no room.\n"),
    ):
        answer = await request("GET", "/-/ready", web_context(readiness=readiness))
        assert answer.status_code == status, readiness
        assert answer.text.endswith(text), readiness


async def test_ready_names_stale_and_failing_accounts_only():
    statuses = [
        sample_status(account="well", stale_at=51.0),
        sample_status(account="old", stale_at=50.0),
        sample_status(account="failing", up=False, failure="timeout"),
    ]
    answer = await request("GET", "/-/ready", web_context(*statuses, monotonic=lambda: 50.0))
    assert answer.text.splitlines()[1:] == [
        "old: complete; its data is stale and withheld",
        "failing: failed: timeout",
    ]


async def test_metrics_are_served_at_the_telemetry_path(tmp_path):
    async with stored_pages(tmp_path) as pages:
        context, path = pages.context(), "/probe/metrics"
        assert context.pages is not None
        shown = replace(context.pages(), telemetry_path=path)
        context = replace(context, telemetry_path=path, pages=lambda: shown)
        assert (await request("GET", path, context)).status_code == 200
        assert (await request("GET", "/metrics", context)).status_code == 404
        assert f'href="{path}"' in (await request("GET", "/", context)).text


async def test_the_current_configuration_is_served_and_not_cached(tmp_path):
    texts = ["poll: {}\n", "poll: {interval: 1s}\n"]
    async with stored_pages(tmp_path) as pages:
        for text in texts:
            answer = await request("GET", "/config", configured(pages, text))
            assert answer.text == text
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"


async def test_a_browser_gets_the_configuration_as_a_page_that_changes_with_it(tmp_path):
    async with stored_pages(tmp_path) as pages:
        tags = set()
        for text in (HOSTILE, "poll: {interval: 1s}\n"):
            answer = await request("GET", "/config", configured(pages, text), BROWSER)
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert escape(text.strip()) in answer.text
            tags.add(answer.headers["etag"])
        assert len(tags) == 2


def configured(pages: StoredPages, text: str) -> WebContext:
    """Return the context of the pages with this configuration in force."""
    context = pages.context()
    assert context.pages is not None
    changed = replace(context.pages(), configuration=lambda: text)
    return replace(context, pages=lambda: changed)


async def test_the_links_of_the_overview_lead_to_pages(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        overview = (await pages.get("/")).text
        assert __version__ in overview
        links = set(re.findall(r'(?:href|src)="(/[^"]*)"', overview))
        assert links >= {"/metrics", "/config", "/-/healthy", "/-/ready", "/fine-tunes/main/ada"}
        for link in links:
            assert (await pages.get(unescape(link))).status_code == 200, link


@pytest.mark.parametrize("path", ["/metrics", "/probe/metrics"])
async def test_metrics_are_served_with_a_slash_at_the_end(path):
    context = web_context(telemetry_path=path)
    for method in ("GET", "HEAD"):
        answer = await request(method, f"{path}/", context)
        assert (answer.status_code, answer.headers["content-type"]) == (200, TEXT)


@pytest.mark.parametrize("path", ["/config/", "/-/healthy/", "/-/reload/", "/metrics//"])
async def test_no_path_is_redirected(path):
    """A redirect would lead wherever the Host header says."""
    assert (await request("GET", path, web_context())).status_code == 404


CROSS_SITE = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": ""},
    {"Origin": "https://evil.test"},
    {"Origin": "http://agent.evil.test"},
    {"Origin": "http://agent:8080"},
    {"Origin": "null"},
    {"Origin": "http://[::1"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.test"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://agent"},
]
OWN_SITE = [
    {},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://agent"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "https://AGENT"},
]


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("headers", [*CROSS_SITE, *OWN_SITE])
async def test_a_page_of_another_site_cannot_reload(method, headers):
    reloads = []

    async def reload() -> list[str]:
        reloads.append(1)
        return []

    transport = httpx.ASGITransport(Application(web_context(reload=reload)))
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        answer = await client.request(method, "/-/reload", headers=headers)
    own = headers in OWN_SITE
    assert (answer.status_code, len(reloads)) == ((200, 1) if own else (403, 0))
    assert own or answer.text.startswith("Refused: a page of another site")
