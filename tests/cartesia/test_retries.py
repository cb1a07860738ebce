"""When a request is tried again, after how long, and when no longer."""

import email.utils

import httpx
import pytest

from exporter.cartesia import fetch as lane
from exporter.cartesia.rate_limit import RateLimiter
from exporter.http_client import Bounds
from tests.cartesia.client_fixture import EMPTY, LIST_URL, Account

OK = httpx.Response(200, json=EMPTY)


def test_the_wait_is_a_chance_of_a_bound_that_doubles_up_to_8_seconds(api, clock):
    api.get(LIST_URL).respond(503)
    clock.chance = 0.75
    Account(clock).fails()
    assert clock.slept == [0.75, 1.5, 3.0, 6.0]


def test_a_wait_may_be_nothing(api, clock):
    api.get(LIST_URL).respond(503)
    clock.chance = 0.0
    Account(clock).fails()
    assert clock.slept == [0.0] * 4


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(httpx.ConnectError("refused"), id="no connection"),
        pytest.param(httpx.ConnectTimeout("slow"), id="no connection in time"),
        pytest.param(httpx.ReadError("reset"), id="broken in the middle"),
        pytest.param(httpx.RemoteProtocolError("cut"), id="broken off"),
        pytest.param(httpx.Response(503), id="a server error"),
        pytest.param(httpx.Response(429), id="too many requests"),
    ],
)
def test_a_request_that_succeeds_in_the_end_is_a_success(api, clock, failure):
    api.get(LIST_URL).mock(side_effect=[failure] * 4 + [OK])
    account = Account(clock)
    assert account.list().pages == 1
    assert account.retries == 4
    assert sum(account.failures.values()) == 4


def test_each_page_has_its_own_attempts(api, clock):
    page = httpx.Response(200, json={"data": [{"id": "a"}], "has_more": True})
    sorry = httpx.Response(503)
    api.get(LIST_URL).mock(side_effect=[*[sorry] * 4, page, *[sorry] * 4, OK])
    account = Account(clock)
    assert account.list().pages == 2
    assert account.retries == 8


def test_a_retried_continuation_asks_for_the_same_page(api, clock):
    page = httpx.Response(200, json={"data": [{"id": "a"}], "has_more": True})
    api.get(LIST_URL).mock(side_effect=[page, httpx.Response(503), OK])
    Account(clock).list()
    cursors = [call.request.url.params.get("starting_after") for call in api.calls]
    assert cursors == [None, "a", "a"]


@pytest.mark.parametrize("status", [408, 409, 425, 429, 503])
@pytest.mark.parametrize(
    "form", [pytest.param(str, id="seconds"), pytest.param("date", id="HTTP-date")]
)
def test_a_wait_that_the_api_asks_for_is_honoured(api, clock, status, form):
    text = email.utils.formatdate(clock.now + 7, usegmt=True) if form == "date" else "7"
    sorry = httpx.Response(status, headers={"Retry-After": text})
    api.get(LIST_URL).mock(side_effect=[sorry, OK])
    Account(clock).list()
    assert clock.slept == [7]


@pytest.mark.parametrize("text", ["", "soon", "-1", "nan", "inf", "1, 2", "0", "0.0", "0.1"])
def test_a_wait_that_says_nothing_or_less_than_ours_is_the_usual_one(api, clock, text):
    sorry = httpx.Response(503, headers={"Retry-After": text})
    api.get(LIST_URL).mock(side_effect=[sorry, OK])
    Account(clock).list()
    assert clock.slept == [0.5]


@pytest.mark.parametrize(("headers", "seconds"), [({}, 0.5), ({"Retry-After": "7"}, 7)])
def test_a_429_holds_back_all_lanes_for_as_long_as_its_own(
    api, clock, monkeypatch, headers, seconds
):
    told = []
    monkeypatch.setattr(RateLimiter, "slow_down", lambda _pace, _error, wait: told.append(wait))
    api.get(LIST_URL).mock(side_effect=[httpx.Response(429, headers=headers), OK])
    Account(clock).list()
    assert told == clock.slept == [seconds]


def test_a_date_that_has_passed_says_nothing_either(api, clock):
    past = email.utils.formatdate(clock.now - 1000, usegmt=True)
    sorry = httpx.Response(503, headers={"Retry-After": past})
    api.get(LIST_URL).mock(side_effect=[sorry, OK])
    Account(clock).list()
    assert clock.slept == [0.5]


@pytest.mark.parametrize(
    ("asked", "told"), [("60", 60), ("299", 299), ("300", 300), ("301", 300), ("86400", 300)]
)
def test_a_wait_beyond_the_poll_fails_at_once_and_is_told_up_to_5_minutes(api, clock, asked, told):
    api.get(LIST_URL).respond(429, headers={"Retry-After": asked})
    account = Account(clock)
    error = account.fails(seconds=60)
    assert (error.reason, error.retry_after) == ("rate_limited", told)
    assert clock.slept == []
    assert api.calls.call_count == 1
    assert account.retries == 0


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wait_is_told_also_when_nothing_is_retried(api, clock, status):
    api.get(LIST_URL).respond(status, headers={"Retry-After": "120"})
    assert Account(clock).fails().retry_after == 120
    assert clock.slept == []


def test_without_retry_after_none_is_told(api, clock):
    api.get(LIST_URL).respond(503)
    assert Account(clock).fails().retry_after is None


def test_no_attempt_begins_after_the_deadline(api, clock):
    api.get(LIST_URL).respond(503, headers={"Retry-After": "4"})
    started = clock.now
    error = Account(clock).fails(seconds=10)
    assert error.reason == "server_error"
    assert clock.slept == [4, 4]
    assert clock.now - started < 10


def test_the_deadline_is_that_of_the_whole_listing(api, clock):
    def page(request):
        clock.now += 4
        return httpx.Response(200, json={"data": [{"id": f"{clock.now}"}], "has_more": True})

    api.get(LIST_URL).mock(side_effect=page)
    account = Account(clock)
    error = account.fails(seconds=10)
    assert error.reason == "timeout"
    assert "poll.timeout" in str(error)
    assert api.calls.call_count == 3
    assert account.failures == {"timeout": 1}


def test_one_request_gets_30_seconds_or_what_is_left(monkeypatch, api, clock):
    given = []

    class Recorded(Bounds):
        def __init__(self, seconds, body):
            given.append((seconds, body))
            super().__init__(seconds, body)

    monkeypatch.setattr(lane, "Bounds", Recorded)
    api.get(LIST_URL).respond(503, headers={"Retry-After": "15"})
    Account(clock).fails(seconds=50)
    assert given == [(30, 8 * 2**20), (30, 8 * 2**20), (20, 8 * 2**20), (5, 8 * 2**20)]
