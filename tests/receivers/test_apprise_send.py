"""Attempts by the real library over real sockets, and their outcomes."""

import asyncio
import gc
import json
import logging
import ssl
import threading
import time
from pathlib import Path

import pytest

from exporter.core.message import build_message
from exporter.core.retry import Attempt, Outcome
from exporter.receivers.apprise import Apprise
from tests.fakes.answers import answer, as_json, redirect, sends_then_resets, silence
from tests.fakes.certificates import authority, server_context
from tests.fakes.secret import FakeSecret
from tests.fakes.server import Answer, Received, Server
from tests.receivers.sample_events import AT, FAILED, LINK_TEMPLATES, TEST, delivery, failures
from tests.receivers.sending import LeakySecret

# A plugin of the library imports imghdr.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

TOKEN = "t0ps3cret"
FAILING = Attempt(
    Outcome.TRANSIENT, "Apprise could not send it; check the service, and what its URL says"
)
UNUSABLE = Attempt(
    Outcome.ENDPOINT,
    "/etc/cartesia/key is not a URL that Apprise can use, or needs another package",
)


def receiver(url: str, seconds: float = 20, ca_file: Path | None = None) -> Apprise:
    return Apprise("mail", LeakySecret(url), seconds, ca_file)


async def send(to: Apprise, reported=(FAILED,)) -> Attempt:
    body = to.render(build_message(list(reported), LINK_TEMPLATES))
    return await to.send(delivery(body), AT)


async def send_to_server(url: str, otherwise: Answer, **more) -> tuple[Attempt, list[Received]]:
    """Send once to a server with this answer; ``{port}`` in the URL is replaced."""
    with Server(otherwise) as server:
        return await send(receiver(url.format(port=server.port), **more)), server.requests


async def test_an_accepted_message_is_delivered():
    attempt, [request] = await send_to_server("json://user:p4ss@127.0.0.1:{port}/hook", answer())
    assert attempt == Attempt(Outcome.DELIVERED, "Apprise sent it")
    assert (request.method, request.path) == ("POST", "/hook")
    body = json.loads(request.body)
    assert body["title"] == "Fine-tune failed: My voice"
    assert body["message"].endswith("Status page: https://watch.example/")
    assert body["type"] == "failure"
    assert request.headers["user-agent"] == "cartesia-exporter"


async def test_a_service_gets_its_own_format():
    attempt, [request] = await send_to_server("ntfy://127.0.0.1:{port}/tunes", as_json({"id": "x"}))
    assert attempt.outcome is Outcome.DELIVERED
    assert "github" not in json.dumps(request.headers) + request.target
    body = json.loads(request.body)
    assert (body["topic"], body["title"]) == ("tunes", "Fine-tune failed: My voice")


async def test_a_message_that_is_too_long_for_a_service_is_truncated():
    with Server(as_json({"id": "x"})) as server:
        to = receiver(f"ntfy://127.0.0.1:{server.port}/tunes")
        assert (await send(to, failures(5000))).outcome is Outcome.DELIVERED
    [request] = server.requests
    body = json.loads(request.body)
    assert body["title"] == "5000 fine-tunes failed"
    assert len(body["message"]) <= 7_800  # NotifyNtfy.body_maxlen


@pytest.mark.parametrize("status", [302, 400, 401, 404, 429, 500])
async def test_a_refusal_is_transient_after_one_request(status):
    """The library does not return the status, and the deliverer makes the retries."""
    attempt, requests = await send_to_server(
        "json://127.0.0.1:{port}/x?retry=5&wait=0", answer(status)
    )
    assert attempt == FAILING
    assert len(requests) == 1


async def test_a_redirect_is_not_followed():
    with Server(answer()) as elsewhere:
        attempt, _ = await send_to_server("json://127.0.0.1:{port}/x", redirect(elsewhere.base_url))
    assert (attempt, elsewhere.requests) == (FAILING, [])


async def test_a_broken_or_refused_connection_is_transient():
    assert (await send_to_server("json://127.0.0.1:{port}/x", sends_then_resets(b"HTTP/1.1 2")))[
        0
    ] == FAILING
    with Server(silence) as server:
        closed_url = f"json://127.0.0.1:{server.port}/x"
    assert await send(receiver(closed_url)) == FAILING


@pytest.mark.parametrize("url", ["nope://x", "mailto://", "json://"])
async def test_the_error_of_an_invalid_url_names_its_source(url):
    assert await send(receiver(url)) == UNUSABLE


async def test_an_unreadable_url_is_an_endpoint_failure():
    url = FakeSecret("")
    url.value = None
    reason = "cannot read /etc/cartesia/key: no such file"
    assert await send(Apprise("mail", url, 5)) == Attempt(Outcome.ENDPOINT, reason)


