"""Heartbeat: one request per round of polls while nothing is wrong."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.agent import heartbeat
from exporter.agent.heartbeat import Heartbeat
from exporter.core.view import AccountStatus
from exporter.http_client import Bounds, HttpClient
from exporter.store.errors import StoreError
from tests.delivery.delivery_fixture import until
from tests.fakes.answers import answer, chunked, redirect, sends_then_resets, silence, zeros
from tests.fakes.clock import FakeClock
from tests.fakes.secret import FakeSecret
from tests.fakes.server import Answer, Server

TOKEN = "t0ps3cret"
SENT_AGAIN = ("info", "heartbeat sent again", None)
NOT_FRESH = ("info", "heartbeat withheld", "not every account has fresh data")
PENDING = (
    "info",
    "heartbeat withheld",
    "a delivery has been pending for more than 10 min",
)


def failed(reason: str) -> tuple[str, str, str]:
    return "warning", "heartbeat failed", reason


class HeartbeatFixture:
    """A heartbeat of the accounts `a` and `b`; tests set what it checks."""

    def __init__(self, server: Server, http_client: HttpClient, logs: list[Any]) -> None:
        self.server = server
        self.logs = logs
        self.clock = FakeClock()
        self.url = FakeSecret(f"{server.base_url}/{TOKEN}")
        self.fresh = True
        self.oldest_pending_age: float | StoreError = 0.0
        self.outbox_reads = 0
        fresh, age, monotonic = lambda: self.fresh, self._pending_age, self.clock.clock.monotonic
        self.heartbeat = Heartbeat(
            self.url, http_client, lambda: ("a", "b"), fresh, age, monotonic, 60.0
        )

    async def _pending_age(self) -> float:
        self.outbox_reads += 1
        if isinstance(self.oldest_pending_age, StoreError):
            raise self.oldest_pending_age
        return self.oldest_pending_age

    def polled(self, *accounts: str) -> None:
        for account in accounts:
            self.clock.now += 30
            self.heartbeat.note(AccountStatus(account, up=True, polled_at=self.clock.now))

    @property
    def lines(self) -> list[tuple[str, str, str | None]]:
        return [(each["log_level"], each["event"], each.get("reason")) for each in self.logs]

    async def logged(self, *lines: tuple[str, str, str | None]) -> None:
        """Wait until exactly these lines are logged."""
        await until(lambda: len(self.lines) >= len(lines))
        assert self.lines == [*lines]

    async def requested(self, times: int) -> None:
        """Wait until the URL was requested exactly this often."""
        await until(lambda: len(self.server.requests) >= times)
        assert len(self.server.requests) == times

    async def round(self, answered: Answer | None = None) -> None:
        """End a round whose request gets this answer, and wait until it was handled."""
        if answered is not None:
            self.server.otherwise = answered
        self.polled("a", "b")
        await until(self.idle)

    def idle(self) -> bool:
        round_ended = self.heartbeat._round_ended
        return bool(round_ended._waiters) and not round_ended.is_set()


@asynccontextmanager
async def open_heartbeat(answered: Answer) -> AsyncIterator[HeartbeatFixture]:
    """Make a heartbeat whose requests get this answer."""
    with Server(answered) as server, capture_logs() as logs:
        async with asyncio.timeout(60), HttpClient() as http_client:
            yield HeartbeatFixture(server, http_client, logs)


@asynccontextmanager
async def running_heartbeat() -> AsyncIterator[HeartbeatFixture]:
    """Run a heartbeat whose requests are answered with 200."""
    async with open_heartbeat(answer(200, b"OK")) as h:
        stop = asyncio.Event()
        running = asyncio.create_task(h.heartbeat.run(stop))
        await until(h.idle)
        yield h
        stop.set()
        await running


async def test_without_accounts_of_its_own_it_requests_once_per_interval():
    """Other replicas poll them."""
    async with running_heartbeat() as h:
        h.heartbeat.accounts, h.heartbeat.interval = tuple, 0.01
        await h.round()
        await until(lambda: len(h.server.requests) >= 3)


async def test_each_round_leads_to_one_request():
    async with running_heartbeat() as h:
        for number in (1, 2, 3):
            await h.round()
            await h.requested(number)
        assert {(r.method, r.path, r.body) for r in h.server.requests} == {
            ("GET", f"/{TOKEN}", b"")
        }
        assert h.lines == []


async def test_a_round_ends_when_every_account_was_polled():
    async with running_heartbeat() as h:
        h.polled("a", "a", "a")
        h.heartbeat.note(AccountStatus("b"))  # published at the start, before the first poll
        h.polled("stranger")
        assert not h.heartbeat._round_ended.is_set()
        await h.round()
        await h.requested(1)
        h.polled("b", "b")
        assert not h.heartbeat._round_ended.is_set()
        h.polled("a")
        await h.requested(2)


async def test_a_failed_poll_ends_a_round_too():
    async with running_heartbeat() as h:
        h.polled("a")
        h.heartbeat.note(AccountStatus("b", polled_at=h.clock.now, failure="timeout"))
        await h.requested(1)


async def test_a_stale_account_withholds_the_heartbeat_and_is_logged_once():
    async with running_heartbeat() as h:
        h.fresh = False
        for _ in range(3):
            await h.round()
        await h.logged(NOT_FRESH)
        assert (h.server.requests, h.outbox_reads) == ([], 0)
        h.fresh = True
        await h.round()
        await h.requested(1)
        await h.logged(NOT_FRESH, SENT_AGAIN)


async def test_a_delivery_pending_for_ten_minutes_withholds_the_heartbeat():
    async with running_heartbeat() as h:
        h.oldest_pending_age = 600
        await h.round()
        await h.requested(1)
        h.oldest_pending_age = 601
        for _ in range(3):
            await h.round()
        await h.logged(PENDING)
        await h.requested(1)
        h.oldest_pending_age = 0.0
        await h.round()
        await h.requested(2)
        await h.logged(PENDING, SENT_AGAIN)


async def test_an_outbox_that_cannot_be_read_withholds_the_heartbeat():
    async with running_heartbeat() as h:
        h.oldest_pending_age = StoreError("the disk is full")
        await h.round()
        withheld = ("info", "heartbeat withheld", "the outbox cannot be read: the disk is full")
        await h.logged(withheld)
        h.oldest_pending_age = 0.0
        await h.round()
        await h.requested(1)


async def test_a_failure_and_its_end_are_logged_once():
    async with running_heartbeat() as h:
        for status in (500, 500, 404, 404, 204, 200):
            await h.round(answer(status))
        await h.requested(6)
        await h.logged(failed("answered 500"), failed("answered 404"), SENT_AGAIN)


async def test_a_changed_reason_is_logged():
    async with running_heartbeat() as h:
        await h.round(answer(500))
        h.fresh = False
        await h.round()
        h.fresh = True
        await h.round()
        await h.round(answer())
        answered_500 = failed("answered 500")
        await h.logged(answered_500, NOT_FRESH, answered_500, SENT_AGAIN)


async def test_a_redirect_is_a_failure_and_is_not_followed():
    async with running_heartbeat() as h:
        with Server(answer()) as elsewhere:
            await h.round(redirect(f"{elsewhere.base_url}/{TOKEN}"))
            assert elsewhere.requests == []
        await h.logged(failed("answered 307"))


async def test_at_most_64_kib_of_an_answer_are_read():
    async with running_heartbeat() as h:
        await h.round(chunked(zeros(200)))
        assert h.server.bytes_sent < 100 * 2**20
        assert h.lines == []


async def test_a_hanging_server_times_out(monkeypatch):
    assert Bounds(15, 65536) == heartbeat._BOUNDS
    monkeypatch.setattr(heartbeat, "_BOUNDS", Bounds(0.3, 1000))
    async with running_heartbeat() as h:
        started = time.monotonic()
        await h.round(silence)
        assert 0.25 < time.monotonic() - started < 5
        late = failed(f"no complete answer from {h.server.address} within 0.3 s")
        await h.logged(late)
        await h.round(answer())
        await h.logged(late, SENT_AGAIN)


async def test_rounds_that_end_during_a_request_lead_to_one_request():
    async with running_heartbeat() as h:
        requested, may_answer = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def answer_later(peer):
            loop.call_soon_threadsafe(requested.set)
            asyncio.run_coroutine_threadsafe(may_answer.wait(), loop).result(20)
            answer()(peer)

        h.server.then(answer_later)
        h.polled("a", "b")
        await requested.wait()
        h.polled("a", "b", "a", "b", "a", "b")
        may_answer.set()
        await h.requested(2)
        await until(h.idle)
        await h.requested(2)


async def test_a_url_that_cannot_be_read_is_logged_by_its_source_and_read_again():
    async with running_heartbeat() as h:
        value, h.url.value = h.url.value, None
        await h.round()
        unreadable = failed("cannot read /etc/cartesia/key: no such file")
        await h.logged(unreadable)
        h.url.value = value
        await h.round()
        await h.requested(1)
        await h.logged(unreadable, SENT_AGAIN)


@pytest.mark.parametrize(
    "url",
    [f"http://127.0.0.1:1/{TOKEN}", f"http://[{TOKEN}", f"ftp://127.0.0.1/{TOKEN}", TOKEN],
)
async def test_failures_do_not_log_the_url(url):
    async with running_heartbeat() as h:
        h.url.value = url
        await h.round()
        [(level, _, reason)] = h.lines
        assert level == "warning"
        assert reason
        assert TOKEN not in str(h.logs) + repr(h.heartbeat)


@pytest.mark.parametrize("otherwise", [answer(500), sends_then_resets(b"HTTP/1.1 200 ")])
async def test_answers_do_not_make_it_log_the_url(otherwise):
    async with running_heartbeat() as h:
        await h.round(otherwise)
        assert len(h.lines) == 1
        assert TOKEN not in str(h.logs)


async def test_each_request_uses_a_new_connection():
    async with running_heartbeat() as h:
        for _ in range(3):
            await h.round()
        assert {each.connection for each in h.server.requests} == {1, 2, 3}


async def test_a_stop_cancels_a_request():
    async with open_heartbeat(silence) as h:
        stop = asyncio.Event()
        running = asyncio.create_task(h.heartbeat.run(stop))
        h.polled("a", "b")
        await h.requested(1)
        started = time.monotonic()
        stop.set()
        await running
        assert time.monotonic() - started < 2
        assert h.logs == []


async def test_a_heartbeat_that_is_stopped_before_it_runs_ends():
    async with open_heartbeat(answer()) as h:
        stop = asyncio.Event()
        stop.set()
        await h.heartbeat.run(stop)


async def test_a_bug_is_raised_by_run():
    def bug() -> bool:
        raise KeyError("a bug")

    async with open_heartbeat(answer()) as h:
        h.heartbeat.all_fresh = bug
        h.polled("a", "b")
        with pytest.raises(ExceptionGroup) as caught:
            await h.heartbeat.run(asyncio.Event())
    assert caught.group_contains(KeyError, match="a bug")
