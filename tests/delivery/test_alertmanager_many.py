"""However many alerts there are, a request costs as much as with few, and nobody is held up."""

import asyncio
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from exporter.core.active_alerts import active_alerts
from exporter.core.events import Event
from exporter.delivery import alertmanager as board
from exporter.delivery import alertmanager as identities
from exporter.delivery import alertmanager as posting
from exporter.delivery.alertmanager import ROUND_SECONDS
from exporter.receivers.alertmanager import MOST_ALERTS, content_of
from exporter.receivers.receiver import encoded
from exporter.store.alert_outbox import AlertOutbox
from exporter.store.errors import StoreError
from exporter.store.events import record_events
from exporter.store.outbox import Backlog
from tests.delivery.alertmanager_fixture import AM, HOLD, Alerting, on_bench
from tests.fakes.clock import FakeClock
from tests.polling.large_account import WatchedLoop
from tests.store.sample_polls import NOW, fine_tune

SOME = 5 * MOST_ALERTS
TIMES = 4
STEPS = 10
"""After how many instructions SQLite says that it ran as many."""


def names(number: int) -> list[str]:
    return [f"ft{n:06d}" for n in range(number)]


class Work:
    """What is done for all requests: alerts looked at, and what SQLite runs.

    ``threads`` are those in which something was done to all alerts.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done = Counter[str]()
        self.threads = set[threading.Thread]()
        monkeypatch.setattr(board, "active_alerts", self.active_alerts)
        monkeypatch.setattr(posting, "_version", self.version)
        monkeypatch.setattr(board, "content_of", self.content_of)
        monkeypatch.setattr(identities, "encoded", self.noted(encoded))
        monkeypatch.setattr(posting.Posting, "_queue", self.noted(posting.Posting._queue))

    def noted(self, work: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def done(argument: Any) -> Any:
            self.threads.add(threading.current_thread())
            return work(argument)

        return done

    def active_alerts(self, owed: Any, *more: Any) -> Any:
        self.threads.add(threading.current_thread())
        found = active_alerts(list(owed), *more)
        self.done["put on the board"] += len(found)
        return found

    def version(self, alert: Any) -> Any:
        self.done["compared with what was taken"] += 1
        return alert.number, alert.left

    def content_of(self, *arguments: Any, **named: Any) -> Any:
        self.done["made"] += 1
        return content_of(*arguments, **named)

    def ran(self) -> int:
        self.done["instructions of SQLite"] += STEPS
        return 0

    async def count_sql(self, a: Alerting) -> None:
        def count() -> None:
            with a.database.read() as connection:
                raw: Any = connection.connection.dbapi_connection
                raw.set_progress_handler(self.ran, STEPS)

        await a.database.run(count)


def work_of(tmp_path: Any, number: int) -> Work:
    """What it takes until that many are told, and told once more in the next round."""
    tmp_path.mkdir()

    async def test(a: Alerting) -> None:
        await a.fail(*names(number))
        await work.count_sql(a)
        await a.turns()
        a.clock.now += ROUND_SECONDS
        await a.turns()
        assert len(a.members[0].alerts.requests) == 2 * number / MOST_ALERTS
        assert await a.outbox.backlog() == Backlog()

    with pytest.MonkeyPatch.context() as monkeypatch:
        work = Work(monkeypatch)
        on_bench(tmp_path, test)
    return work


def test_a_request_costs_no_more_where_there_are_more_alerts(tmp_path):
    few, many = work_of(tmp_path / "few", SOME), work_of(tmp_path / "many", TIMES * SOME)
    assert len(few.done) == 4
    for kind, done in few.done.items():
        assert many.done[kind] < 1.25 * TIMES * done, kind
    assert threading.main_thread() not in few.threads | many.threads


@pytest.mark.soak
def test_a_storm_never_holds_up_the_loop(tmp_path):
    loop = WatchedLoop()

    async def test(a: Alerting) -> None:
        await a.fail(*names(20_000))
        watching = asyncio.create_task(loop.watch())
        await a.turns()
        watching.cancel()
        assert await a.outbox.backlog() == Backlog()

    on_bench(tmp_path, test)
    assert loop.longest_turn < 0.1


async def happens(a: Alerting, event: Event, *receivers: str) -> None:
    def record() -> None:
        with a.database.write() as connection:
            record_events(connection, [(event, receivers)])

    await a.database.run(record)


async def from_beside(a: Alerting, statement: str) -> None:
    """Do what another process would."""

    def execute() -> None:
        with closing(sqlite3.connect(a.database.path)) as connection, connection:
            connection.execute(statement)

    await asyncio.to_thread(execute)


def test_what_another_process_discards_is_not_in_the_next_request(tmp_path):
    async def test(a: Alerting) -> None:
        await a.fail(*names(2 * MOST_ALERTS))
        [member] = a.deliverer.members
        assert await member.post_due() == 0
        pending = "UPDATE deliveries SET state = 'discarded' WHERE state = 'pending'"
        await from_beside(a, pending)
        assert await member.post_due() > 0
        assert a.members[0].alerts.names() == names(MOST_ALERTS)

    on_bench(tmp_path, test)


def test_what_ended_since_the_last_request_is_told_by_the_next(tmp_path):
    async def test(a: Alerting) -> None:
        await a.fail(*names(2 * MOST_ALERTS))
        [member] = a.deliverer.members
        await member.post_due()
        last = names(2 * MOST_ALERTS)[-1]
        a.clock.now += 1
        left = Event("left", "fine_tune.changed", "default", a.clock.now, fine_tune(last))
        await happens(a, left)
        await member.post_due()
        assert a.members[0].ends()[last] == NOW + 1

    on_bench(tmp_path, test)


def test_what_was_deleted_since_the_last_look_is_left_out(tmp_path):
    async def test(a: Alerting) -> None:
        await a.fail(*names(2 * MOST_ALERTS))
        await a.turns()
        a.clock.now += ROUND_SECONDS
        [member] = a.deliverer.members
        await member.post_due()

        def delete() -> None:
            with a.database.write() as connection:
                for table, column in (("deliveries", "event"), ("events", "number")):
                    connection.exec_driver_sql(f"DELETE FROM {table} WHERE {column} = 100")

        await a.database.run(delete)
        await a.turns()
        assert [len(each) for each in a.members[0].alerts.requests] == [64, 64, 64, 63]

    on_bench(tmp_path, test)


def test_what_one_member_took_the_others_are_told_with_the_same_end(tmp_path):
    """They post from the same list, made when nobody had taken it yet."""

    async def test(a: Alerting) -> None:
        await a.fail("ft")
        await a.turns(0)
        a.clock.now += 3
        await a.turns(1)
        assert [member.ends()["ft"] for member in a.members] == [NOW + HOLD] * 2

    on_bench(tmp_path, test, members=2)


def test_the_end_of_what_nobody_has_taken_is_a_hold_from_the_request_not_from_the_look(tmp_path):
    async def test(a: Alerting) -> None:
        await a.fail(*names(2 * MOST_ALERTS))
        [member] = a.deliverer.members
        await member.post_due()
        a.clock.now += 3
        await member.post_due()
        ends = a.members[0].ends()
        assert sorted(set(ends.values())) == [NOW + HOLD, NOW + 3 + HOLD]

    on_bench(tmp_path, test)


def takes(seconds: float, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each look take that long."""
    owed = AlertOutbox.owed

    async def slow(self: AlertOutbox, since: float) -> Any:
        clock.now += seconds
        return await owed(self, since)

    monkeypatch.setattr(AlertOutbox, "owed", slow)


