"""No error, repr or log line of an exchange contains the request or its URL."""

import logging
import socket
import traceback

import pytest

from exporter.cartesia.errors import CartesiaError
from exporter.http_client import Bounds, Request
from tests.cartesia.client_fixture import REAL_CLOCK, ClientFixture
from tests.fakes.answers import (
    answer,
    as_json,
    redirect,
    sends,
    sends_then_hangs_up,
    sends_then_resets,
    silence,
)
from tests.fakes.api import FakeApi, fine_tune, page
from tests.fakes.certificates import authority, server_context
from tests.fakes.http_requests import send, send_error
from tests.fakes.secret import FakeSecret
from tests.fakes.server import Server

SECRET = "hunter2"
PATH = f"/services/{SECRET}?token={SECRET}"
HEADERS = {"Authorization": f"Bearer {SECRET}", "X-Key": SECRET}


def texts_of(error):
    """Everything of an error that a traceback, a repr or a log line could contain."""
    lines = "".join(traceback.format_exception(error))
    return f"{lines}{error!s}{error!r}{error.args}{vars(error)}"


async def post_error(url, headers=HEADERS, *, seconds=10.0, proxy=None):
    request = Request("POST", url, headers, SECRET.encode())
    return await send_error(request, Bounds(seconds, 1000), proxy=proxy)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(silence, id="a timeout"),
        pytest.param(sends_then_hangs_up(), id="no answer"),
        pytest.param(sends_then_resets(), id="a reset"),
        pytest.param(sends_then_hangs_up(b"HTTP/1.1 200 hunter2\r\nX: hunter2"), id="truncated"),
        pytest.param(sends(b"hunter2 hunter2 hunter2\r\n\r\n"), id="not HTTP"),
        pytest.param(answer(200, b"hunter2", content_encoding="gzip"), id="not gzip"),
        pytest.param(answer(200, b"", content_encoding="hunter2, br"), id="an encoding"),
    ],
)
async def test_errors_after_the_request_contain_no_secret(sent):
    with Server(sent) as server:
        error = await post_error(server.base_url + PATH, seconds=0.3)
        assert SECRET not in texts_of(error)


@pytest.mark.parametrize(
    "url",
    [
        f"http://127.0.0.1:1{PATH}",
        f"http://user:{SECRET}@127.0.0.1:1/",
        f"https://{SECRET}@[::1/",
        f"http://{SECRET}:x/",
        f"http://{SECRET}:99999/",
        f"{SECRET}://127.0.0.1/",
        f"https://{SECRET}\u2100/",
        f"http://127.0.0.1/{SECRET}\ud800",
        f"http://127.0.0.1/{SECRET}\x00",
        SECRET,
    ],
)
async def test_errors_before_the_request_contain_no_secret(url):
    assert SECRET not in texts_of(await post_error(url))


@pytest.mark.parametrize("value", [f"{SECRET}\xe9", f"{SECRET}\n", f"{SECRET}\x00", f" {SECRET}\r"])
async def test_errors_about_invalid_headers_contain_no_secret(value):
    with Server(answer()) as server:
        assert SECRET not in texts_of(await post_error(server.base_url, {"Authorization": value}))


async def test_dns_errors_name_the_host_alone(monkeypatch):
    def unknown(*_args, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = await post_error(f"https://user:{SECRET}@api.test:8443{PATH}")
    assert SECRET not in texts_of(error)
    assert str(error) == "the host name api.test cannot be resolved: Name or service not known"


async def test_tls_errors_contain_no_secret(tmp_path):
    issuer, _ = authority(tmp_path)
    with Server(answer(), server_context(issuer, "127.0.0.1")) as server:
        error = await post_error(server.base_url + PATH)
        assert error.reason == "tls"
        assert SECRET not in texts_of(error)


async def test_proxy_errors_do_not_contain_the_proxy_url():
    with Server(answer(407)) as refusing:
        for port in (1, refusing.port):
            proxy = FakeSecret(f"http://user:{SECRET}@127.0.0.1:{port}")
            error = await post_error("https://api.test/", proxy=proxy)
            assert error.reason == "connect"
            assert SECRET not in texts_of(error)


def test_the_repr_of_a_request_contains_nothing():
    request = Request("POST", f"https://host{PATH}", HEADERS, SECRET.encode())
    assert SECRET not in f"{request} {request!r}"


async def test_the_http_libraries_do_not_log_requests(caplog):
    caplog.set_level(logging.DEBUG)
    with Server(answer(200, b"ok")) as server:
        await send(Request("POST", server.base_url + PATH, HEADERS))
    assert SECRET not in caplog.text
    assert not [record for record in caplog.records if record.name.startswith("http")]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(silence, id="a timeout"),
        pytest.param(sends_then_resets(), id="a reset"),
        pytest.param(as_json({"title": "No", "message": "hunter2"}, 401), id="401"),
        pytest.param(as_json({"message": "Bearer hunter2"}, 400), id="400"),
        pytest.param(as_json({"request_id": "hunter2"}, 500), id="500"),
        pytest.param(redirect("https://hunter2.test/hunter2"), id="a redirect"),
        pytest.param(redirect("/hunter2"), id="a redirect loop"),
        pytest.param(answer(200, b'{"data":"hunter2"}'), id="a malformed page"),
        pytest.param(answer(200, b"hunter2"), id="no JSON"),
        pytest.param(as_json(page([fine_tune("hunter2")], has_more=True)), id="a loop"),
    ],
)
async def test_poll_errors_contain_neither_key_nor_url_nor_data(sent):
    with FakeApi() as api:
        api.otherwise = sent
        fixture = ClientFixture(REAL_CLOCK, f"{api.base_url}/prefix")
        fixture.key.value = SECRET
        with pytest.raises(CartesiaError) as caught:
            await fixture.poll(seconds=0.3)
        assert SECRET not in texts_of(caught.value)
        assert api.base_url not in texts_of(caught.value)
