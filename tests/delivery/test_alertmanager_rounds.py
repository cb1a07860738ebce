"""Rounds of posts, and the list of active alerts that they are taken from, also when it is long."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from typing import Any

import pytest

from exporter.core.active_alerts import active_alerts
from exporter.core.events import Event
from exporter.delivery.alertmanager import ROUND_SECONDS
from exporter.receivers.alertmanager import MOST_ALERTS
from exporter.store.alert_outbox import AlertOutbox
from exporter.store.receiver_outbox import Backlog
from tests.delivery.alertmanager_fixture import AM, HOLD
from tests.polling.large_account import WatchedLoop
from tests.store.raw_sqlite import state_path
from tests.store.sample_polls import NOW, fine_tune


def names(number: int) -> list[str]:
    return [f"ft{n:06d}" for n in range(number)]


def posted(member: Any) -> list[list[str]]:
    """Return the fine-tunes of each request."""
    return [
        [alert["labels"]["fine_tune_id"] for alert in request] for request in member.alerts.requests
    ]


async def test_a_new_alert_is_posted_at_once_and_all_of_them_each_round(single):
    await single.queue_failures("a")
    await single.post_all()
    single.clock.now += 1
    assert await single.deliverer.members[0].deliver_due() == ROUND_SECONDS - 1
    await single.queue_failures("b")
    await single.post_all()
    single.clock.now += ROUND_SECONDS - 1
    await single.post_all()
    assert [sorted(each) for each in posted(single.members[0])] == [["a"], ["b"], ["a", "b"]]


async def test_a_round_that_takes_longer_than_its_time_is_finished_first(single):
    await single.queue_failures(*names(150))
    for _ in range(6):
        assert await single.deliverer.members[0].deliver_due() == 0
        single.clock.now += 2 * ROUND_SECONDS
    first, second = posted(single.members[0])[:3], posted(single.members[0])[3:]
    assert [len(request) for request in first] == [64, 64, 22]
    assert first == second
    assert [name for request in first for name in request] == names(150)


async def test_the_list_is_built_once_per_round_and_not_on_the_event_loop(single, monkeypatch):
    threads = []

    def build(rows: Any, *arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return active_alerts(rows, *arguments)

    monkeypatch.setattr("exporter.delivery.alertmanager.active_alerts", build)
    await single.queue_failures(*names(5 * MOST_ALERTS))
    for number in (1, 2):
        await single.post_all()
        assert len(single.members[0].alerts.requests) == 5 * number
        assert len(threads) == number
        single.clock.now += ROUND_SECONDS
    assert threading.main_thread() not in threads


@pytest.mark.soak
async def test_20000_alerts_do_not_block_the_event_loop(single):
    loop = WatchedLoop()
    await single.queue_failures(*names(20_000))
    watching = asyncio.create_task(loop.watch())
    await single.post_all()
    watching.cancel()
    assert await single.outbox.backlog() == Backlog()
    assert loop.longest_turn < 0.1


async def test_what_another_process_discards_is_not_in_the_next_request(single):
    await single.queue_failures(*names(2 * MOST_ALERTS))
    assert await single.deliverer.members[0].deliver_due() == 0

    def discard_elsewhere() -> None:
        with closing(sqlite3.connect(state_path(single.database))) as connection, connection:
            connection.execute("UPDATE deliveries SET state = 'discarded' WHERE state = 'pending'")

    await asyncio.to_thread(discard_elsewhere)
    assert await single.deliverer.members[0].deliver_due() > 0
    assert single.members[0].alerts.names() == names(MOST_ALERTS)


async def test_an_alert_that_ended_since_the_last_request_is_resolved_by_the_next(single):
    await single.queue_failures(*names(2 * MOST_ALERTS))
    await single.deliverer.members[0].deliver_due()
    last = names(2 * MOST_ALERTS)[-1]
    single.clock.now += 1
    left = Event("left", "fine_tune.changed", "default", single.clock.now, fine_tune(last))
    await single.record_event(left)
    await single.deliverer.members[0].deliver_due()
    assert single.members[0].ends()[last] == NOW + 1


async def test_an_event_deleted_since_the_list_was_built_is_left_out(single):
    await single.queue_failures(*names(2 * MOST_ALERTS))
    await single.post_all()
    single.clock.now += ROUND_SECONDS
    await single.deliverer.members[0].deliver_due()
    for table, column in (("deliveries", "event"), ("events", "number")):
        await single.execute(f"DELETE FROM {table} WHERE {column} = 100")
    await single.post_all()
    assert [len(each) for each in single.members[0].alerts.requests] == [64, 64, 64, 63]


async def test_all_members_get_the_same_end(cluster):
    """They post from the same list, which was built before the delivery."""
    await cluster.queue_failures("ft")
    await cluster.post_all(0)
    cluster.clock.now += 3
    await cluster.post_all(1)
    assert [member.ends()["ft"] for member in cluster.members] == [NOW + HOLD] * 2


async def test_a_pending_alert_ends_a_hold_after_the_request_not_after_the_list_was_built(single):
    await single.queue_failures(*names(2 * MOST_ALERTS))
    await single.deliverer.members[0].deliver_due()
    single.clock.now += 3
    await single.deliverer.members[0].deliver_due()
    ends = single.members[0].ends().values()
    assert sorted(set(ends)) == [NOW + HOLD, NOW + 3 + HOLD]


@pytest.mark.parametrize(("seconds", "pause"), [(2, 2), (20, 5)])
async def test_after_a_slow_read_there_is_a_pause_as_long_but_at_most_5_seconds(
    single, monkeypatch, seconds, pause
):
    alert_rows = AlertOutbox.alert_rows

    async def slow(self: AlertOutbox, since: float) -> Any:
        single.clock.now += seconds
        return await alert_rows(self, since)

    monkeypatch.setattr(AlertOutbox, "alert_rows", slow)
    await single.queue_failures("a")
    await single.post_all()
    event = Event("b", "fine_tune.failed", "default", NOW, fine_tune("b"))
    await single.record_event(event, AM)
    [member] = single.deliverer.members
    assert await member.deliver_due() == pause
    assert single.members[0].alerts.names() == ["a"]
    single.clock.now += pause
    assert await member.deliver_due() == 0
    assert single.members[0].alerts.names() == ["a", "b"]
