"""Wake-up deadlines of all services: kept unless a service hangs."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from math import inf
from unittest.mock import AsyncMock, Mock

import pytest
from prometheus_client import CollectorRegistry

from exporter.agent.reload import Reloader, Reloading
from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.listing import Listing
from exporter.config import Config, ConfigError
from exporter.exposition.page import Page, Renderer
from exporter.store.database import Database
from exporter.supervisor import Service
from tests.agent.test_heartbeat import open_heartbeat, running_heartbeat
from tests.agent.test_housekeeping import open_housekeeper
from tests.delivery.alertmanager_fixture import FakeMember, open_alertmanager
from tests.delivery.delivery_fixture import BlockedReceiver, open_delivery, until
from tests.fakes.answers import silence
from tests.fakes.clock import FakeClock
from tests.polling.poller_fixture import FAILURES, listing, open_poller
from tests.polling.test_run import RecordedPolls
from tests.polling.virtual_time import VIRTUAL_TIME, loop_clock
from tests.store.sample_polls import NOW

NOTHING = listing()


@contextlib.asynccontextmanager
async def running(service: Service) -> AsyncIterator[None]:
    """Run a service as the agent does, and stop it."""
    stop = asyncio.Event()
    task = asyncio.create_task(service.run(stop))
    try:
        yield
    finally:
        stop.set()
        service.wake()
        async with asyncio.timeout(10):
            await task


@contextlib.contextmanager
def hung(database: Database):
    """Block the store's thread, as a disk that hangs does."""
    may_end = threading.Event()
    work = asyncio.ensure_future(database.run(may_end.wait))
    try:
        yield
    finally:
        may_end.set()
        assert not work.cancelled()


async def test_the_deadline_of_a_poller_is_the_poll_timeout_and_then_the_next_poll(tmp_path):
    started, may_end = asyncio.Event(), asyncio.Event()

    async def slow_poll() -> Listing:
        started.set()
        await may_end.wait()
        return NOTHING

    async with open_poller(tmp_path / "state.db", slow_poll) as p:
        assert p.poller.wakeup_deadline == inf
        async with running(p.poller):
            await started.wait()
            assert p.poller.wakeup_deadline == NOW + 10  # the fixture's timeout
            p.clock.now += 4
            may_end.set()
            await until(lambda: p.poller.wakeup_deadline == NOW + 60)


REFUSED = CartesiaError("unauthorized", "the API answered 401", status=401)
THROTTLED = CartesiaError("rate_limited", "429", status=429, retry_after=300)
DOWN = CartesiaError("server_error", "503", status=503)


class TestOutage:
    @pytest.fixture
    def anyio_backend(self):
        return VIRTUAL_TIME

    @pytest.mark.parametrize("error", [REFUSED, THROTTLED, DOWN])
    async def test_a_poller_is_never_late_in_an_outage(self, tmp_path, error):
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        source = RecordedPolls(*[9.0] * 5)
        async with open_poller(tmp_path / "state.db", source, error, clock=loop_clock()) as p:
            p.source.refused = error is REFUSED
            loop.call_later(3600, stop.set)
            task = asyncio.create_task(p.poller.run(stop))
            await asyncio.sleep(0)
            while not stop.is_set():
                assert loop.time() <= p.poller.wakeup_deadline <= loop.time() + 60
                await asyncio.sleep(1)
            await task
            assert p.metric(FAILURES, reason=error.reason)


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
            assert deliverer.members[0].wakeup_deadline == NOW + 15
            fixture.clock.now += 100
            deliverer.wake()
            await until(lambda: deliverer.members[1].wakeup_deadline == NOW + 105)
            assert deliverer.wakeup_deadline == NOW + 15
            slow.released.set()
            await until(lambda: deliverer.wakeup_deadline == NOW + 105)


async def test_the_deadline_of_housekeeping_is_the_next_round(tmp_path):
    async with open_housekeeper(tmp_path) as h:
        with hung(h.database):
            task = asyncio.create_task(h.housekeeper.run(stop := asyncio.Event()))
            await until(lambda: h.housekeeper.wakeup_deadline == NOW)
            h.clock.now += 3
        await until(lambda: h.housekeeper.wakeup_deadline == NOW + 63)
        stop.set()
        await task


async def test_the_deadline_of_the_page_is_its_rendering_and_then_the_next_check():
    may_end = threading.Event()

    def collect():
        may_end.wait(20)
        return ()

    now = [100.0]
    page = Page(Renderer(Mock(collect=collect), tuple, lambda: now[0]))
    assert page.wakeup_deadline == inf
    try:
        async with running(page):
            await until(lambda: page.wakeup_deadline == 100)
            now[0] = 200.0
            may_end.set()
            await until(lambda: 200 < page.wakeup_deadline < 260)
    finally:
        may_end.set()


async def test_the_deadline_of_a_reload_is_the_read_timeout():
    may_end = threading.Event()

    def read() -> Config:
        may_end.wait(20)
        raise ConfigError(["no"])

    clock, reloading = FakeClock(NOW), Reloading(read)
    reloader = Reloader(reloading, AsyncMock(), CollectorRegistry(), clock.clock)
    try:
        async with running(reloader):
            assert reloader.wakeup_deadline == inf
            reload = asyncio.create_task(reloader.reload())
            await until(lambda: reloader.wakeup_deadline == NOW + 30)
            may_end.set()
            assert await reload == ["no"]
            await until(lambda: reloader.wakeup_deadline == inf)
    finally:
        may_end.set()


async def test_the_deadline_of_a_heartbeat_is_the_request_timeout():
    async with open_heartbeat(silence) as h, running(h.heartbeat):
        await until(h.idle)
        assert h.heartbeat.wakeup_deadline == inf
        h.polled("a", "b")
        requested_at = h.clock.now
        await h.requested(1)
        assert h.heartbeat.wakeup_deadline == requested_at + 15


async def test_a_heartbeat_between_rounds_has_no_deadline():
    async with running_heartbeat() as h:
        await h.round()
        await h.requested(1)
        assert h.heartbeat.wakeup_deadline == inf
