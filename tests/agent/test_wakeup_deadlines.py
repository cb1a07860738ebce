"""Each part says by when it will have set its next wake-up, and keeps to it unless it hangs."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from math import inf
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from exporter.agent.reload import Reloader, Reloading
from exporter.cartesia.errors import CartesiaError
from exporter.config import ConfigError
from exporter.core.clock import Clock
from exporter.exposition.page import Page, Renderer
from exporter.http_client import HttpClient
from exporter.store.database import Database
from tests.agent import test_heartbeat
from tests.agent.test_housekeeping import House, in_house
from tests.delivery.alertmanager_fixture import FakeMember, open_alertmanager
from tests.delivery.delivery_fixture import BlockedReceiver, open_delivery, until
from tests.fakes.answers import silence
from tests.fakes.clock import FakeClock
from tests.fakes.server import Server
from tests.polling import poller_fixture as polling
from tests.polling.test_run import Starts
from tests.polling.virtual_time import VirtualTimeLoop
from tests.store.sample_polls import NOW

NOTHING = polling.listing()


@contextlib.asynccontextmanager
async def running(part) -> AsyncIterator[None]:
    """Run a part as the agent does, and stop it."""
    stop = asyncio.Event()
    task = asyncio.create_task(part.run(stop))
    try:
        yield
    finally:
        stop.set()
        getattr(part, "wake", lambda: None)()
        async with asyncio.timeout(10):
            await task


@contextlib.contextmanager
def hung(database: Database):
    """Have the store's thread hang, as it does on a disk that does not answer."""
    goes_on = threading.Event()
    work = asyncio.ensure_future(database.run(goes_on.wait))
    try:
        yield
    finally:
        goes_on.set()
        assert not work.cancelled()


def test_a_poll_is_due_at_its_deadline_and_a_rest_at_the_next_turn(tmp_path):
    asked, go = asyncio.Event(), asyncio.Event()

    async def held():
        asked.set()
        await go.wait()
        return NOTHING

    async def test(b: polling.Bench) -> None:
        assert b.poller.wakeup_deadline == inf
        async with running(b.poller):
            await asked.wait()
            assert b.poller.wakeup_deadline == NOW + 10  # the bench's poll.timeout
            b.clock.now += 4
            go.set()
            await until(lambda: b.poller.wakeup_deadline == NOW + 60)

    polling.on_bench(tmp_path / "state.db", test, held)


REFUSED = CartesiaError("unauthorized", "the API answered 401", status=401)
THROTTLED = CartesiaError("rate_limited", "429", status=429, retry_after=300)
DOWN = CartesiaError("server_error", "503", status=503)


@pytest.mark.parametrize("error", [REFUSED, THROTTLED, DOWN])
def test_an_account_that_cannot_be_read_for_an_hour_is_never_late(tmp_path, error):
    async def run() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        clock = Clock(now=loop.time, monotonic=loop.time, random=lambda: 0.5)
        source = Starts(*[9.0] * 5)
        path = tmp_path / "state.db"
        async with polling.bench(path, source, error, interval=60, clock=clock) as b:
            b.source.refused = error is REFUSED
            loop.call_later(3600, stop.set)
            task = asyncio.create_task(b.poller.run(stop))
            await asyncio.sleep(0)
            while not stop.is_set():
                assert loop.time() <= b.poller.wakeup_deadline <= loop.time() + 60
                await asyncio.sleep(1)
            await task
            assert b.metric(polling.FAILURES, reason=error.reason)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())


async def test_a_request_is_due_at_the_receivers_deadline_and_a_wait_at_the_next_look(tmp_path):
    receiver = BlockedReceiver(seconds=90.0)
    async with open_delivery(tmp_path, receiver) as delivery:
        await delivery.queue_failures("a")
        async with running(delivery.deliverer):
            await receiver.requested.wait()
            assert delivery.deliverer.wakeup_deadline == NOW + 90
            receiver.released.set()
            await until(lambda: delivery.deliverer.wakeup_deadline == NOW + 5)
            assert receiver.texts == ["full a"]


