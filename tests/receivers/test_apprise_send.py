"""One attempt by the real library, to a real socket, and what comes of it."""

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

# A plugin of the library imports it when the plugins are loaded.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

TOKEN = "t0ps3cret"
FAILING = Attempt(
    Outcome.TRANSIENT, "Apprise could not send it; check the service, and what its URL says"
)
UNUSABLE = Attempt(
    Outcome.ENDPOINT,
    "/etc/cartesia/key is not a URL that Apprise can use, or needs another package",
)


class LeakySecret(FakeSecret):
    """A secret whose repr tells it, as that of any wrapper might."""

    def __repr__(self) -> str:
        return f"LeakySecret({self.value})"


def receiver(url: str, seconds: float = 20, ca_file: Path | None = None) -> Apprise:
    return Apprise("mail", LeakySecret(url), seconds, ca_file)


def sent(to: Apprise, told=(FAILED,)) -> Attempt:
    body = to.render(build_message(list(told), LINK_TEMPLATES))
    return asyncio.run(to.send(delivery(body), AT))


def told(url: str, otherwise: Answer, **more) -> tuple[Attempt, list[Received]]:
    """Send once to a server that answers so; `url` has its port in braces."""
    with Server(otherwise) as server:
        return sent(receiver(url.format(port=server.port), **more)), server.requests


def test_a_message_that_was_taken_is_delivered():
    attempt, [request] = told("json://user:p4ss@127.0.0.1:{port}/hook", answer())
    assert attempt == Attempt(Outcome.DELIVERED, "Apprise sent it")
    assert (request.method, request.path) == ("POST", "/hook")
    body = json.loads(request.body)
    assert body["title"] == "Fine-tune failed: My voice"
    assert body["message"].endswith("Status page: https://watch.example/")
    assert body["type"] == "failure"
    assert request.headers["user-agent"] == "cartesia-exporter"


def test_a_service_with_a_format_of_its_own_gets_it():
    attempt, [request] = told("ntfy://127.0.0.1:{port}/tunes", as_json({"id": "x"}))
    assert attempt.outcome is Outcome.DELIVERED
    assert "github" not in json.dumps(request.headers) + request.target
    body = json.loads(request.body)
    assert (body["topic"], body["title"]) == ("tunes", "Fine-tune failed: My voice")


def test_a_message_that_is_too_long_for_a_service_is_cut_and_not_split_or_refused():
    with Server(as_json({"id": "x"})) as server:
        to = receiver(f"ntfy://127.0.0.1:{server.port}/tunes")
        assert sent(to, failures(5000)).outcome is Outcome.DELIVERED
    [request] = server.requests
    body = json.loads(request.body)
    assert body["title"] == "5000 fine-tunes failed"
    assert len(body["message"]) <= 7_800  # NotifyNtfy.body_maxlen


@pytest.mark.parametrize("status", [302, 400, 401, 404, 429, 500])
def test_what_the_service_refuses_is_worth_another_try_and_is_tried_once(status):
    """The library tells no status; and the tries are counted by us."""
    attempt, requests = told("json://127.0.0.1:{port}/x?retry=5&wait=0", answer(status))
    assert attempt == FAILING
    assert len(requests) == 1


def test_a_redirect_is_not_followed():
    with Server(answer()) as elsewhere:
        attempt, _ = told("json://127.0.0.1:{port}/x", redirect(elsewhere.base_url))
    assert (attempt, elsewhere.requests) == (FAILING, [])


def test_a_connection_that_breaks_or_is_refused_is_worth_another_try():
    assert told("json://127.0.0.1:{port}/x", sends_then_resets(b"HTTP/1.1 2"))[0] == FAILING
    with Server(silence) as server:
        gone = f"json://127.0.0.1:{server.port}/x"
    assert sent(receiver(gone)) == FAILING


@pytest.mark.parametrize("url", ["nope://x", "mailto://", "json://"])
def test_a_url_that_apprise_does_not_take_names_where_it_comes_from(url):
    assert sent(receiver(url)) == UNUSABLE


def test_a_url_that_cannot_be_read_is_the_endpoints_trouble():
    url = FakeSecret("")
    url.value = None
    reason = "cannot read /etc/cartesia/key: no such file"
    assert sent(Apprise("mail", url, 5)) == Attempt(Outcome.ENDPOINT, reason)


def test_the_url_is_read_again_at_each_attempt():
    url = FakeSecret("json://127.0.0.1:1/x")
    to = Apprise("mail", url, 20)
    with Server(answer()) as server:
        assert sent(to).outcome is Outcome.TRANSIENT
        url.value = f"json://127.0.0.1:{server.port}/x"
        assert sent(to).outcome is Outcome.DELIVERED
    assert url.reads == 2


