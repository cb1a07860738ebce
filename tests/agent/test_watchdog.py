"""What the watchdog logs, and when it notifies the service manager."""

import asyncio
from math import inf
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.agent.systemd import Notifier
from exporter.agent.watchdog import Watchdog
from exporter.core.health import Liveness
from tests.fakes.clock import FakeClock
from tests.polling.virtual_time import VIRTUAL_TIME


class FakeNotifier(Notifier):
    """Records the notifications."""

    def __init__(self, watchdog_timeout: float | None = None) -> None:
        super().__init__()
        self.watchdog_timeout = watchdog_timeout
        self.sent: list[str] = []

    def alive(self) -> None:
        self.sent.append("alive")

    def status(self, text: str) -> None:
        self.sent.append(text)


class WatchdogFixture:
    """A watchdog of two services that have set a deadline in 10 s."""

    def __init__(self) -> None:
        self.clock = FakeClock(1000.0)
        self.deadlines = {"poll main": 1010.0, "deliver ops": 1010.0}
        self.notifier = FakeNotifier()
        self.watchdog = Watchdog(lambda: self.deadlines, self.clock.clock.monotonic, self.notifier)

    def check(self, until: float, **deadlines: float) -> list[tuple[Any, ...]]:
        """Set deadlines, check every 5 s; return level, event, service and seconds of log lines."""
        self.deadlines.update({name.replace("_", " "): at for name, at in deadlines.items()})
        with capture_logs() as logs:
            while self.clock.now < until:
                self.clock.now += min(5.0, until - self.clock.now)
                self.watchdog.check()
        names = ("log_level", "event", "service", "seconds")
        return [tuple(each[name] for name in names if name in each) for each in logs]


def test_a_late_service_and_its_recovery_are_logged_once():
    w = WatchdogFixture()
    assert w.check(1070, deliver_ops=1200) == []
    assert w.check(1075) == [("error", "service is late", "poll main", 65)]
    assert w.check(1100) == []
    assert w.watchdog.liveness() == Liveness(2, {"poll main": 90.0})
    assert w.check(1105, poll_main=1150) == [("info", "service is on time again", "poll main")]
    assert w.watchdog.liveness() == Liveness(2)
    assert w.check(1215) == [("error", "service is late", "poll main", 65)]


def test_the_service_manager_is_notified_only_while_no_service_is_late():
    w = WatchdogFixture()
    w.check(1005)
    assert w.notifier.sent == ["alive"]
    w.check(1080, deliver_ops=2000)
    alive = w.notifier.sent.count("alive")
    w.check(1200)
    assert w.notifier.sent.count("alive") == alive
    assert w.notifier.sent[-1] == "1 of 2 parts are on time"
    w.check(1205, poll_main=2000)
    assert w.notifier.sent[-2:] == ["2 of 2 parts are on time", "alive"]


def test_a_service_that_left_is_neither_late_nor_on_time():
    w = WatchdogFixture()
    assert len(w.check(1075, deliver_ops=2000)) == 1
    del w.deadlines["poll main"]
    assert w.check(1080) == []
    assert w.watchdog.liveness() == Liveness(1)


def test_after_a_suspension_lateness_counts_from_the_first_check():
    w = WatchdogFixture()
    w.check(1005)
    w.clock.now = 4605.0
    assert w.watchdog.liveness() == Liveness(2)  # before any service has run again
    suspended = ("warning", "process was suspended", 3605)
    assert w.check(4610, deliver_ops=9999) == [suspended]
    assert w.check(4670) == []
    assert w.check(4675) == [("error", "service is late", "poll main", 65)]


def test_a_late_check_is_not_a_suspension():
    w = WatchdogFixture()
    w.deadlines["deliver ops"] = inf
    for _ in range(3):
        w.clock.now += 29
        w.watchdog.check()
    assert w.watchdog.liveness() == Liveness(2, {"poll main": 77.0})


async def test_a_slow_start_makes_no_service_late():
    """Loading a large state may take minutes before the services run."""
    w = WatchdogFixture()
    w.deadlines = {"poll main": inf}
    w.clock.now += 300
    assert w.watchdog.liveness() == Liveness(1)
    stop = asyncio.Event()
    asyncio.get_running_loop().call_soon(stop.set)
    with capture_logs() as logs:
        await w.watchdog.run(stop)
    assert logs == []
    assert w.notifier.sent == ["alive"]


class TestInterval:
    @pytest.fixture
    def anyio_backend(self):
        return VIRTUAL_TIME

    async def test_checks_are_5_s_apart_or_half_of_the_watchdog_timeout(self):
        loop = asyncio.get_running_loop()
        for timeout, seconds, checks in ((None, 24.9, 5), (4.0, 19.9, 10), (60.0, 24.9, 5)):
            notifier, stop = FakeNotifier(timeout), asyncio.Event()
            loop.call_later(seconds, stop.set)
            await Watchdog(dict, loop.time, notifier).run(stop)
            assert notifier.sent == ["alive"] * checks, timeout
