"""The POST that receivers share: bounded in time and size, with no URL in its results."""

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
from tests.receivers.sending import LeakySecret

TOKEN = "B0-very-secret-path"


async def post(url: FakeSecret, seconds: float = 10) -> Response | Attempt:
    async with HttpClient() as http_client:
        return await Endpoint(http_client, url, seconds).post(b"{}", {})


async def post_to_server(
    otherwise: Answer, seconds: float = 10
) -> tuple[Response | Attempt, Server]:
    with Server(otherwise) as server:
        return await post(FakeSecret(f"{server.base_url}/{TOKEN}"), seconds), server


@pytest.mark.parametrize(
    "otherwise",
    [silence, drips(b"HTTP/1.1 200 OK\r\nx: ", b"y")],
    ids=["silent", "dripping its headers"],
)
async def test_a_slow_answer_ends_at_the_timeout(otherwise):
    started = time.monotonic()
    found, server = await post_to_server(otherwise, seconds=0.4)
    assert 0.3 < time.monotonic() - started < 5
    reason = f"no complete answer from {server.address} within 0.4 s"
    assert found == Attempt(Outcome.TRANSIENT, reason, ambiguous=True)


async def test_at_most_64_kib_of_an_answer_are_read():
    found, server = await post_to_server(chunked(zeros(200)))
    assert isinstance(found, Response)
    assert (found.status, len(found.body), found.truncated) == (200, 64 * 1024, True)
    assert server.bytes_sent < 100 * 2**20


async def test_an_answer_that_breaks_off_is_transient():
    found, _ = await post_to_server(sends_then_resets(b"HTTP/1.1 200 "))
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
async def test_the_status_counts_without_its_body(otherwise):
    """The message was accepted: repeating it for days would flood the receiver."""
    found, _ = await post_to_server(otherwise, seconds=0.4)
    assert isinstance(found, Response)
    assert answered(found, AT).outcome is Outcome.DELIVERED


@pytest.mark.parametrize("surplus", [b"\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
async def test_surplus_bytes_behind_an_answer_do_not_affect_the_next_message(surplus):
    """They were found after the next message was sent, which then arrived twice."""
    with Server(answer(500)) as server:
        server.then(sends(head(200, content_length=2) + b"ok" + surplus))

        async with HttpClient() as http_client:
            endpoint = Endpoint(http_client, FakeSecret(server.base_url), 10)
            responses = [await endpoint.post(b"{}", {}) for _ in range(2)]
        statuses = [each.status for each in responses if isinstance(each, Response)]
    assert statuses == [200, 500]
    assert len(server.requests) == 2


async def test_a_refused_connection_is_transient():
    with Server(silence) as server:
        closed_url = f"{server.base_url}/{TOKEN}"
    found = await post(FakeSecret(closed_url))
    assert isinstance(found, Attempt)
    assert found.outcome is Outcome.TRANSIENT


async def test_a_refused_certificate_is_an_endpoint_failure():
    unknown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(unknown)
    with Server(silence, unknown) as server:
        found = await post(FakeSecret(f"{server.base_url}/{TOKEN}"))
    assert isinstance(found, Attempt)
    assert found.outcome is Outcome.ENDPOINT
    assert "certificate" in found.reason


async def test_an_unreadable_url_is_an_endpoint_failure_that_names_the_file():
    url = FakeSecret("")
    url.value = None
    reason = "cannot read /etc/cartesia/key: no such file"
    assert await post(url) == Attempt(Outcome.ENDPOINT, reason)


async def test_the_url_is_read_again_at_each_attempt():
    url = FakeSecret("http://127.0.0.1:1/")
    for _ in range(3):
        await post(url, seconds=5)
    assert url.reads == 3


async def test_no_failure_shows_the_url():
    for url in (
        f"http://127.0.0.1:1/{TOKEN}",
        f"http://[{TOKEN}",
        f"http://127.0.0.1:99999/{TOKEN}",
        f"ftp://127.0.0.1/{TOKEN}",
        f"http://127.0.0.1\x00/{TOKEN}",
        TOKEN,
    ):
        found = await post(FakeSecret(url), seconds=5)
        assert isinstance(found, Attempt), url
        assert found.outcome in {Outcome.TRANSIENT, Outcome.ENDPOINT}, url
        assert TOKEN not in found.reason, url


async def test_no_attempt_shows_the_url_that_an_answer_repeats():
    def echo(peer):
        text = f"{peer.request.target} {peer.request.body.decode()}"
        location = peer.request.target
        peer.send(head(status, content_length=len(text), location=location))
        peer.send(text.encode())

    for status in (200, 302, 404, 503):
        with Server(echo) as server:
            async with HttpClient() as http_client:
                url = FakeSecret(f"{server.base_url}/{TOKEN}")
                slack = Slack("team", Endpoint(http_client, url, 10))
                assert TOKEN not in repr(await slack.send(delivery(b"{}"), AT)), status


def test_no_repr_and_no_traceback_of_a_receiver_shows_a_secret():
    endpoint = Endpoint(HttpClient(), LeakySecret(f"https://hooks.slack.com/{TOKEN}"), 15)
    slack = Slack("team", endpoint)
    webhook = Webhook("ops", endpoint, LeakySecret("whsec_c2VjcmV0"))
    for each in (endpoint, slack, webhook):
        assert TOKEN not in repr(each)
        assert "whsec_" not in repr(each)
    assert TOKEN not in "".join(traceback.format_exception(RuntimeError(slack, webhook)))
