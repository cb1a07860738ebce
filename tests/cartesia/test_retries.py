"""Retries: which requests, after what delay, and until when."""

import email.utils

import httpx
import pytest

from exporter.cartesia import fetch
from exporter.cartesia.rate_limit import RateLimiter
from exporter.http_client import Bounds
from tests.cartesia.client_fixture import EMPTY, LIST_URL, ClientFixture

OK = httpx.Response(200, json=EMPTY)


async def test_the_delay_is_random_up_to_a_bound_that_doubles(api, clock):
    api.get(LIST_URL).respond(503)
    clock.chance = 0.75
    await ClientFixture(clock).poll_error()
    assert clock.slept == [0.75, 1.5, 3.0, 6.0]


async def test_the_delay_may_be_zero(api, clock):
    api.get(LIST_URL).respond(503)
    clock.chance = 0.0
    await ClientFixture(clock).poll_error()
    assert clock.slept == [0.0] * 4


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(httpx.ConnectError("refused"), id="no connection"),
        pytest.param(httpx.ConnectTimeout("slow"), id="no connection in time"),
        pytest.param(httpx.ReadError("reset"), id="connection reset"),
        pytest.param(httpx.RemoteProtocolError("cut"), id="connection closed"),
        pytest.param(httpx.Response(503), id="a server error"),
        pytest.param(httpx.Response(429), id="too many requests"),
    ],
)
async def test_the_fifth_attempt_may_succeed(api, clock, failure):
    api.get(LIST_URL).mock(side_effect=[failure] * 4 + [OK])
    fixture = ClientFixture(clock)
    assert (await fixture.poll()).pages == 1
    assert fixture.retries == 4
    assert sum(fixture.failures.values()) == 4


async def test_each_page_has_its_own_attempts(api, clock):
    page = httpx.Response(200, json={"data": [{"id": "a"}], "has_more": True})
    failure = httpx.Response(503)
    api.get(LIST_URL).mock(side_effect=[*[failure] * 4, page, *[failure] * 4, OK])
    fixture = ClientFixture(clock)
    assert (await fixture.poll()).pages == 2
    assert fixture.retries == 8


async def test_a_retry_requests_the_same_page(api, clock):
    page = httpx.Response(200, json={"data": [{"id": "a"}], "has_more": True})
    api.get(LIST_URL).mock(side_effect=[page, httpx.Response(503), OK])
    await ClientFixture(clock).poll()
    cursors = [call.request.url.params.get("starting_after") for call in api.calls]
    assert cursors == [None, "a", "a"]


async def test_retry_after_is_honoured_in_seconds_and_as_a_date(api, clock):
    for status in (408, 409, 425, 429, 503):
        for text in ("7", email.utils.formatdate(clock.now + 7, usegmt=True)):
            clock.slept.clear()
            failure = httpx.Response(status, headers={"Retry-After": text})
            api.get(LIST_URL).mock(side_effect=[failure, OK])
            await ClientFixture(clock).poll()
            assert clock.slept == [7], (status, text)
            clock.now -= 7


@pytest.mark.parametrize("text", ["", "soon", "-1", "nan", "inf", "1, 2", "0", "0.0", "0.1"])
async def test_an_invalid_or_short_retry_after_is_replaced_by_the_usual_delay(api, clock, text):
    failure = httpx.Response(503, headers={"Retry-After": text})
    api.get(LIST_URL).mock(side_effect=[failure, OK])
    await ClientFixture(clock).poll()
    assert clock.slept == [0.5]


@pytest.mark.parametrize(("headers", "seconds"), [({}, 0.5), ({"Retry-After": "7"}, 7)])
async def test_a_429_delays_all_connections_as_long_as_its_own(
    api, clock, monkeypatch, headers, seconds
):
    delays = []
    monkeypatch.setattr(RateLimiter, "slow_down", lambda _self, _error, wait: delays.append(wait))
    api.get(LIST_URL).mock(side_effect=[httpx.Response(429, headers=headers), OK])
    await ClientFixture(clock).poll()
    assert delays == clock.slept == [seconds]


async def test_a_retry_after_date_in_the_past_is_ignored(api, clock):
    past = email.utils.formatdate(clock.now - 1000, usegmt=True)
    failure = httpx.Response(503, headers={"Retry-After": past})
    api.get(LIST_URL).mock(side_effect=[failure, OK])
    await ClientFixture(clock).poll()
    assert clock.slept == [0.5]


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [("60", 60), ("299", 299), ("300", 300), ("301", 300), ("86400", 300)],
)
async def test_a_retry_after_beyond_the_deadline_fails_at_once_and_is_bounded(
    api, clock, retry_after, expected
):
    api.get(LIST_URL).respond(429, headers={"Retry-After": retry_after})
    fixture = ClientFixture(clock)
    error = await fixture.poll_error(seconds=60)
    assert (error.reason, error.retry_after) == ("rate_limited", expected)
    assert clock.slept == []
    assert api.calls.call_count == 1
    assert fixture.retries == 0


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_retry_after_is_reported_for_errors_that_are_not_retried(api, clock, status):
    api.get(LIST_URL).respond(status, headers={"Retry-After": "120"})
    assert (await ClientFixture(clock).poll_error()).retry_after == 120
    assert clock.slept == []


async def test_an_error_without_retry_after_reports_none(api, clock):
    api.get(LIST_URL).respond(503)
    assert (await ClientFixture(clock).poll_error()).retry_after is None


async def test_no_attempt_starts_after_the_deadline(api, clock):
    api.get(LIST_URL).respond(503, headers={"Retry-After": "4"})
    started = clock.now
    error = await ClientFixture(clock).poll_error(seconds=10)
    assert error.reason == "server_error"
    assert clock.slept == [4, 4]
    assert clock.now - started < 10


async def test_the_deadline_covers_the_whole_listing(api, clock):
    def page(request):
        clock.now += 4
        return httpx.Response(200, json={"data": [{"id": f"{clock.now}"}], "has_more": True})

    api.get(LIST_URL).mock(side_effect=page)
    fixture = ClientFixture(clock)
    error = await fixture.poll_error(seconds=10)
    assert error.reason == "timeout"
    assert "poll.timeout" in str(error)
    assert api.calls.call_count == 3
    assert fixture.failures == {"timeout": 1}


async def test_the_timeout_of_a_request_is_30_seconds_or_the_rest_of_the_poll(
    monkeypatch, api, clock
):
    bounds = []

    def recorded(seconds, body):
        bounds.append((seconds, body))
        return Bounds(seconds, body)

    monkeypatch.setattr(fetch, "Bounds", recorded)
    api.get(LIST_URL).respond(503, headers={"Retry-After": "15"})
    await ClientFixture(clock).poll_error(seconds=50)
    assert bounds == [(30, 8 * 2**20), (30, 8 * 2**20), (20, 8 * 2**20), (5, 8 * 2**20)]
