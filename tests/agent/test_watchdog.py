"""The watch over the parts: what it logs, and when it feeds the watchdog."""

import asyncio
from dataclasses import dataclass, field
from math import inf
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.agent.watchdog import Watchdog
from exporter.core.health import Liveness
from tests.fakes.clock import FakeClock
from tests.polling.virtual_time import VirtualTimeLoop


@dataclass
class FakeManager:
    patience: float | None = None
    told: list[str] = field(default_factory=list)

    def alive(self) -> None:
        self.told.append("alive")

    def status(self, text: str) -> None:
        self.told.append(text)


class Watched:
    """A watch over two parts that have just set their next wake-up, in 10 s."""

    def __init__(self) -> None:
        self.clock = FakeClock(1000.0)
        self.due = {"poll main": 1010.0, "deliver ops": 1010.0}
        self.manager = FakeManager()
        self.watch = Watchdog(lambda: self.due, self.clock.clock.monotonic, self.manager)

    def look(self, at: float, **due: float) -> list[tuple[Any, ...]]:
        """Look each 5 s until then; return what is logged: level, event, part, seconds."""
        self.due.update({name.replace("_", " "): time for name, time in due.items()})
        with capture_logs() as logs:
            while self.clock.now < at:
                self.clock.now += min(5.0, at - self.clock.now)
                self.watch.look()
        names = ("log_level", "event", "part", "seconds")
        return [tuple(each[name] for name in names if name in each) for each in logs]


def test_who_becomes_late_is_logged_once_and_once_when_it_is_on_time_again():
    w = Watched()
    assert w.look(1070, deliver_ops=1200) == []
    assert w.look(1075) == [("error", "a part is late", "poll main", 65)]
    assert w.look(1100) == []
    assert w.watch.newest() == Liveness(2, {"poll main": 90.0})
    assert w.look(1105, poll_main=1150) == [("info", "a part is on time again", "poll main")]
    assert w.watch.newest() == Liveness(2)
    assert w.look(1215) == [("error", "a part is late", "poll main", 65)]


def test_the_watchdog_is_fed_only_while_nobody_is_late():
    w = Watched()
    w.look(1005)
    assert w.manager.told == ["alive"]
    w.look(1080, deliver_ops=2000)
    fed = w.manager.told.count("alive")
    w.look(1200)
    assert w.manager.told.count("alive") == fed
    assert w.manager.told[-1] == "1 of 2 parts are on time"
    w.look(1205, poll_main=2000)
    assert w.manager.told[-2:] == ["2 of 2 parts are on time", "alive"]


def test_a_part_that_is_gone_is_neither_late_nor_on_time():
    w = Watched()
    assert len(w.look(1075, deliver_ops=2000)) == 1
    del w.due["poll main"]
    assert w.look(1080) == []
    assert w.watch.newest() == Liveness(1)


def test_who_was_frozen_with_the_process_gets_its_time_and_who_hangs_behind_that_is_late():
    w = Watched()
    w.look(1005)
    w.clock.now = 4605.0
    assert w.watch.newest() == Liveness(2)  # asked before anybody had a turn
    stood = ("warning", "the process stood still, the parts get their time", 3605)
    assert w.look(4610, deliver_ops=9999) == [stood]
    assert w.look(4670) == []
    assert w.look(4675) == [("error", "a part is late", "poll main", 65)]


def test_a_watch_that_is_a_little_late_itself_excuses_nobody():
    w = Watched()
    w.due["deliver ops"] = inf
    for _ in range(3):
        w.clock.now += 29
        w.watch.look()
    assert w.watch.newest() == Liveness(2, {"poll main": 77.0})


def test_what_a_slow_start_took_is_nobodys_delay():
    """Between the making of the parts and their run, a large state is checked and migrated."""
    w = Watched()
    w.due = {"poll main": inf}
    w.clock.now += 300
    assert w.watch.newest() == Liveness(1)
    stop = asyncio.Event()

    async def run() -> None:
        asyncio.get_running_loop().call_soon(stop.set)
        await w.watch.run(stop)

    with capture_logs() as logs:
        asyncio.run(run())
    assert logs == []
    assert w.manager.told == ["alive"]


@pytest.mark.parametrize(("patience", "looks"), [(None, 5), (4.0, 10), (60.0, 5)])
def test_it_looks_each_five_seconds_and_twice_within_the_managers_patience(patience, looks):
    manager = FakeManager(patience)

    async def run() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        loop.call_later(19.9 if patience == 4.0 else 24.9, stop.set)
        await Watchdog(dict, loop.time, manager).run(stop)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())
    assert manager.told == ["alive"] * looks
