"""The key stays at its origin, wherever the API points."""

import httpx
import pytest

from exporter.cartesia.client import Limits
from tests.cartesia.client_fixture import BASE_URL, EMPTY, KEY, LIST_URL, Account

AWAY = "the API redirects away from its origin; not followed"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        pytest.param("/fine-tunes?limit=100", id="a path"),
        pytest.param("../fine-tunes?limit=100", id="a relative path"),
        pytest.param(f"{BASE_URL}/fine-tunes?limit=100", id="absolute"),
        pytest.param(f"{BASE_URL}:443/fine-tunes?limit=100", id="with the port that https has"),
        pytest.param("//API.Cartesia.test/fine-tunes?limit=100", id="another case, no scheme"),
    ],
)
def test_a_redirect_within_the_origin_is_followed_with_the_key(api, clock, status, location):
    api.get(LIST_URL).respond(status, headers={"Location": location})
    api.get(f"{BASE_URL}/fine-tunes?limit=100").respond(json=EMPTY)
    account = Account(clock)
    assert account.list().pages == 1
    assert api.calls.last.request.headers["authorization"] == f"Bearer {KEY}"
    assert api.calls.last.request.headers["cartesia-version"] == "2026-03-01"
    assert account.codes == {str(status): 1, "200": 1}
    assert (account.failures, account.retries) == ({}, 0)


@pytest.mark.parametrize(
    "location",
    [
        pytest.param("https://evil.test/fine-tunes/", id="another host"),
        pytest.param("//evil.test/fine-tunes/", id="another host, same scheme"),
        pytest.param("https://cartesia.test/fine-tunes/", id="the parent domain"),
        pytest.param("https://eu.api.cartesia.test/fine-tunes/", id="a subdomain"),
        pytest.param("https://api.cartesia.test.evil.test/", id="a host that begins alike"),
        pytest.param("https://api.cartesia.test@evil.test/", id="the host as a user name"),
        pytest.param("https://api.cartesia.test\\@evil.test/", id="with a backslash"),
        pytest.param("http://api.cartesia.test/fine-tunes/", id="http"),
        pytest.param("http://api.cartesia.test:443/fine-tunes/", id="http at the https port"),
        pytest.param("https://api.cartesia.test:8443/fine-tunes/", id="another port"),
        pytest.param("https://api.cartesia.test./fine-tunes/", id="a dot behind the host"),
        pytest.param("ftp://api.cartesia.test/fine-tunes/", id="another scheme"),
        pytest.param("file:///etc/passwd", id="a file"),
    ],
)
def test_a_redirect_off_the_origin_is_refused_and_nothing_is_sent_there(api, clock, location):
    api.get(LIST_URL).respond(307, headers={"Location": location})
    account = Account(clock)
    error = account.fails()
    assert (error.reason, str(error)) == ("redirect", AWAY)
    assert api.calls.call_count == 1
    assert account.failures == {"redirect": 1}


@pytest.mark.parametrize("headers", [{}, {"Location": ""}])
def test_a_redirect_to_nowhere_says_so(api, clock, headers):
    api.get(LIST_URL).respond(307, headers=headers)
    error = Account(clock).fails()
    assert (error.reason, str(error)) == ("redirect", "the API redirects without saying where to")


@pytest.mark.parametrize(
    "location", [f"{BASE_URL}:99999/", "https://[::1/", "https://a:x/", "https://\x7f/"]
)
def test_a_redirect_that_is_no_url_is_refused(api, clock, location):
    api.get(LIST_URL).respond(307, headers={"Location": location})
    assert Account(clock).fails().reason in {"redirect", "protocol"}
    assert {call.request.url.host for call in api.calls} == {"api.cartesia.test"}


def test_a_redirect_without_a_location_is_refused(api, clock):
    api.get(LIST_URL).respond(307)
    assert Account(clock).fails().reason == "redirect"


def test_redirects_that_never_end_are_given_up(api, clock):
    api.get(LIST_URL).respond(307, headers={"Location": "/fine-tunes/"})
    account = Account(clock)
    error = account.fails()
    assert (error.reason, str(error)) == ("redirect", "the API redirected more than 3 times")
    assert account.codes == {"307": 4}
    assert account.failures == {"redirect": 1}
    assert account.retries == 0


def test_the_key_is_not_sent_off_the_origin_behind_a_redirect_within_it(api, clock):
    api.get(LIST_URL).respond(307, headers={"Location": "/fine-tunes"})
    api.get(f"{BASE_URL}/fine-tunes").respond(302, headers={"Location": "https://evil.test/"})
    error = Account(clock).fails()
    assert str(error) == AWAY
    assert [call.request.url.host for call in api.calls] == ["api.cartesia.test"] * 2


def test_what_is_behind_a_redirect_may_be_an_error_and_is_retried_from_the_start(api, clock):
    api.get(LIST_URL).respond(307, headers={"Location": "/fine-tunes"})
    answers = [httpx.Response(503), httpx.Response(200, json=EMPTY)]
    api.get(f"{BASE_URL}/fine-tunes").mock(side_effect=answers)
    account = Account(clock)
    assert account.list().pages == 1
    assert account.codes == {"307": 2, "503": 1, "200": 1}


def test_a_redirect_is_a_request_of_its_own_to_the_limit_of_requests(api, clock):
    api.get(LIST_URL).respond(307, headers={"Location": "/fine-tunes"})
    api.get(f"{BASE_URL}/fine-tunes").respond(json=EMPTY)
    Account(clock, limits=Limits(per_second=0.5)).list()
    assert clock.slept == [2]