async def test_the_url_is_read_again_at_each_attempt():
    url = FakeSecret("json://127.0.0.1:1/x")
    to = Apprise("mail", url, 20)
    with Server(answer()) as server:
        assert (await send(to)).outcome is Outcome.TRANSIENT
        url.value = f"json://127.0.0.1:{server.port}/x"
        assert (await send(to)).outcome is Outcome.DELIVERED
    assert url.reads == 2


async def test_the_reason_of_a_plugin_error_is_its_class(monkeypatch):
    import apprise

    def bug(*_, **__):
        raise LookupError(TOKEN)

    monkeypatch.setattr(apprise.Apprise, "instantiate", bug)
    found = await send(receiver("json://127.0.0.1:1/x"))
    assert found == Attempt(Outcome.TRANSIENT, "Apprise could not send it (LookupError)")


async def test_no_call_starts_while_one_hangs_after_its_timeout():
    """The thread cannot be ended; one more at each retry would exhaust the machine."""
    arrived, go = threading.Event(), threading.Event()

    def hangs(peer):
        arrived.set()
        go.wait(30)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with Server(hangs) as server:
        # The library's own timeouts are longer.
        to = receiver(f"json://127.0.0.1:{server.port}/x?rto=60&cto=60", seconds=20)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await send(to, [TEST])
        await asyncio.to_thread(arrived.wait, 20)
        busy = Attempt(Outcome.TRANSIENT, "the attempt before is still running")
        assert [await send(to, [TEST]) for _ in range(2)] == [busy] * 2
        assert len(server.requests) == 1
        go.set()
        await wait_until_idle(to)
        assert (await send(to)).outcome is Outcome.DELIVERED


async def wait_until_idle(to: Apprise) -> None:
    async with asyncio.timeout(20):
        while to._thread.busy:  # noqa: ASYNC110 - a thread has no event for it
            await asyncio.sleep(0.01)


async def test_a_timeout_is_ambiguous():
    warm = receiver("nope://x")
    assert await send(warm) == UNUSABLE  # loads the library, which is slow
    with Server(silence) as server:
        to = receiver(f"json://127.0.0.1:{server.port}/x?rto=60", seconds=1)
        started = time.monotonic()
        found = await send(to)
        assert 0.9 < time.monotonic() - started < 10
        assert found == Attempt(Outcome.TRANSIENT, "Apprise did not end within 1 s", ambiguous=True)
        assert len(server.requests) == 1
        await wait_until_idle(to)  # ends by our timeout, not by that of the URL


async def test_ca_file_replaces_the_default_authorities(tmp_path):
    issuer, ca_file = authority(tmp_path)
    context: ssl.SSLContext = server_context(issuer, "127.0.0.1")
    with Server(answer(), context) as server:
        url = f"jsons://127.0.0.1:{server.port}/x"
        assert await send(receiver(url)) == FAILING
        assert server.requests == []
        assert (await send(receiver(url, ca_file=ca_file))).outcome is Outcome.DELIVERED


@pytest.mark.parametrize(
    "otherwise", [answer(), answer(500), redirect(f"http://{TOKEN}.example/"), silence]
)
async def test_the_library_logs_nothing_at_the_lowest_level(caplog, capfd, otherwise):
    caplog.set_level(1)
    url = f"json://user:{TOKEN}@127.0.0.1:{{port}}/{TOKEN}?+X-Key={TOKEN}&:k={TOKEN}"
    attempt, _ = await send_to_server(url, otherwise, seconds=2)
    attempts = [
        attempt,
        await send(receiver(f"nope://{TOKEN}")),
        await send(receiver(f"json://{TOKEN}:x")),
    ]
    assert TOKEN not in repr(attempts)
    loggers = {record.name.partition(".")[0] for record in caplog.records}
    assert loggers <= {"asyncio"}
    assert TOKEN not in caplog.text
    assert capfd.readouterr() == ("", "")


async def test_no_warning_shows_the_host_of_an_unverified_certificate(tmp_path, recwarn, caplog):
    issuer, _ = authority(tmp_path)
    with Server(answer(), server_context(issuer, "127.0.0.1")) as server:
        url = f"jsons://127.0.0.1:{server.port}/{TOKEN}?verify=no"
        assert (await send(receiver(url))).outcome is Outcome.DELIVERED
    gc.collect()
    assert [str(each.message) for each in recwarn if "127.0.0.1" in str(each.message)] == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_no_repr_shows_the_url():
    to = receiver(f"json://user:{TOKEN}@127.0.0.1:1/{TOKEN}")
    assert TOKEN not in repr(to)


async def test_nothing_is_written_to_disk(tmp_path, monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert (await send_to_server("json://127.0.0.1:{port}/x", answer()))[
        0
    ].outcome is Outcome.DELIVERED
    assert list(tmp_path.iterdir()) == []
