"""The dead man's switch: one GET a round while all is well, and silence when it is not."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.agent import heartbeat
from exporter.agent.heartbeat import Heartbeat, HeartbeatSettings
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
LATE = ("info", "heartbeat withheld", "a receiver has been owed an event for more than 10 min")


def failed(reason: str) -> tuple[str, str, str]:
    return "warning", "heartbeat failed", reason


class Bench:
    """A heartbeat of two accounts and all that it looks at."""

    def __init__(self, server: Server, http_client: HttpClient, logs: list[Any]) -> None:
        self.server = server
        self.logs = logs
        self.clock = FakeClock()
        self.url = FakeSecret(f"{server.base_url}/{TOKEN}")
        self.fresh = True
        self.oldest: float | StoreError | None = None
        self.looked = 0
        plan = HeartbeatSettings(("a", "b"), lambda: self.fresh, self._oldest_pending)
        self.heartbeat = Heartbeat(self.url, http_client, plan, self.clock.clock)

    async def _oldest_pending(self) -> float | None:
        self.looked += 1
        if isinstance(self.oldest, StoreError):
            raise self.oldest
        return self.oldest

    def polled(self, *accounts: str) -> None:
        for account in accounts:
            self.clock.now += 30
            self.heartbeat.note(AccountStatus(account, up=True, polled_at=self.clock.now))

    @property
    def told(self) -> list[tuple[str, str, str | None]]:
        return [(each["log_level"], each["event"], each.get("reason")) for each in self.logs]

    async def says(self, *told: tuple[str, str, str | None]) -> None:
        await until(lambda: len(self.told) >= len(told))
        assert self.told == [*told]

    async def fetched(self, times: int) -> None:
        await until(lambda: len(self.server.requests) >= times)
        assert len(self.server.requests) == times

    async def round(self, answered: Answer | None = None) -> None:
        """End a round whose GET is answered so, and wait until it was looked after."""
        if answered is not None:
            self.server.otherwise = answered
        self.polled("a", "b")
        await until(self.idle)

    def idle(self) -> bool:
        waiters = self.heartbeat._round._waiters
        return bool(waiters) and not self.heartbeat._round.is_set()


def on_bench(test: Callable[[Bench], Coroutine[None, None, None]]) -> None:
    """Run a test beside a heartbeat that runs, and stop it."""

    async def run() -> None:
        with Server(answer(200, b"OK")) as server, capture_logs() as logs:
            async with asyncio.timeout(60), HttpClient() as http_client:
                made = Bench(server, http_client, logs)
                stop = asyncio.Event()
                running = asyncio.create_task(made.heartbeat.run(stop))
                await until(made.idle)
                await test(made)
                stop.set()
                await running

    asyncio.run(run())


def test_there_is_one_get_for_each_round_in_which_all_is_well():
    async def test(b: Bench) -> None:
        for number in (1, 2, 3):
            await b.round()
            await b.fetched(number)
        assert {(r.method, r.path, r.body) for r in b.server.requests} == {
            ("GET", f"/{TOKEN}", b"")
        }
        assert b.told == []

    on_bench(test)


def test_a_round_ends_when_every_account_was_polled_since_the_one_before():
    async def test(b: Bench) -> None:
        b.polled("a", "a", "a")
        b.heartbeat.note(AccountStatus("b"))  # shown at the start, and not polled yet
        b.polled("stranger")
        assert not b.heartbeat._round.is_set()
        await b.round()
        await b.fetched(1)
        b.polled("b", "b")
        assert not b.heartbeat._round.is_set()
        b.polled("a")
        await b.fetched(2)

    on_bench(test)


def test_a_poll_that_failed_ends_a_round_too():
    async def test(b: Bench) -> None:
        b.polled("a")
        b.heartbeat.note(AccountStatus("b", polled_at=b.clock.now, failure="timeout"))
        await b.fetched(1)

    on_bench(test)


def test_nothing_is_sent_while_an_account_is_not_fresh_and_that_is_told_once():
    async def test(b: Bench) -> None:
        b.fresh = False
        for _ in range(3):
            await b.round()
        await b.says(NOT_FRESH)
        assert (b.server.requests, b.looked) == ([], 0)
        b.fresh = True
        await b.round()
        await b.fetched(1)
        await b.says(NOT_FRESH, SENT_AGAIN)

    on_bench(test)


def test_nothing_is_sent_while_a_receiver_is_owed_something_for_more_than_ten_minutes():
    async def test(b: Bench) -> None:
        b.oldest = b.clock.now + 60 - 600  # a round takes 60 s here
        await b.round()
        await b.fetched(1)
        for _ in range(3):
            await b.round()
        await b.says(LATE)
        await b.fetched(1)
        b.oldest = None
        await b.round()
        await b.fetched(2)
        await b.says(LATE, SENT_AGAIN)

    on_bench(test)


def test_an_outbox_that_cannot_be_read_withholds_it_and_ends_nothing():
    async def test(b: Bench) -> None:
        b.oldest = StoreError("the disk is full")
        await b.round()
        withheld = ("info", "heartbeat withheld", "the outbox cannot be read: the disk is full")
        await b.says(withheld)
        b.oldest = None
        await b.round()
        await b.fetched(1)

    on_bench(test)


def test_a_failure_is_told_once_as_long_as_it_stays_the_same_and_then_its_end():
    async def test(b: Bench) -> None:
        for status in (500, 500, 404, 404, 204, 200):
            await b.round(answer(status))
        await b.fetched(6)
        await b.says(failed("answered 500"), failed("answered 404"), SENT_AGAIN)

    on_bench(test)


def test_a_change_from_one_trouble_to_another_is_told():
    async def test(b: Bench) -> None:
        await b.round(answer(500))
        b.fresh = False
        await b.round()
        b.fresh = True
        await b.round()
        await b.round(answer())
        again = failed("answered 500")
        await b.says(again, NOT_FRESH, again, SENT_AGAIN)

    on_bench(test)


def test_a_redirect_is_a_failure_and_not_followed():
    async def test(b: Bench) -> None:
        with Server(answer()) as elsewhere:
            await b.round(redirect(f"{elsewhere.base_url}/{TOKEN}"))
            assert elsewhere.requests == []
        await b.says(failed("answered 307"))

    on_bench(test)


def test_of_a_long_answer_no_more_than_64_kib_are_read():
    async def test(b: Bench) -> None:
        await b.round(chunked(zeros(200)))
        assert b.server.bytes_sent < 100 * 2**20
        assert b.told == []

    on_bench(test)


def test_a_server_that_hangs_is_left_by_the_clock_on_the_wall(monkeypatch):
    assert Bounds(15, 65536) == heartbeat._BOUNDS
    monkeypatch.setattr(heartbeat, "_BOUNDS", Bounds(0.3, 1000))

    async def test(b: Bench) -> None:
        started = time.monotonic()
        await b.round(silence)
        assert 0.25 < time.monotonic() - started < 5
        await b.says(failed("no complete answer within 0.3 s"))
        await b.round(answer())
        await b.says(failed("no complete answer within 0.3 s"), SENT_AGAIN)

    on_bench(test)


def test_rounds_that_end_during_a_get_are_one():
    async def test(b: Bench) -> None:
        asked, go = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def held(peer):
            loop.call_soon_threadsafe(asked.set)
            asyncio.run_coroutine_threadsafe(go.wait(), loop).result(20)
            answer()(peer)

        b.server.then(held)
        b.polled("a", "b")
        await asked.wait()
        b.polled("a", "b", "a", "b", "a", "b")
        go.set()
        await b.fetched(2)
        await until(b.idle)
        await b.fetched(2)

    on_bench(test)


def test_a_url_that_cannot_be_read_is_named_by_its_source_and_read_again():
    async def test(b: Bench) -> None:
        value, b.url.value = b.url.value, None
        await b.round()
        unread = failed("cannot read /etc/cartesia/key: no such file")
        await b.says(unread)
        b.url.value = value
        await b.round()
        await b.fetched(1)
        await b.says(unread, SENT_AGAIN)

    on_bench(test)


@pytest.mark.parametrize(
    "url",
    [f"http://127.0.0.1:1/{TOKEN}", f"http://[{TOKEN}", f"ftp://127.0.0.1/{TOKEN}", TOKEN],
)
def test_no_failure_tells_the_url(url):
    async def test(b: Bench) -> None:
        b.url.value = url
        await b.round()
        [(level, _, reason)] = b.told
        assert level == "warning"
        assert reason
        assert TOKEN not in str(b.logs) + repr(b.heartbeat)
        assert "127.0.0.1" not in str(b.logs)

    on_bench(test)


@pytest.mark.parametrize("otherwise", [answer(500), sends_then_resets(b"HTTP/1.1 200 ")])
def test_no_answer_makes_it_tell_the_url(otherwise):
    async def test(b: Bench) -> None:
        await b.round(otherwise)
        assert len(b.told) == 1
        assert TOKEN not in str(b.logs)

    on_bench(test)


def test_each_get_has_a_connection_of_its_own():
    async def test(b: Bench) -> None:
        for _ in range(3):
            await b.round()
        assert {each.connection for each in b.server.requests} == {1, 2, 3}

    on_bench(test)


def test_a_stop_ends_it_at_once_also_during_a_get():
    async def run() -> None:
        with Server(silence) as server, capture_logs() as logs:
            async with asyncio.timeout(20), HttpClient() as http_client:
                made, stop = Bench(server, http_client, logs), asyncio.Event()
                running = asyncio.create_task(made.heartbeat.run(stop))
                made.polled("a", "b")
                await made.fetched(1)
                started = time.monotonic()
                stop.set()
                await running
                assert time.monotonic() - started < 2
                assert logs == []

    asyncio.run(run())


def test_a_stop_before_the_start_is_not_lost():
    async def run() -> None:
        with Server(answer()) as server:
            async with asyncio.timeout(20), HttpClient() as http_client:
                stop = asyncio.Event()
                stop.set()
                await Bench(server, http_client, []).heartbeat.run(stop)

    asyncio.run(run())


def test_a_bug_ends_it_with_its_error():
    async def run() -> None:
        with Server(answer()) as server:
            async with asyncio.timeout(20), HttpClient() as http_client:
                plan = HeartbeatSettings(("a",), _bug, _nothing)
                beat = Heartbeat(FakeSecret(server.base_url), http_client, plan, FakeClock().clock)
                beat.note(AccountStatus("a", polled_at=1))
                await beat.run(asyncio.Event())

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(run())
    assert caught.group_contains(KeyError, match="a bug")


def _bug() -> bool:
    raise KeyError("a bug")


async def _nothing() -> None:
    return None