@pytest.mark.parametrize(("took", "rest"), [(2, 2), (20, 5)])
def test_behind_a_look_that_took_long_there_is_as_long_without_one_but_not_longer_than_5_seconds(
    tmp_path, monkeypatch, took, rest
):
    async def test(a: Alerting) -> None:
        takes(took, a.clock, monkeypatch)
        [member] = a.deliverer.members
        await a.fail("first")
        await a.turns()
        await happens(a, Event("b", "fine_tune.failed", "default", NOW, fine_tune("b")), AM)
        assert await member.post_due() == rest
        assert a.members[0].alerts.names() == ["first"]
        a.clock.now += rest
        assert await member.post_due() == 0
        assert a.members[0].alerts.names() == ["b", "first"]

    on_bench(tmp_path, test)


def test_what_is_no_alert_is_given_up_also_when_the_store_fails_behind_it(tmp_path, monkeypatch):
    def broken(event: Event, *more: Any, **named: Any) -> Any:
        if event.subject == "bad":
            raise ZeroDivisionError
        return content_of(event, *more, **named)

    monkeypatch.setattr(board, "content_of", broken)
    monkeypatch.setattr(identities, "_READ_AT_ONCE", 1)
    events = AlertOutbox.events
    numbers: list[int] = []

    async def fails_once(self: AlertOutbox, wanted: Any) -> Any:
        numbers.extend(wanted)
        if len(numbers) == 2:
            raise StoreError("no disk")
        return await events(self, wanted)

    monkeypatch.setattr(AlertOutbox, "events", fails_once)

    async def test(a: Alerting) -> None:
        await a.fail("bad", "good")
        with pytest.raises(StoreError):
            await a.turns()
        await a.turns()
        assert a.members[0].alerts.names() == ["good"]
        await a.turns()
        assert await a.outbox.backlog() == Backlog(dead=1)

    on_bench(tmp_path, test)
