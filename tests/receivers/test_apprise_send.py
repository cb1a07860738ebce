"""Attempts by the real library over real sockets, and their outcomes."""

import asyncio
import itertools
import json
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.core.compose import WARNING, build_message
from exporter.core.retry import Attempt, Outcome
from exporter.receivers.apprise import Apprise
from exporter.receivers.apprise_child import result_of
from tests.fakes.answers import (
    answer,
    as_json,
    chunked,
    gzip_bomb,
    redirect,
    sends_then_resets,
    silence,
)
from tests.fakes.certificates import authority, server_context
from tests.fakes.secret import FakeSecret
from tests.fakes.server import Answer, Received, Server
from tests.receivers.sample_events import AT, FAILED, SETTINGS, delivery, failures
from tests.receivers.sending import LeakySecret

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
    body = to.render(build_message(list(reported), SETTINGS))
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
    assert body["title"] == f"{WARNING} Fine-tune failed: My voice"
    assert body["message"].endswith("Playground: https://play.example/tunes/ft_1")
    assert body["type"] == "failure"
    assert request.headers["user-agent"] == "cartesia-exporter"


async def test_a_service_gets_its_own_format():
    attempt, [request] = await send_to_server("ntfy://127.0.0.1:{port}/tunes", as_json({"id": "x"}))
    assert attempt.outcome is Outcome.DELIVERED
    assert "github" not in json.dumps(request.headers) + request.target
    body = json.loads(request.body)
    assert (body["topic"], body["title"]) == ("tunes", f"{WARNING} Fine-tune failed: My voice")


async def test_a_message_that_is_too_long_for_a_service_is_truncated():
    with Server(as_json({"id": "x"})) as server:
        to = receiver(f"ntfy://127.0.0.1:{server.port}/tunes")
        assert (await send(to, failures(5000))).outcome is Outcome.DELIVERED
    [request] = server.requests
    body = json.loads(request.body)
    assert "5000 fine-tunes failed" in body["title"]
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


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_the_result_of_a_plugin_error_is_its_class(monkeypatch):
    import apprise

    def bug(*_, **__):
        raise LookupError(TOKEN)

    monkeypatch.setattr(apprise.Apprise, "instantiate", bug)
    assert result_of({"url": "json://127.0.0.1:1/x"}) == {"result": "error", "error": "LookupError"}


def child_processes() -> set[int]:
    """Return the ids of the child processes, those that ended and wait to be collected too."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    return {int(each) for each in found.split()}


@pytest.fixture
def children() -> Callable[[], list[int]]:
    """Returns the ids of the child processes that the test has started."""
    of_other_tests = child_processes()  # a server of this worker
    return lambda: sorted(child_processes() - of_other_tests)


async def test_a_timeout_is_ambiguous_and_ends_the_process(children):
    with Server(silence) as server:
        # The library's own timeouts are longer.
        to = receiver(f"json://127.0.0.1:{server.port}/x?rto=60&cto=60", seconds=4)
        started = time.monotonic()
        found = await send(to)
        assert 3.9 < time.monotonic() - started < 15
        assert found == Attempt(Outcome.TRANSIENT, "Apprise did not end within 4 s", ambiguous=True)
        assert len(server.requests) == 1
    assert children() == []


async def test_the_process_ends_when_the_attempt_is_cancelled(children):
    arrived = threading.Event()

    def hangs(peer):
        arrived.set()
        silence(peer)

    with Server(hangs) as server:
        attempt = asyncio.ensure_future(send(receiver(f"json://127.0.0.1:{server.port}/x")))
        await asyncio.to_thread(arrived.wait, 20)
        [child] = children()
        assert str(server.port) not in shown(child)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
    assert children() == []


def shown(process: int) -> str:
    """Return the arguments and the environment of a process, which others may see."""
    files = (Path(f"/proc/{process}/{name}") for name in ("cmdline", "environ"))
    return "".join(each.read_text(encoding="utf-8") for each in files)


@pytest.mark.parametrize(
    "script",
    [
        answer(200, gzip_bomb(1_000), content_encoding="gzip"),
        chunked(itertools.repeat(bytes(2**20))),
    ],
    ids=["bomb", "without end"],
)
async def test_a_hostile_answer_costs_its_message_and_not_the_agent(script, children):
    with Server(script) as server:
        before = resident_bytes()
        found = await send(receiver(f"json://127.0.0.1:{server.port}/x", seconds=20))
        assert resident_bytes() - before < 40e6
    assert found.outcome is Outcome.TRANSIENT
    assert children() == []


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


async def test_the_agents_own_keys_are_not_in_the_environment_of_the_process(monkeypatch, children):
    monkeypatch.setenv("CARTESIA_API_KEY", TOKEN)
    arrived, seen = threading.Event(), list[str]()

    def looks(peer):
        [child] = children()
        seen.append(shown(child))
        arrived.set()
        answer()(peer)

    with Server(looks) as server:
        await send(receiver(f"json://127.0.0.1:{server.port}/x"))
    assert arrived.is_set()
    assert TOKEN not in seen[0]


async def test_a_process_that_cannot_be_started_is_a_failed_attempt(monkeypatch):
    for error in (OSError(11, "Resource temporarily unavailable"), RuntimeError("no thread")):

        async def fails(*_, error=error, **__):
            raise error

        monkeypatch.setattr(asyncio, "create_subprocess_exec", fails)
        found = await send(receiver("json://127.0.0.1:1/x"))
        assert (found.outcome, found.ambiguous) == (Outcome.TRANSIENT, False)
        assert found.reason.startswith("cannot start a ")


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
    check_output(attempt, caplog, capfd)


@pytest.mark.parametrize("url", [f"nope://{TOKEN}", f"json://{TOKEN}:x"])
async def test_the_library_logs_nothing_about_an_invalid_url(caplog, capfd, url):
    caplog.set_level(1)
    check_output(await send(receiver(url)), caplog, capfd)


def check_output(attempt: Attempt, caplog, capfd) -> None:
    assert TOKEN not in repr(attempt)
    loggers = {record.name.partition(".")[0] for record in caplog.records}
    assert loggers <= {"asyncio"}
    assert TOKEN not in caplog.text
    assert capfd.readouterr() == ("", "")


async def test_no_warning_shows_the_host_of_an_unverified_certificate(tmp_path, recwarn, caplog):
    issuer, _ = authority(tmp_path)
    with Server(answer(), server_context(issuer, "127.0.0.1")) as server:
        url = f"jsons://127.0.0.1:{server.port}/{TOKEN}?verify=no"
        assert (await send(receiver(url))).outcome is Outcome.DELIVERED
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
