"""Requests of the client; the error, texts and metrics of each kind of answer."""

import itertools

import httpx
import pytest

from exporter import __version__
from exporter.cartesia.errors import REASONS
from tests.cartesia.client_fixture import BASE_URL, EMPTY, KEY, LIST_URL, ClientFixture

PROBLEM = {
    "error_code": None,
    "title": "Not today",
    "message": "Come back tomorrow.",
    "request_id": "550e8400",
}


async def test_a_request_has_the_key_and_the_api_version(api, clock):
    api.get(LIST_URL).respond(json=EMPTY)
    await ClientFixture(clock).poll()
    request = api.calls.last.request
    assert request.url == f"{LIST_URL}?limit=100"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["cartesia-version"] == "2026-03-01"
    assert request.headers["user-agent"] == f"cartesia-exporter/{__version__}"
    assert request.headers["accept"] == "application/json"
    assert request.headers["accept-encoding"] == "gzip"
    assert "cookie" not in request.headers


@pytest.mark.parametrize("base_url", [f"{BASE_URL}/eu/v1", f"{BASE_URL}/eu/v1/"])
async def test_the_base_url_may_have_a_path(api, clock, base_url):
    api.get(f"{BASE_URL}/eu/v1/fine-tunes/?limit=100").respond(json=EMPTY)
    assert (await ClientFixture(clock, base_url).poll()).pages == 1


async def test_the_cursor_is_the_escaped_last_id_and_next_page_is_ignored(api, clock):
    odd = "a/b&c=d?e#f%20 é+"
    first = {"data": [{"id": "x"}, {"id": odd}], "has_more": True, "next_page": "wrong"}
    pages = [httpx.Response(200, json=first), httpx.Response(200, json=EMPTY)]
    api.get(LIST_URL).mock(side_effect=pages)
    assert await ClientFixture(clock).poll_ids() == ["x", odd]
    assert dict(api.calls.last.request.url.params) == {"limit": "100", "starting_after": odd}


REASONS_AND_ATTEMPTS = [
    (201, "protocol", 1),
    (204, "protocol", 1),
    (206, "protocol", 1),
    (300, "redirect", 1),
    (304, "redirect", 1),
    (400, "client_error", 1),
    (401, "unauthorized", 1),
    (402, "client_error", 1),
    (403, "forbidden", 1),
    (404, "client_error", 1),
    (408, "client_error", 5),
    (409, "client_error", 5),
    (410, "client_error", 1),
    (422, "client_error", 1),
    (425, "client_error", 5),
    (429, "rate_limited", 5),
    (499, "client_error", 1),
    (500, "server_error", 5),
    (502, "server_error", 5),
    (503, "server_error", 5),
    (529, "server_error", 5),
    (599, "server_error", 5),
]


async def test_each_status_has_a_reason_and_a_number_of_attempts(api, clock):
    for status, reason, attempts in REASONS_AND_ATTEMPTS:
        api.reset()
        api.get(LIST_URL).respond(status, json=PROBLEM)
        fixture = ClientFixture(clock)
        error = await fixture.poll_error()
        assert (error.reason, error.status) == (reason, status)
        assert error.retryable == (attempts > 1), status
        assert api.calls.call_count == attempts, status
        assert fixture.codes == {str(status): attempts}
        assert fixture.failures == {reason: attempts}, status
        assert fixture.retries == attempts - 1, status
        assert fixture.sample("request_duration_seconds_count") == attempts, status


def test_all_series_exist_from_the_start(clock):
    fixture = ClientFixture(clock)
    assert fixture.sample("requests_total", code="200") == 0
    assert [fixture.sample("request_failures_total", reason=r) for r in REASONS] == [0] * 12
    assert fixture.sample("request_retries_total") == 0
    assert fixture.sample("request_duration_seconds_count") == 0


async def test_a_page_is_counted_by_its_status_only(api, clock):
    api.get(LIST_URL).respond(json=EMPTY)
    fixture = ClientFixture(clock)
    await fixture.poll()
    assert (fixture.codes, fixture.failures, fixture.retries) == ({"200": 1}, {}, 0)
    assert fixture.sample("request_duration_seconds_count") == 1


async def test_203_is_a_page(api, clock):
    """A proxy that decompressed it, for example, may say that it changed the answer."""
    api.get(LIST_URL).respond(203, json={"data": [{"id": "a"}], "has_more": False})
    fixture = ClientFixture(clock)
    assert await fixture.poll_ids() == ["a"]
    assert (fixture.codes, fixture.failures) == ({"203": 1}, {})