async def test_a_deliverer_whose_store_hangs_does_not_set_another_time(tmp_path):
    async with open_delivery(tmp_path) as delivery, running(delivery.deliverer):
        await until(lambda: delivery.deliverer.wakeup_deadline == NOW + 5)
        with hung(delivery.database):
            delivery.clock.now += 6
            delivery.deliverer.wake()
            await until(lambda: delivery.deliverer.wakeup_deadline == NOW + 6)
            delivery.clock.now += 100
            delivery.deliverer.wake()
            await asyncio.sleep(0)
            assert delivery.deliverer.wakeup_deadline == NOW + 6
        await until(lambda: delivery.deliverer.wakeup_deadline == NOW + 111)


async def test_one_member_that_hangs_makes_its_alertmanager_late_whatever_the_other_does(tmp_path):
    slow, quick = FakeMember(), FakeMember()
    slow.released.clear()
    async with open_alertmanager(tmp_path, [slow, quick]) as fixture:
        deliverer = fixture.deliverer
        await fixture.queue_failures("x")
        async with running(deliverer):
            await until(lambda: bool(slow.requests) and bool(quick.requests))
            assert deliverer.members[0].loop.wakeup_deadline == NOW + 15
            fixture.clock.now += 100
            deliverer.wake()
            await until(lambda: deliverer.members[1].loop.wakeup_deadline == NOW + 105)
            assert deliverer.wakeup_deadline == NOW + 15
            slow.released.set()
            await until(lambda: deliverer.wakeup_deadline == NOW + 105)


def test_housekeeping_is_due_at_the_next_round_and_while_its_store_hangs_at_this_one(tmp_path):
    async def test(house: House) -> None:
        with hung(house.database):
            task = asyncio.create_task(house.keeper.run(stop := asyncio.Event()))
            await until(lambda: house.keeper.wakeup_deadline == NOW)
            house.clock.now += 3
        await until(lambda: house.keeper.wakeup_deadline == NOW + 63)
        stop.set()
        await task

    in_house(tmp_path, test)


def test_a_page_is_due_while_it_is_rendered_and_then_at_the_next_look():
    goes_on = threading.Event()

    def collect():
        goes_on.wait(20)
        return ()

    async def test() -> None:
        now = [100.0]
        page = Page(Renderer(SimpleNamespace(collect=collect), tuple, lambda: now[0]))
        assert page.wakeup_deadline == inf
        async with running(page):
            await until(lambda: page.wakeup_deadline == 100)
            now[0] = 200.0
            goes_on.set()
            await until(lambda: 200 < page.wakeup_deadline < 260)

    try:
        asyncio.run(test())
    finally:
        goes_on.set()


def test_a_reload_is_due_when_its_file_must_be_read_and_between_them_it_waits_to_be_asked():
    goes_on = threading.Event()

    def read():
        goes_on.wait(20)
        raise ConfigError(["no"])

    async def test() -> None:
        clock, reloading = FakeClock(NOW), Reloading(read)
        reloader = Reloader(reloading, AsyncMock(), CollectorRegistry(), clock.clock)
        async with running(reloader):
            assert reloader.wakeup_deadline == inf
            asked = asyncio.create_task(reloader.reload())
            await until(lambda: reloader.wakeup_deadline == NOW + 30)
            goes_on.set()
            assert await asked == ["no"]
            await until(lambda: reloader.wakeup_deadline == inf)

    try:
        asyncio.run(test())
    finally:
        goes_on.set()


def test_a_heartbeat_is_due_at_its_deadline_and_between_rounds_it_waits_for_the_polls():
    async def run() -> None:
        with Server(silence) as server, capture_logs() as logs:
            async with HttpClient() as http_client:
                b = test_heartbeat.Bench(server, http_client, logs)
                async with running(b.heartbeat):
                    await until(b.idle)
                    assert b.heartbeat.wakeup_deadline == inf
                    b.polled("a", "b")
                    asked = b.clock.now
                    await b.fetched(1)
                    assert b.heartbeat.wakeup_deadline == asked + 15

    asyncio.run(run())


def test_a_heartbeat_that_was_answered_waits_for_the_polls_again():
    async def test(b: test_heartbeat.Bench) -> None:
        await b.round()
        await b.fetched(1)
        assert b.heartbeat.wakeup_deadline == inf

    test_heartbeat.on_bench(test)