def test_an_error_of_a_plugin_is_told_by_its_kind_alone(monkeypatch):
    import apprise

    def bug(*_, **__):
        raise LookupError(TOKEN)

    monkeypatch.setattr(apprise.Apprise, "instantiate", bug)
    found = sent(receiver("json://127.0.0.1:1/x"))
    assert found == Attempt(Outcome.TRANSIENT, "Apprise could not send it (LookupError)")


def test_a_service_that_hangs_is_left_at_the_deadline_and_not_asked_again_meanwhile():
    """The thread cannot be ended; a second one each few minutes would fill the machine."""
    arrived, go = threading.Event(), threading.Event()

    def hangs(peer):
        arrived.set()
        go.wait(30)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with Server(hangs) as server:
        # The library's own patience is not what ends it here.
        to = receiver(f"json://127.0.0.1:{server.port}/x?rto=60&cto=60", seconds=20)
        body = to.render(build_message([TEST], LINK_TEMPLATES))

        async def run() -> list[Attempt]:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await to.send(delivery(body), AT)
            await asyncio.to_thread(arrived.wait, 20)
            return [await to.send(delivery(body), AT) for _ in range(2)]

        assert (
            asyncio.run(run())
            == [Attempt(Outcome.TRANSIENT, "the attempt before is still running")] * 2
        )
        assert len(server.requests) == 1
        go.set()
        ended(to)
        assert sent(to).outcome is Outcome.DELIVERED


def ended(to: Apprise) -> None:
    deadline = time.monotonic() + 20
    while to._thread.busy:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_at_the_deadline_the_message_may_have_arrived():
    warm = receiver("nope://x")
    assert sent(warm) == UNUSABLE  # the library is loaded: that takes its time
    with Server(silence) as server:
        to = receiver(f"json://127.0.0.1:{server.port}/x?rto=60", seconds=1)
        started = time.monotonic()
        found = sent(to)
        assert 0.9 < time.monotonic() - started < 10
        assert found == Attempt(Outcome.TRANSIENT, "Apprise did not end within 1 s", ambiguous=True)
        assert len(server.requests) == 1
        ended(to)  # by the time-out that it was given, not by the URL's


def test_a_ca_file_takes_the_place_of_the_usual_authorities(tmp_path):
    issuer, ca_file = authority(tmp_path)
    context: ssl.SSLContext = server_context(issuer, "127.0.0.1")
    with Server(answer(), context) as server:
        url = f"jsons://127.0.0.1:{server.port}/x"
        assert sent(receiver(url)) == FAILING
        assert server.requests == []
        assert sent(receiver(url, ca_file=ca_file)).outcome is Outcome.DELIVERED


@pytest.mark.parametrize(
    "otherwise", [answer(), answer(500), redirect(f"http://{TOKEN}.example/"), silence]
)
def test_the_library_logs_nothing_at_the_lowest_level(caplog, capfd, otherwise):
    caplog.set_level(1)
    url = f"json://user:{TOKEN}@127.0.0.1:{{port}}/{TOKEN}?+X-Key={TOKEN}&:k={TOKEN}"
    attempt, _ = told(url, otherwise, seconds=2)
    attempts = [attempt, sent(receiver(f"nope://{TOKEN}")), sent(receiver(f"json://{TOKEN}:x"))]
    assert TOKEN not in repr(attempts)
    loggers = {record.name.partition(".")[0] for record in caplog.records}
    assert loggers <= {"asyncio"}
    assert TOKEN not in caplog.text
    assert capfd.readouterr() == ("", "")


def test_a_certificate_that_nobody_looks_at_is_not_told_with_its_host(tmp_path, recwarn, caplog):
    issuer, _ = authority(tmp_path)
    with Server(answer(), server_context(issuer, "127.0.0.1")) as server:
        url = f"jsons://127.0.0.1:{server.port}/{TOKEN}?verify=no"
        assert sent(receiver(url)).outcome is Outcome.DELIVERED
    gc.collect()
    assert [str(each.message) for each in recwarn if "127.0.0.1" in str(each.message)] == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_no_repr_tells_the_url():
    to = receiver(f"json://user:{TOKEN}@127.0.0.1:1/{TOKEN}")
    assert TOKEN not in repr(to)


def test_nothing_is_written_to_disk(tmp_path, monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert told("json://127.0.0.1:{port}/x", answer())[0].outcome is Outcome.DELIVERED
    assert list(tmp_path.iterdir()) == []
