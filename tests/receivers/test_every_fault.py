"""Every way for a server to fail on a socket: which trouble it is, bounded in time and memory."""

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
from tests.receivers.faults import BODY, Way, told, told_each_kind

SECONDS = 0.5
LATEST = SECONDS + 4  # a slow machine, not a wait of ours
MOST_MEMORY = 8 * 2**20

D, T, E = Outcome.DELIVERED, Outcome.TRANSIENT, Outcome.ENDPOINT


def resets(peer: Peer) -> None:
    peer.reset()


def floods(piece: bytes):
    """The same again and again, as fast as it is taken."""

    def script(peer: Peer) -> None:
        while True:
            peer.send(piece)

    return script


def judged(found: list[Attempt]) -> list[tuple[Outcome, bool]]:
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
    # The status was there, and says that the message was taken.
    "drips its body": (drips(head(200, content_length=10**6)), D, False),
    "resets within the body": (sends_then_resets(head(200, content_length=5), b"o"), D, False),
    "answers without end": (chunked(zeros(10_000)), D, False),
    "answers with a bomb": (answer(200, gzip_bomb(100), content_encoding="gzip"), D, False),
    "answers what does not decode": (answer(200, b"x", content_encoding="gzip"), D, False),
    "answers twice": (sends(OK + b"ok" + OK + b"ok"), D, False),
    "drips the body of a refusal": (drips(head(404, content_length=10**6)), E, False),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_of_its_class_and_bounded(fault):
    script, outcome, ambiguous = FAULTS[fault]
    with Server(script) as server:
        tracemalloc.start()
        began = time.monotonic()
        found = told_each_kind(server.base_url, Way(SECONDS))
        took, (_, most) = time.monotonic() - began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert [request.body for request in server.requests] == [BODY] * 2, "each is sent once"
    assert judged(found) == [(outcome, ambiguous)] * 2, found
    assert took < LATEST
    assert most < MOST_MEMORY


def test_a_connection_that_is_reset_before_anything_was_read_is_worth_another_try():
    with Server(answer(200)) as server:
        server.on_connection = resets
        found = told_each_kind(server.base_url, Way(SECONDS))
        assert server.requests == []
    assert {each.outcome for each in found} == {T}


def test_what_nobody_listened_to_has_not_arrived():
    with Server(silence) as server:
        gone = server.base_url
    found = told_each_kind(gone, Way(SECONDS))
    assert judged(found) == [(T, False)] * 2


def test_a_redirect_is_not_followed():
    with Server(answer(200, b"ok")) as elsewhere, Server(answer()) as server:
        for status in (301, 302, 303, 307, 308):
            server.otherwise = redirect(f"{elsewhere.base_url}/x", status)
            found = told_each_kind(server.base_url)
            assert judged(found) == [(E, False)] * 2
        assert elsewhere.requests == []


EXPIRED = datetime(2020, 1, 1, tzinfo=UTC)


def _context(issuer: trustme.CA, fault: str) -> ssl.SSLContext:
    if fault == "it is another host's":
        return server_context(issuer, "other.example")
    if fault == "certificate has expired":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issuer.issue_cert("127.0.0.1", not_after=EXPIRED).configure_cert(context)
        return context
    return server_context(trustme.CA(), "127.0.0.1")


@pytest.mark.parametrize(
    "fault", ["unable to get local issuer", "it is another host's", "certificate has expired"]
)
def test_a_certificate_that_is_refused_is_the_endpoints_and_nothing_was_sent(tmp_path, fault):
    issuer, ca_file = authority(tmp_path)
    with Server(answer(200, b"ok"), _context(issuer, fault)) as server:
        found = told_each_kind(server.base_url, Way(ca_file=ca_file))
        assert server.requests == []
    assert judged(found) == [(E, False)] * 2
    assert f"the server's certificate is refused: {fault}" in found[0].reason


def test_a_server_that_speaks_no_tls_was_sent_nothing():
    with Server(answer(200, b"ok")) as server:
        server.greeting = b"220 mail.example ESMTP\r\n"
        found = told_each_kind(server.base_url.replace("http:", "https:"), Way(SECONDS))
        assert server.requests == []
    assert judged(found) == [(E, False)] * 2


def test_a_handshake_that_hangs_is_bounded_and_nothing_was_sent(monkeypatch):
    monkeypatch.setattr("exporter.http_client.CONNECT_TIMEOUT_SECONDS", SECONDS)
    with Server(silence) as server:
        server.on_connection = silence
        began = time.monotonic()
        found = told_each_kind(server.base_url.replace("http:", "https:"), Way(60))
        assert time.monotonic() - began < LATEST
    assert judged(found) == [(T, False)] * 2


@pytest.mark.parametrize(
    ("script", "outcome", "ambiguous"),
    [
        # From Slack itself only `ok` is a delivery: without its body a 200 is an answer lost.
        (drips(head(200, content_length=10**6)), T, True),
        (sends_then_resets(head(200, content_length=5), b"o"), T, True),
        (answer(200, b"<html>"), Outcome.PAYLOAD, False),
        (chunked(zeros(10_000)), Outcome.PAYLOAD, False),
        (drips(head(404, content_length=10**6)), E, False),
    ],
    ids=["drips", "resets", "another body", "without end", "drips a refusal"],
)
def test_without_its_ok_slack_itself_has_not_taken_a_message(tmp_path, script, outcome, ambiguous):
    issuer, ca_file = authority(tmp_path)
    context = server_context(issuer, "hooks.slack.com")
    with Server(script, context) as server, Server(tunnel) as proxy:
        way = Way(1.0, ca_file, FakeSecret(proxy.base_url))
        found = told("slack", f"https://hooks.slack.com:{server.port}/x", way)
    assert (found.outcome, found.ambiguous) == (outcome, ambiguous), found.reason
