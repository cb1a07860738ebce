"""Posts to the members of an Alertmanager, and their outcomes."""

import base64
import contextlib
import logging
import ssl
import traceback
from pathlib import Path

import pytest
import trustme

from exporter.agent.build import open_receiver
from exporter.config import load
from exporter.core.compose import build_message
from exporter.core.retry import Attempt, Outcome
from exporter.receivers.alertmanager import Alertmanager
from exporter.receivers.alerts import AlertLabels
from tests.config.config_file import KEY, write_config
from tests.fakes.alertmanager import Alerts
from tests.fakes.answers import answer, redirect, sends, sends_then_resets, silence
from tests.fakes.server import Answer, Peer, Server
from tests.receivers.sample_events import AT, SETTINGS, delivery, failures

PASSWORD = "hunter2OfTheAlertmanager"


async def opened(folder: Path, *urls: str, seconds: str = "10s") -> Alertmanager:
    """Return the receiver of a configuration; it connects when it sends."""
    listed = ", ".join(f'"{url}"' for url in urls)
    text = (
        f"receivers:\n  - {{name: am, type: alertmanager, urls: [{listed}], timeout: {seconds}}}\n"
    )
    [section] = load(write_config(folder, text), KEY).receivers

    async with contextlib.AsyncExitStack() as resources:
        receiver = await open_receiver(section, AlertLabels(), resources)
        assert isinstance(receiver, Alertmanager)
        return receiver


async def send(receiver: Alertmanager, body: bytes = b"[]") -> Attempt:
    return await receiver.send(delivery(body), AT)


def with_password(server: Server, path: str = "") -> str:
    return server.base_url.replace("://", f"://agent:{PASSWORD}@") + path


def accepts(alerts: Alerts) -> Answer:
    def script(peer: Peer) -> None:
        answer(alerts.post(peer.request.body))(peer)

    return script


@pytest.mark.parametrize("path", ["", "/", "/alertmanager", "/alertmanager/"])
async def test_alerts_are_posted_to_the_api_below_the_url_with_its_user(tmp_path, path):
    alerts = Alerts()
    with Server(accepts(alerts)) as server:
        receiver = await opened(tmp_path, with_password(server, path))
        attempt = await send(receiver, receiver.render(build_message(failures(3), SETTINGS)))
    assert attempt == Attempt(Outcome.DELIVERED, "answered 200")
    [request] = server.requests
    assert request.method == "POST"
    assert request.target == f"{path.rstrip('/')}/api/v2/alerts"
    assert request.headers["content-type"] == "application/json"
    user = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
    assert user == f"agent:{PASSWORD}"
    assert len(alerts.held) == 3


OUTCOMES = [
    (200, Outcome.DELIVERED),
    (202, Outcome.DELIVERED),
    (307, Outcome.ENDPOINT),
    (400, Outcome.PAYLOAD),
    (401, Outcome.ENDPOINT),
    (404, Outcome.ENDPOINT),
    (413, Outcome.PAYLOAD),
    (429, Outcome.THROTTLED),
    (500, Outcome.TRANSIENT),
    (503, Outcome.TRANSIENT),
]


async def test_the_status_alone_decides(tmp_path):
    for status, outcome in OUTCOMES:
        with Server(answer(status, b'"ok"')) as server:
            receiver = await opened(tmp_path, server.base_url)
            assert (await send(receiver)).outcome is outcome, status


async def test_each_member_gets_a_test_message_and_the_first_success_counts(tmp_path):
    with Server(answer(404)) as first, Server(answer(200)) as second, Server(answer(204)) as third:
        attempt = await send(
            await opened(tmp_path, first.base_url, second.base_url, third.base_url)
        )
    assert attempt == Attempt(Outcome.DELIVERED, "answered 200")
    assert [len(server.requests) for server in (first, second, third)] == [1, 1, 1]


async def test_without_a_success_the_worst_outcome_counts(tmp_path):
    with Server(answer(503)) as busy, Server(answer(401)) as shut, Server(answer(429)) as full:
        attempt = await send(await opened(tmp_path, busy.base_url, shut.base_url, full.base_url))
    assert attempt == Attempt(Outcome.ENDPOINT, "answered 401")


@pytest.fixture
def untrusted():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with Server(answer(200), tls=context) as server:
        yield server


def leaking(peer: Peer) -> None:
    text = f"{peer.request.headers.get('authorization')} {PASSWORD}".encode()
    answer(400, text, location=f"http://{PASSWORD}.example")(peer)


@pytest.mark.parametrize(
    "otherwise",
    [
        silence,
        leaking,
        redirect(f"http://{PASSWORD}.example/"),
        answer(401, PASSWORD.encode()),
        answer(503, PASSWORD.encode()),
        answer(429, PASSWORD.encode(), retry_after=PASSWORD),
        sends(b"not HTTP at all\r\n\r\n"),
        sends_then_resets(b"HTTP/1.1 200 "),
    ],
)
async def test_no_failure_shows_the_url_or_its_password(tmp_path, otherwise, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    with Server(otherwise) as server:
        receiver = await opened(tmp_path, with_password(server), seconds="300ms")
        attempt = await send(receiver)
    assert attempt.outcome is not Outcome.DELIVERED
    texts = [repr(attempt), repr(receiver), caplog.text, *capsys.readouterr()]
    encoded = base64.b64encode(f"agent:{PASSWORD}".encode()).decode()
    assert not [text for text in texts if PASSWORD in text or encoded in text]
    assert "127.0.0.1" not in repr(receiver)


async def test_no_connection_error_shows_the_password(tmp_path, untrusted, caplog):
    caplog.set_level(logging.DEBUG)
    closed = f"http://agent:{PASSWORD}@127.0.0.1:1"
    for url in (closed, with_password(untrusted), f"https://agent:{PASSWORD}@127.0.0.1:1/x"):
        try:
            text = repr(await send(await opened(tmp_path, url)))
        except Exception:  # noqa: BLE001 - no error may show it
            text = traceback.format_exc()
        assert "Attempt" in text
        assert PASSWORD not in text + caplog.text


@pytest.mark.parametrize("status", [200, 400])
async def test_a_page_of_an_intermediary_says_nothing_about_the_alerts(tmp_path, status):
    with Server(answer(status, b"<!DOCTYPE html><title>Sign in</title>")) as server:
        [member] = (await opened(tmp_path, server.base_url)).members
        attempt = await member.attempt(b"[]", {}, AT)
    assert attempt.outcome is Outcome.TRANSIENT
    assert attempt.reason == f"answered {status} with a page of HTML, as an intermediary does"
