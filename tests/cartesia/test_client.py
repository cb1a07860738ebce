"""What is asked, what each answer means, and what is said and counted about it."""

import httpx
import pytest

from exporter import __version__
from exporter.cartesia.errors import REASONS
from tests.cartesia.client_fixture import BASE_URL, EMPTY, KEY, LIST_URL, Account

PROBLEM = {
    "error_code": None,
    "title": "Not today",
    "message": "Come back tomorrow.",
    "request_id": "550e8400",
}


def test_a_request_says_who_asks_for_what_in_which_version(api, clock):
    api.get(LIST_URL).respond(json=EMPTY)
    Account(clock).list()
    request = api.calls.last.request
    assert request.url == f"{LIST_URL}?limit=100"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["cartesia-version"] == "2026-03-01"
    assert request.headers["user-agent"] == f"cartesia-exporter/{__version__}"
    assert request.headers["accept"] == "application/json"
    assert request.headers["accept-encoding"] == "gzip"
    assert "cookie" not in request.headers


@pytest.mark.parametrize("base_url", [f"{BASE_URL}/eu/v1", f"{BASE_URL}/eu/v1/"])
def test_the_base_url_may_have_a_path(api, clock, base_url):
    api.get(f"{BASE_URL}/eu/v1/fine-tunes/?limit=100").respond(json=EMPTY)
    assert Account(clock, base_url).list().pages == 1


def test_the_cursor_is_the_last_id_escaped_and_next_page_is_not_read(api, clock):
    odd = "a/b&c=d?e#f%20 é+"
    first = {"data": [{"id": "x"}, {"id": odd}], "has_more": True, "next_page": "wrong"}
    pages = [httpx.Response(200, json=first), httpx.Response(200, json=EMPTY)]
    api.get(LIST_URL).mock(side_effect=pages)
    assert list(Account(clock).list().fine_tunes) == ["x", odd]
    assert dict(api.calls.last.request.url.params) == {"limit": "100", "starting_after": odd}


@pytest.mark.parametrize(
    ("status", "reason", "attempts"),
    [
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
    ],
)
def test_a_status_has_a_reason_and_is_retried_or_not(api, clock, status, reason, attempts):
    api.get(LIST_URL).respond(status, json=PROBLEM)
    account = Account(clock)
    error = account.fails()
    assert (error.reason, error.status) == (reason, status)
    assert error.retryable == (attempts > 1)
    assert api.calls.call_count == attempts
    assert account.codes == {str(status): attempts}
    assert account.failures == {reason: attempts}
    assert account.retries == attempts - 1
    assert account.sample("request_duration_seconds_count") == attempts


def test_every_count_is_there_before_anything_happens(clock):
    account = Account(clock)
    assert account.sample("requests_total", code="200") == 0
    assert [account.sample("request_failures_total", reason=r) for r in REASONS] == [0] * 12
    assert account.sample("request_retries_total") == 0
    assert account.sample("request_duration_seconds_count") == 0


def test_a_good_page_is_counted_by_its_status_alone(api, clock):
    api.get(LIST_URL).respond(json=EMPTY)
    account = Account(clock)
    account.list()
    assert (account.codes, account.failures, account.retries) == ({"200": 1}, {}, 0)
    assert account.sample("request_duration_seconds_count") == 1


def test_an_odd_page_is_a_protocol_error(api, clock):
    api.get(LIST_URL).respond(text="<html>")
    error = Account(clock).fails()
    assert (error.reason, str(error)) == ("protocol", "an odd page: the body is not JSON")


def test_the_text_repeats_what_the_api_says(api, clock):
    api.get(LIST_URL).respond(400, json=PROBLEM)
    assert str(Account(clock).fails()) == (
        'the API answered 400 "Not today: Come back tomorrow." (request_id 550e8400)'
    )


@pytest.mark.parametrize("body", [b"", b"Title: Message", b'{"title":null}', b"\xff"])
def test_an_error_that_says_nothing_is_told_by_its_status(api, clock, body):
    api.get(LIST_URL).respond(404, content=body)
    assert str(Account(clock).fails()) == "the API answered 404"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_told_by_where_it_comes_from(api, clock, status):
    api.get(LIST_URL).respond(status, json=PROBLEM)
    text = str(Account(clock).fails())
    assert text.endswith("; check the API key from /etc/cartesia/key")


@pytest.mark.parametrize("key", [KEY, "no-prefix+/=", "sk_car_a.b+c/d="])
@pytest.mark.parametrize("status", [400, 401, 403, 500])
@pytest.mark.parametrize("field", ["title", "message", "request_id"])
def test_a_key_that_the_api_quotes_is_not_told(api, clock, field, status, key):
    quoted = {**PROBLEM, field: f"The key '{key}' or {key[:-1]}? {key}"}
    api.get(LIST_URL).respond(status, json=quoted)
    account = Account(clock)
    account.key.value = key
    text = str(account.fails())
    assert key not in text
    assert "…" in text


def test_the_key_is_read_again_for_each_request(api, clock):
    page = {"data": [{"id": "a"}], "has_more": True}
    account = Account(clock)

    def rotate(request):
        account.key.value = f"sk_car_number.{len(api.calls) + 1}"
        answers = [httpx.Response(503), httpx.Response(200, json=page)]
        return [*answers, httpx.Response(200, json=EMPTY)][len(api.calls)]

    api.get(LIST_URL).mock(side_effect=rotate)
    account.list()
    assert [call.request.headers["authorization"] for call in api.calls] == [
        f"Bearer {KEY}",
        "Bearer sk_car_number.1",
        "Bearer sk_car_number.2",
    ]


def test_a_key_that_cannot_be_read_fails_the_poll_and_nothing_is_asked(api, clock):
    account = Account(clock)
    account.key.value = None
    error = account.fails()
    assert error.reason == "unauthorized"
    assert str(error) == "there is no API key: cannot read /etc/cartesia/key: no such file"
    assert not error.retryable
    assert api.calls.call_count == 0
    assert account.failures == {"unauthorized": 1}
    assert account.codes == {}


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_is_refused_until_it_works_or_changes(api, clock, status):
    route = api.get(LIST_URL).respond(status)
    account = Account(clock)
    assert not account.client.key_is_refused()
    account.fails()
    assert account.client.key_is_refused()

    account.key.value = "sk_car_another.key"
    assert not account.client.key_is_refused()
    account.key.value = None
    assert not account.client.key_is_refused()
    account.key.value = KEY
    assert account.client.key_is_refused()

    route.respond(503)
    account.fails()
    assert account.client.key_is_refused(), "an outage says nothing about the key"

    route.respond(json=EMPTY)
    account.list()
    assert not account.client.key_is_refused()


@pytest.mark.parametrize("status", [400, 404, 429, 500])
def test_other_errors_do_not_refuse_the_key(api, clock, status):
    api.get(LIST_URL).respond(status)
    account = Account(clock)
    account.fails()
    assert not account.client.key_is_refused()


def test_a_cookie_is_not_sent_back(api, clock):
    page = {"data": [{"id": "a"}], "has_more": True}
    cookie = {"Set-Cookie": "session=tracked; Path=/; Max-Age=99999999"}
    first = httpx.Response(200, json=page, headers=cookie)
    api.get(LIST_URL).mock(side_effect=[first, httpx.Response(200, json=EMPTY)])
    Account(clock).list()
    assert [call.request.headers.get("cookie") for call in api.calls] == [None, None]