async def test_a_malformed_page_is_a_protocol_error(api, clock):
    api.get(LIST_URL).respond(text="html")
    error = await ClientFixture(clock).poll_error()
    assert (error.reason, str(error)) == ("protocol", "invalid page: the body is not JSON")


async def test_the_error_quotes_the_api(api, clock):
    api.get(LIST_URL).respond(400, json=PROBLEM)
    assert str(await ClientFixture(clock).poll_error()) == (
        'api.cartesia.test answered 400 "Not today: Come back tomorrow." (request_id 550e8400)'
    )


@pytest.mark.parametrize("body", [b"", b"Title: Message", b'{"title":null}', b"\xff"])
async def test_an_error_without_a_readable_body_has_the_status(api, clock, body):
    api.get(LIST_URL).respond(404, content=body)
    assert (
        str(await ClientFixture(clock).poll_error())
        == "api.cartesia.test answered 404; check base_url"
    )


@pytest.mark.parametrize("status", [401, 403])
async def test_the_error_of_a_refused_key_names_its_source(api, clock, status):
    api.get(LIST_URL).respond(status, json=PROBLEM)
    text = str(await ClientFixture(clock).poll_error())
    assert text.endswith("; check the API key from /etc/cartesia/key")


async def test_a_key_that_the_api_quotes_is_masked(api, clock):
    keys = [KEY, "no-prefix+/=", "sk_car_a.b+c/d="]
    fields = ["title", "message", "request_id"]
    for key, status, field in itertools.product(keys, [400, 401, 403, 500], fields):
        quoted = {**PROBLEM, field: f"The key '{key}' or {key[:-1]}? {key}"}
        api.get(LIST_URL).respond(status, json=quoted)
        fixture = ClientFixture(clock)
        fixture.key.value = key
        text = str(await fixture.poll_error())
        assert key not in text, (status, field)
        assert "…" in text, (status, field)


async def test_the_key_is_read_again_for_each_request(api, clock):
    page = {"data": [{"id": "a"}], "has_more": True}
    fixture = ClientFixture(clock)

    def rotate(request):
        fixture.key.value = f"sk_car_number.{len(api.calls) + 1}"
        answers = [httpx.Response(503), httpx.Response(200, json=page)]
        return [*answers, httpx.Response(200, json=EMPTY)][len(api.calls)]

    api.get(LIST_URL).mock(side_effect=rotate)
    await fixture.poll()
    assert [call.request.headers["authorization"] for call in api.calls] == [
        f"Bearer {KEY}",
        "Bearer sk_car_number.1",
        "Bearer sk_car_number.2",
    ]


async def test_an_unreadable_key_fails_the_poll_without_a_request(api, clock):
    fixture = ClientFixture(clock)
    fixture.key.value = None
    error = await fixture.poll_error()
    assert error.reason == "unauthorized"
    assert str(error) == "there is no API key: cannot read /etc/cartesia/key: no such file"
    assert not error.retryable
    assert api.calls.call_count == 0
    assert fixture.failures == {"unauthorized": 1}
    assert fixture.codes == {}


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_stays_refused_until_it_is_accepted_or_changed(api, clock, status):
    route = api.get(LIST_URL).respond(status, json=PROBLEM)
    fixture = ClientFixture(clock)
    assert not fixture.client.key_is_refused()
    await fixture.poll_error()
    assert fixture.client.key_is_refused()

    fixture.key.value = "sk_car_another.key"
    assert not fixture.client.key_is_refused()
    fixture.key.value = None
    assert not fixture.client.key_is_refused()
    fixture.key.value = KEY
    assert fixture.client.key_is_refused()

    route.respond(503)
    await fixture.poll_error()
    assert fixture.client.key_is_refused(), "an outage says nothing about the key"

    route.respond(json=EMPTY)
    await fixture.poll()
    assert not fixture.client.key_is_refused()


