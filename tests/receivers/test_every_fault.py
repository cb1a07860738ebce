"""Outcomes of all faults of a server on a socket, bounded in time and memory."""

import ssl
import time
import tracemalloc
from datetime import UTC, datetime

import pytest
import trustme

from exporter.core.retry import Attempt, Outcome
from tests.fakes.answers import (
    answer,
    chunked,
    drips,
    gzip_bomb,
    head,
    redirect,
    sends,
    sends_then_hangs_up,
    sends_then_resets,
    silence,
    zeros,
)
from tests.fakes.certificates import authority, server_context
from tests.fakes.proxy import tunnel
from tests.fakes.secret import FakeSecret
from tests.fakes.server import Peer, Server
from tests.receivers.sending import BODY, Connection, send, send_by_each_type

SECONDS = 0.5
LATEST = SECONDS + 15  # for a slow machine; the product waits for SECONDS only
MOST_MEMORY = 8 * 2**20

D, T, E = Outcome.DELIVERED, Outcome.TRANSIENT, Outcome.ENDPOINT


def resets(peer: Peer) -> None:
    peer.reset()


def floods(piece: bytes):
    """Send the piece again and again, as fast as the client receives it."""

    def script(peer: Peer) -> None:
        while True:
            peer.send(piece)

    return script


def outcomes(found: list[Attempt]) -> list[tuple[Outcome, bool]]:
    return [(each.outcome, each.ambiguous) for each in found]


