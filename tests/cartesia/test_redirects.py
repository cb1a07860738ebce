"""Redirects are followed within the origin only, so that the key stays there."""

import itertools

import httpx
import pytest

from exporter.cartesia.client import RateLimits
from tests.cartesia.client_fixture import BASE_URL, EMPTY, KEY, LIST_URL, ClientFixture

AWAY = "api.cartesia.test redirects to another origin; not followed, check base_url"


async def test_a_redirect_within_the_origin_is_followed_with_the_key(api, clock):
    locations = [
        "/fine-tunes?limit=100",
        "../fine-tunes?limit=100",
        f"{BASE_URL}/fine-tunes?limit=100",
        f"{BASE_URL}:443/fine-tunes?limit=100",
        "//API.Cartesia.test/fine-tunes?limit=100",
    ]
    for status, location in itertools.product([301, 302, 303, 307, 308], locations):
        api.get(LIST_URL).respond(status, headers={"Location": location})
        api.get(f"{BASE_URL}/fine-tunes?limit=100").respond(json=EMPTY)
        fixture = ClientFixture(clock)
        assert (await fixture.poll()).pages == 1, (status, location)
        assert api.calls.last.request.headers["authorization"] == f"Bearer {KEY}"
        assert api.calls.last.request.headers["cartesia-version"] == "2026-03-01"
        assert fixture.codes == {str(status): 1, "200": 1}, location
        assert (fixture.failures, fixture.retries) == ({}, 0), (status, location)


@pytest.mark.parametrize(
    "location",
    [
        pytest.param("https://evil.test/fine-tunes/", id="another host"),
        pytest.param("//evil.test/fine-tunes/", id="another host, same scheme"),
        pytest.param("https://cartesia.test/fine-tunes/", id="the parent domain"),
        pytest.param("https://eu.api.cartesia.test/fine-tunes/", id="a subdomain"),
        pytest.param("https://api.cartesia.test.evil.test/", id="a host with the same prefix"),
        pytest.param("https://api.cartesia.test@evil.test/", id="the host as a user name"),
        pytest.param("https://api.cartesia.test\\@evil.test/", id="with a backslash"),
        pytest.param("http://api.cartesia.test/fine-tunes/", id="http"),
        pytest.param("http://api.cartesia.test:443/fine-tunes/", id="http at the https port"),
        pytest.param("https://api.cartesia.test:8443/fine-tunes/", id="another port"),
        pytest.param("https://api.cartesia.test./fine-tunes/", id="a dot after the host"),
        pytest.param("ftp://api.cartesia.test/fine-tunes/", id="another scheme"),
        pytest.param("file:///etc/passwd", id="a file"),
    ],
)
async def test_a_redirect_to_another_origin_is_an_error_and_sends_nothing_there(
    api, clock, location
):
    api.get(LIST_URL).respond(307, headers={"Location": location})
    fixture = ClientFixture(clock)
    error = await fixture.poll_error()
    assert (error.reason, str(error)) == ("redirect", AWAY)
    assert api.calls.call_count == 1
    assert fixture.failures == {"redirect": 1}


@pytest.mark.parametrize("headers", [{}, {"Location": ""}])
async def test_a_redirect_without_a_target_is_an_error(api, clock, headers):
    api.get(LIST_URL).respond(307, headers=headers)
    error = await ClientFixture(clock).poll_error()
    reason = "api.cartesia.test redirects without a location"
    assert (error.reason, str(error)) == ("redirect", reason)


@pytest.mark.parametrize(
    "location", [f"{BASE_URL}:99999/", "https://[::1/", "https://a:x/", "https://\x7f/"]
)
async def test_a_redirect_to_an_invalid_url_is_an_error(api, clock, location):
    api.get(LIST_URL).respond(307, headers={"Location": location})
    assert (await ClientFixture(clock).poll_error()).reason in {"redirect", "protocol"}
    assert {call.request.url.host for call in api.calls} == {"api.cartesia.test"}


async def test_redirects_are_limited(api, clock):
    api.get(LIST_URL).respond(307, headers={"Location": "/fine-tunes/"})
    fixture = ClientFixture(clock)
    error = await fixture.poll_error()
    assert (error.reason, str(error)) == (
        "redirect",
        "api.cartesia.test redirected more than 3 times",
    )
    assert fixture.codes == {"307": 4}
    assert fixture.failures == {"redirect": 1}
    assert fixture.retries == 0


async def test_a_second_redirect_must_stay_within_the_origin_too(api, clock):
    api.get(LIST_URL).respond(307, headers={"Location": "/fine-tunes"})
    api.get(f"{BASE_URL}/fine-tunes").respond(302, headers={"Location": "https://evil.test/"})
    error = await ClientFixture(clock).poll_error()
    assert str(error) == AWAY
    assert [call.request.url.host for call in api.calls] == ["api.cartesia.test"] * 2


async def test_an_error_after_a_redirect_is_retried_from_the_start(api, clock):
    api.get(LIST_URL).respond(307, headers={"Location": "/fine-tunes"})
    answers = [httpx.Response(503), httpx.Response(200, json=EMPTY)]
    api.get(f"{BASE_URL}/fine-tunes").mock(side_effect=answers)
    fixture = ClientFixture(clock)
    assert (await fixture.poll()).pages == 1
    assert fixture.codes == {"307": 2, "503": 1, "200": 1}


async def test_a_redirect_counts_as_a_request_for_the_rate(api, clock):
    api.get(LIST_URL).respond(307, headers={"Location": "/fine-tunes"})
    api.get(f"{BASE_URL}/fine-tunes").respond(json=EMPTY)
    await ClientFixture(clock, limits=RateLimits(per_second=0.5)).poll()
    assert clock.slept == [2]