BODIES_OF_INTERMEDIARIES = [
    pytest.param({}, id="empty"),
    pytest.param({"html": "<html><title>403 Forbidden</title></html>"}, id="nginx"),
    pytest.param({"text": "Title: Message"}, id="text"),
    pytest.param({"json": {"message": "Forbidden"}}, id="AWS API Gateway"),
    pytest.param({"json": {"title": "Forbidden", "status": 403, "detail": "no"}}, id="RFC 9457"),
    pytest.param({"json": {"title": None, "message": "no"}}, id="title null"),
    pytest.param({"json": ["title", "message"]}, id="a list"),
    pytest.param({"content": b'{"title":"No","message":"cut'}, id="truncated"),
]


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("body", BODIES_OF_INTERMEDIARIES)
async def test_a_refusal_without_an_error_of_the_api_says_nothing_about_the_key(
    api, clock, status, body
):
    """A firewall or a login page: the key may be valid."""
    api.get(LIST_URL).respond(status, **body)
    fixture = ClientFixture(clock)
    error = await fixture.poll_error()
    assert (error.reason, error.status, error.retryable) == ("client_error", status, False)
    assert str(error).startswith(f"api.cartesia.test answered {status}")
    assert "answered by an intermediary" in str(error)
    assert "key" not in str(error)
    assert not fixture.client.key_is_refused()
    assert fixture.failures == {"client_error": 1}


@pytest.mark.parametrize(("status", "words"), [(407, "a proxy asks for"), (511, "a login")])
async def test_statuses_of_intermediaries_are_named_as_such(api, clock, status, words):
    api.get(LIST_URL).respond(status, json=PROBLEM)
    error = await ClientFixture(clock).poll_error()
    assert (error.reason, error.retryable) == ("client_error", False)
    assert words in str(error)
    assert "answered by an intermediary" in str(error)


async def test_a_web_page_in_place_of_a_list_is_named_and_does_not_make_a_key_valid(api, clock):
    fixture = ClientFixture(clock)
    route = api.get(LIST_URL).respond(401, json=PROBLEM)
    await fixture.poll_error()
    route.respond(200, html="\ufeff\n<!DOCTYPE html><title>Welcome to our hotel</title>")
    error = await fixture.poll_error()
    assert error.reason == "protocol"
    assert str(error).startswith("api.cartesia.test answered 200 with a web page, not JSON")
    assert "answered by an intermediary" in str(error)
    assert fixture.client.key_is_refused()
    assert not fixture.client.key_has_worked(default=False)


@pytest.mark.parametrize(("version", "refused"), [("2025-11-04", True), ("2026-03-01", False)])
async def test_older_api_versions_refuse_a_key_in_plain_text(api, clock, version, refused):
    api.get(LIST_URL).respond(401, text="Unauthorized: Invalid API key")
    fixture = ClientFixture(clock, version=version)
    await fixture.poll_error()
    assert fixture.client.key_is_refused() == refused


async def test_a_key_has_worked_if_the_api_accepted_it_last(api, clock):
    fixture = ClientFixture(clock)
    api.get(LIST_URL).respond(json=EMPTY)
    assert fixture.client.key_has_worked(default=True)
    assert not fixture.client.key_has_worked(default=False)
    await fixture.poll()
    assert fixture.client.key_has_worked(default=False)
    fixture.key.value = "sk_car_rotated.key"
    assert not fixture.client.key_has_worked(default=True)
    fixture.key.value = None
    assert fixture.client.key_has_worked(default=True)


async def test_only_a_404_of_the_first_page_points_to_base_url(api, clock):
    """A 404 of a later page means that the fine-tune of its cursor is gone."""
    gone = httpx.Response(404)
    first = httpx.Response(200, json={"data": [{"id": "a"}], "has_more": True})
    for answers, is_named in (([gone], True), ([first, gone] * 2, False)):
        api.get(LIST_URL).mock(side_effect=answers)
        text = str(await ClientFixture(clock).poll_error())
        assert "api.cartesia.test answered 404" in text
        assert ("check base_url" in text) == is_named


@pytest.mark.parametrize("status", [400, 404, 429, 500])
async def test_other_errors_do_not_mean_that_the_key_is_refused(api, clock, status):
    api.get(LIST_URL).respond(status)
    fixture = ClientFixture(clock)
    await fixture.poll_error()
    assert not fixture.client.key_is_refused()


async def test_cookies_are_not_sent_back(api, clock):
    page = {"data": [{"id": "a"}], "has_more": True}
    cookie = {"Set-Cookie": "session=tracked; Path=/; Max-Age=99999999"}
    first = httpx.Response(200, json=page, headers=cookie)
    api.get(LIST_URL).mock(side_effect=[first, httpx.Response(200, json=EMPTY)])
    await ClientFixture(clock).poll()
    assert [call.request.headers.get("cookie") for call in api.calls] == [None, None]