OK = head(200, content_length=2)
FAULTS = {
    "hangs": (silence, T, True),
    "drips its headers": (drips(b"HTTP/1.1 200 OK\r\nx: ", b"y"), T, True),
    "drips its status": (drips(b"", b"H", every=0.1), T, True),
    "resets when it has read": (resets, T, True),
    "resets within the status": (sends_then_resets(b"HTTP/1.1 20"), T, True),
    "hangs up without an answer": (sends_then_hangs_up(), T, True),
    "hangs up within the headers": (sends_then_hangs_up(b"HTTP/1.1 200 OK\r\nx"), T, True),
    "speaks no HTTP": (sends_then_hangs_up(b"220 mail.example ESMTP\r\n"), T, True),
    "answers without end in its headers": (
        floods(b"HTTP/1.1 200 OK\r\nx: " + bytes(2**16)),
        T,
        True,
    ),
    "answers 100 without end": (floods(head(100)), T, True),
    # The status arrived, and says that the message was accepted.
    "drips its body": (drips(head(200, content_length=10**6)), D, False),
    "resets within the body": (sends_then_resets(head(200, content_length=5), b"o"), D, False),
    "answers what does not decode": (answer(200, b"x", content_encoding="gzip"), D, False),
    "answers twice": (sends(OK + b"ok" + OK + b"ok"), D, False),
    "drips the body of a refusal": (drips(head(404, content_length=10**6)), E, False),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_has_its_outcome_within_its_bounds(fault):
    script, outcome, ambiguous = FAULTS[fault]
    with Server(script) as server:
        tracemalloc.start()
        began = time.monotonic()
        found = await send_by_each_type(server.base_url, Connection(SECONDS))
        seconds, (_, most) = time.monotonic() - began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert [request.body for request in server.requests] == [BODY] * 2, "a request was repeated"
    assert outcomes(found) == [(outcome, ambiguous)] * 2, found
    assert seconds < LATEST
    assert most < MOST_MEMORY


@pytest.mark.parametrize(
    "script", [chunked(zeros(10_000)), answer(200, gzip_bomb(100), content_encoding="gzip")]
)
async def test_an_answer_without_end_is_no_answer_of_a_chat_but_one_of_a_webhook(script):
    with Server(script) as server:
        tracemalloc.start()
        found = await send_by_each_type(server.base_url, Connection(SECONDS))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert outcomes(found) == [(T, True), (D, False)]
    assert most < MOST_MEMORY


async def test_a_connection_that_is_reset_before_the_request_is_transient():
    with Server(answer(200)) as server:
        server.on_connection = resets
        found = await send_by_each_type(server.base_url, Connection(SECONDS))
        assert server.requests == []
    assert {each.outcome for each in found} == {T}


async def test_a_refused_connection_is_not_ambiguous():
    with Server(silence) as server:
        closed_url = server.base_url
    found = await send_by_each_type(closed_url, Connection(SECONDS))
    assert outcomes(found) == [(T, False)] * 2


async def test_a_redirect_is_not_followed():
    with Server(answer(200, b"ok")) as elsewhere, Server(answer()) as server:
        for status in (301, 302, 303, 307, 308):
            server.otherwise = redirect(f"{elsewhere.base_url}/x", status)
            found = await send_by_each_type(server.base_url)
            assert outcomes(found) == [(E, False)] * 2
        assert elsewhere.requests == []


EXPIRED = datetime(2020, 1, 1, tzinfo=UTC)


def _context(issuer: trustme.CA, fault: str) -> ssl.SSLContext:
    if fault == "it was issued for another host":
        return server_context(issuer, "other.example")
    if fault == "certificate has expired":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issuer.issue_cert("127.0.0.1", not_after=EXPIRED).configure_cert(context)
        return context
    return server_context(trustme.CA(), "127.0.0.1")


@pytest.mark.parametrize(
    "fault",
    ["unable to get local issuer", "it was issued for another host", "certificate has expired"],
)
async def test_nothing_is_sent_to_a_server_with_a_refused_certificate(tmp_path, fault):
    issuer, ca_file = authority(tmp_path)
    with Server(answer(200, b"ok"), _context(issuer, fault)) as server:
        found = await send_by_each_type(server.base_url, Connection(ca_file=ca_file))
        assert server.requests == []
        assert outcomes(found) == [(E, False)] * 2
        refused = f"the certificate of {server.address} is refused: {fault}"
        assert found[0].reason.startswith(refused)


async def test_nothing_is_sent_to_a_server_without_tls():
    with Server(answer(200, b"ok")) as server:
        server.greeting = b"220 mail.example ESMTP\r\n"
        found = await send_by_each_type(
            server.base_url.replace("http:", "https:"), Connection(SECONDS)
        )
        assert server.requests == []
    assert outcomes(found) == [(E, False)] * 2


async def test_a_handshake_that_hangs_is_bounded_and_not_ambiguous(monkeypatch):
    monkeypatch.setattr("exporter.http_client.CONNECT_TIMEOUT_SECONDS", SECONDS)
    with Server(silence) as server:
        server.on_connection = silence
        began = time.monotonic()
        found = await send_by_each_type(server.base_url.replace("http:", "https:"), Connection(60))
        assert time.monotonic() - began < LATEST
    assert outcomes(found) == [(T, False)] * 2


@pytest.mark.parametrize(
    ("script", "outcome", "ambiguous"),
    [
        # Slack itself accepts with `ok` only: a 200 without its body is a lost answer.
        (drips(head(200, content_length=10**6)), T, True),
        (sends_then_resets(head(200, content_length=5), b"o"), T, True),
        (answer(200, b"<html>"), T, True),
        (chunked(zeros(10_000)), T, True),
        (drips(head(404, content_length=10**6)), E, False),
    ],
    ids=["drips", "resets", "another body", "without end", "drips a refusal"],
)
async def test_slack_itself_without_ok_did_not_accept_the_message(
    tmp_path, script, outcome, ambiguous
):
    issuer, ca_file = authority(tmp_path)
    context = server_context(issuer, "hooks.slack.com")
    with Server(script, context) as server, Server(tunnel) as proxy:
        connection = Connection(1.0, ca_file, FakeSecret(proxy.base_url))
        found = await send("slack", f"https://hooks.slack.com:{server.port}/x", connection)
    assert (found.outcome, found.ambiguous) == (outcome, ambiguous), found.reason
