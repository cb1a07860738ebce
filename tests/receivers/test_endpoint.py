"""What every receiver posts with: bounded in time and size, and silent about its URL."""

import asyncio
import ssl
import time
import traceback

import pytest
import trustme

from exporter.core.retry import Attempt, Outcome
from exporter.http_client import HttpClient, Response
from exporter.receivers.receiver import Endpoint, answered
from exporter.receivers.slack import Slack
from exporter.receivers.webhook import Webhook
from tests.fakes.answers import (
    answer,
    chunked,
    drips,
    head,
    sends,
    sends_then_resets,
    silence,
    zeros,
)
from tests.fakes.secret import FakeSecret
from tests.fakes.server import Answer, Server
from tests.receivers.sample_events import AT, delivery

TOKEN = "B0-very-secret-path"


class LeakySecret(FakeSecret):
    """A secret whose repr tells it, as that of any wrapper might."""

    def __repr__(self) -> str:
        return f"LeakySecret({self.value})"


def posted(url: FakeSecret, seconds: float = 10) -> Response | Attempt:
    async def run() -> Response | Attempt:
        async with HttpClient() as http_client:
            return await Endpoint(http_client, url, seconds).post(b"{}", {})

    return asyncio.run(run())


def to_server(otherwise: Answer, seconds: float = 10) -> tuple[Response | Attempt, Server]:
    with Server(otherwise) as server:
        return posted(FakeSecret(f"{server.base_url}/{TOKEN}"), seconds), server


@pytest.mark.parametrize(
    "otherwise",
    [silence, drips(b"HTTP/1.1 200 OK\r\nx: ", b"y")],
    ids=["silent", "dripping its headers"],
)
def test_a_slow_server_is_left_by_the_clock_on_the_wall(otherwise):
    started = time.monotonic()
    found, _ = to_server(otherwise, seconds=0.4)
    assert 0.3 < time.monotonic() - started < 5
    assert found == Attempt(Outcome.TRANSIENT, "no complete answer within 0.4 s", ambiguous=True)


def test_no_more_than_64_kib_of_an_answer_are_read():
    found, server = to_server(chunked(zeros(200)))
    assert isinstance(found, Response)
    assert (found.status, len(found.body), found.cut) == (200, 64 * 1024, True)
    assert server.bytes_sent < 100 * 2**20


def test_an_answer_that_breaks_off_is_worth_another_try():
    found, _ = to_server(sends_then_resets(b"HTTP/1.1 200 "))
    assert isinstance(found, Attempt)
    assert found.outcome is Outcome.TRANSIENT


@pytest.mark.parametrize(
    "otherwise",
    [
        sends_then_resets(head(200, content_length=5)),
        drips(head(200, content_length=10**6)),
        answer(200, b"no gzip", content_encoding="gzip"),
    ],
    ids=["reset", "dripping", "undecodable"],
)
def test_a_body_that_does_not_come_takes_nothing_back_of_the_status(otherwise):
    """The message was taken: to repeat it every few minutes for days would be a storm."""
    found, _ = to_server(otherwise, seconds=0.4)
    assert isinstance(found, Response)
    assert answered(found, AT).outcome is Outcome.DELIVERED


@pytest.mark.parametrize("surplus", [b"\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
def test_what_comes_behind_an_answer_does_not_touch_the_next_message(surplus):
    """Noticed when the next message had been sent, it made that one arrive twice."""
    with Server(answer(500)) as server:
        server.then(sends(head(200, content_length=2) + b"ok" + surplus))

        async def run() -> list[Response | Attempt]:
            async with HttpClient() as http_client:
                endpoint = Endpoint(http_client, FakeSecret(server.base_url), 10)
                return [await endpoint.post(b"{}", {}) for _ in range(2)]

        statuses = [each.status for each in asyncio.run(run()) if isinstance(each, Response)]
    assert statuses == [200, 500]
    assert len(server.requests) == 2


def test_nobody_listening_is_worth_another_try():
    with Server(silence) as server:
        gone = f"{server.base_url}/{TOKEN}"
    found = posted(FakeSecret(gone))
    assert isinstance(found, Attempt)
    assert found.outcome is Outcome.TRANSIENT


def test_a_refused_certificate_is_the_endpoints_trouble():
    unknown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(unknown)
    with Server(silence, unknown) as server:
        found = posted(FakeSecret(f"{server.base_url}/{TOKEN}"))
    assert isinstance(found, Attempt)
    assert found.outcome is Outcome.ENDPOINT
    assert "certificate" in found.reason


def test_a_url_that_cannot_be_read_is_the_endpoints_trouble_and_names_the_file():
    url = FakeSecret("")
    url.value = None
    reason = "cannot read /etc/cartesia/key: no such file"
    assert posted(url) == Attempt(Outcome.ENDPOINT, reason)


def test_the_url_is_read_again_at_each_attempt():
    url = FakeSecret("http://127.0.0.1:1/")
    for _ in range(3):
        posted(url, seconds=5)
    assert url.reads == 3


@pytest.mark.parametrize(
    "url",
    [
        f"http://127.0.0.1:1/{TOKEN}",
        f"http://[{TOKEN}",
        f"http://127.0.0.1:99999/{TOKEN}",
        f"ftp://127.0.0.1/{TOKEN}",
        f"http://127.0.0.1\x00/{TOKEN}",
        TOKEN,
    ],
)
def test_no_failure_tells_the_url(url):
    found = posted(FakeSecret(url), seconds=5)
    assert isinstance(found, Attempt)
    assert found.outcome in {Outcome.TRANSIENT, Outcome.ENDPOINT}
    assert TOKEN not in found.reason
    assert "127.0.0.1" not in found.reason


@pytest.mark.parametrize("answered", [200, 302, 404, 503])
def test_no_answer_makes_an_attempt_tell_the_url(answered):
    def echo(peer):
        line = f"{peer.request.target} {peer.request.body.decode()}"
        peer.send(head(answered, content_length=len(line), location=peer.request.target))
        peer.send(line.encode())

    async def run() -> Attempt:
        async with HttpClient() as http_client:
            url = FakeSecret(f"{server.base_url}/{TOKEN}")
            return await Slack("team", Endpoint(http_client, url, 10)).send(delivery(b"{}"), AT)

    with Server(echo) as server:
        assert TOKEN not in repr(asyncio.run(run()))


def test_no_repr_and_no_traceback_of_a_receiver_tells_a_secret():
    endpoint = Endpoint(HttpClient(), LeakySecret(f"https://hooks.slack.com/{TOKEN}"), 15)
    slack = Slack("team", endpoint)
    webhook = Webhook("ops", endpoint, LeakySecret("whsec_c2VjcmV0"))
    for part in (endpoint, slack, webhook):
        assert TOKEN not in repr(part)
        assert "whsec_" not in repr(part)
    assert TOKEN not in "".join(traceback.format_exception(RuntimeError(slack, webhook)))
