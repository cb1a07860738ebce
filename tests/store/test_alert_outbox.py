"""Outbox of one Alertmanager: which alerts it has, and what ends them."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import insert, update
from sqlalchemy.event import listen, remove

from exporter.core.active_alerts import AlertRow
from exporter.core.events import Event, EventType
from exporter.core.retry import CIRCUIT_CLOSED, Attempt, CircuitState, Outcome
from exporter.store.alert_outbox import AlertOutbox
from exporter.store.database import Database
from exporter.store.events import DEAD, DELIVERED, MUTED, PENDING
from exporter.store.receiver_outbox import AttemptResult, Backlog, ReceiverState
from exporter.store.retention import Retention
from exporter.store.schema import deliveries, poll_outages
from tests.engines import on_sqlite
from tests.fakes.clock import FakeClock
from tests.store.raw_sql import sqlalchemy_engine
from tests.store.sample_outbox import queue_events, result_of
from tests.store.sample_polls import NOW, fine_tune

AM = "alertmanager"

RecordEvent = Callable[..., Awaitable[None]]


@pytest.fixture
def outbox(database: Database) -> AlertOutbox:
    return AlertOutbox(database, AM, [AM])


@pytest.fixture
def record_event(database: Database, clock: FakeClock) -> RecordEvent:
    """Record one event at a time of both clocks, and queue it for the receivers."""

    async def record(
        event_type: EventType,
        at: float,
        *receivers: str,
        subject: str = "ft",
        account: str = "default",
    ) -> None:
        clock.now = at
        is_fine_tune = event_type.startswith("fine_tune")
        facts = (
            {"fine_tune": fine_tune(subject)} if is_fine_tune else {"facts": {"receiver": subject}}
        )
        event_id = f"evt_{event_type}_{subject}_{account}_{at}"
        await queue_events(
            database, [Event(event_id, event_type, account, at, **facts)], *receivers
        )

    return record


def alert_row(
    number: int, at: float, *, settled: float | None = None, left: float | None = None
) -> AlertRow:
    """Return the row of an event; all times are those of the wall clock."""
    settled_awake, left_awake = (None if each is None else each - NOW for each in (settled, left))
    return AlertRow(number, at, at - NOW, settled_awake, left_awake)


async def test_rows_are_the_pending_and_the_recently_delivered_events(outbox, record_event):
    for number in range(4):
        await record_event("fine_tune.failed", NOW + number, AM, subject=f"ft{number}")
    await record_event("fine_tune.failed", NOW + 10, "slack", subject="other")
    assert await outbox.record([1], result_of(DELIVERED, NOW + 100)) == [100]
    assert await outbox.record([2], result_of(DELIVERED, NOW + 200)) == [199]
    assert await outbox.record([3], result_of(DEAD, NOW)) == []
    assert await outbox.alert_rows(100) == [
        alert_row(4, NOW + 3),
        alert_row(2, NOW + 1, settled=NOW + 200),
    ]
    assert await outbox.backlog() == Backlog(1, 1, 7)


async def test_what_was_muted_before_the_receiver_became_an_alertmanager_is_an_alert(
    outbox, database, record_event
):
    await record_event("fine_tune.failed", NOW, AM)

    def mute() -> None:
        with database.write() as connection:
            connection.execute(update(deliveries).values(state=MUTED))

    await database.run(mute)
    assert await outbox.alert_rows(-1) == [alert_row(1, NOW)]
    assert await outbox.record([1], result_of(DELIVERED, NOW + 1)) == [1]
    assert (await outbox.backlog()).muted == 0


async def test_a_failure_ends_when_the_fine_tune_leaves_the_status_not_when_it_is_removed(
    outbox, record_event
):
    await record_event("fine_tune.failed", NOW, AM)
    await record_event("fine_tune.removed", NOW + 1)
    await record_event("fine_tune.stuck", NOW + 2)
    await record_event("fine_tune.changed", NOW + 3, subject="another")
    await record_event("fine_tune.changed", NOW + 4, account="other")
    await record_event("agent.poll_recovered", NOW + 5, subject="")
    assert [alert.left for alert in await outbox.alert_rows(-1)] == [None]
    await record_event("fine_tune.changed", NOW + 6)
    await record_event("fine_tune.completed", NOW + 7)
    assert [alert.left for alert in await outbox.alert_rows(-1)] == [6]


async def test_a_failure_after_a_failure_ends_the_first(outbox, record_event):
    for at in (NOW, NOW + 10):
        await record_event("fine_tune.failed", at, AM)
    assert await outbox.alert_rows(-1) == [
        alert_row(1, NOW, left=NOW + 10),
        alert_row(2, NOW + 10),
    ]


async def record_outage(database: Database, account: str = "default") -> None:
    def record() -> None:
        row = {"name": account, "base_url": "https://api.example", "since": NOW}
        with database.write() as connection:
            connection.execute(
                insert(poll_outages).values(
                    row | {"since_awake": 0.0, "reported": True, "reason": ""}
                )
            )

    await database.run(record)


async def test_agent_troubles_end_with_their_recoveries(database, outbox, record_event):
    await record_outage(database)
    await record_event("agent.poll_failing", NOW, AM, subject="")
    await record_event("agent.receiver_unhealthy", NOW, AM, subject="chat", account="")
    await record_event("agent.baseline", NOW + 1, subject="")
    await record_event("agent.poll_recovered", NOW + 2, subject="", account="b")
    await record_event("agent.receiver_recovered", NOW + 3, subject="x", account="")
    assert [alert.left for alert in await outbox.alert_rows(-1)] == [None, None]
    await record_event("agent.poll_recovered", NOW + 4, subject="")
    await record_event("agent.receiver_recovered", NOW + 5, subject="chat", account="")
    assert [alert.left for alert in await outbox.alert_rows(-1)] == [4, 5]


async def test_a_trouble_of_the_agent_lasts_until_its_end_however_long_ago_it_was_accepted(
    database, record_event
):
    outbox = AlertOutbox(database, AM, [AM, "chat"])
    await record_outage(database)
    await record_event("agent.poll_failing", NOW, AM, subject="")
    await record_event("agent.receiver_unhealthy", NOW, AM, subject="chat", account="")
    await record_event("fine_tune.failed", NOW, AM)
    await outbox.record([1, 2, 3], result_of(DELIVERED, NOW + 1))
    later = 400 * 86_400
    rows = await outbox.alert_rows(later)
    assert [(row.number, row.lasting, row.left) for row in rows] == [
        (1, True, None),
        (2, True, None),
    ]
    await record_event("agent.poll_recovered", NOW + later + 5, subject="")
    await record_event("agent.receiver_recovered", NOW + later + 5, subject="chat", account="")
    rows = await outbox.alert_rows(later)
    assert [row.left for row in rows] == [later + 5] * 2
    assert await outbox.alert_rows(later + 5) == []


async def test_the_trouble_of_what_is_not_configured_any_more_does_not_last(database, record_event):
    await record_event("agent.poll_failing", NOW, AM, subject="")
    await record_event("agent.receiver_unhealthy", NOW, AM, subject="chat", account="")
    rows = await AlertOutbox(database, AM, [AM]).alert_rows(-1)
    assert [row.lasting and row.left is None for row in rows] == [False, False]


async def test_an_event_that_is_no_trouble_ends_when_it_begins(outbox, record_event):
    await record_event("agent.poll_recovered", NOW, AM, subject="")
    await record_event("fine_tune.completed", NOW + 1, AM)
    assert [alert.left for alert in await outbox.alert_rows(-1)] == [0, 1]


async def test_only_the_first_delivery_counts_and_delivered_wins_over_dead(outbox, record_event):
    for number in range(2):
        await record_event("fine_tune.failed", NOW, AM, subject=f"ft{number}")
    assert await outbox.expire(-1, NOW + 50) == 2
    assert await outbox.record([1], result_of(DELIVERED, NOW + 60)) == [60]
    assert await outbox.record([1], result_of(DELIVERED, NOW + 70)) == []
    assert await outbox.record([1, 2], result_of(DEAD, NOW + 70)) == []
    assert await outbox.alert_rows(-1) == [alert_row(1, NOW, settled=NOW + 60)]
    assert await outbox.backlog() == Backlog(0, 1)


async def test_circuit_and_events_are_stored_with_a_result(database, outbox):
    assert await outbox.receiver_state() == ReceiverState()
    bad = CircuitState(3, NOW, open=True, reason="answered 404", since_awake=5)
    event = Event("evt", "agent.receiver_unhealthy", "", NOW, facts={"receiver": AM})
    attempt = Attempt(Outcome.ENDPOINT, "answered 404")
    result = AttemptResult(PENDING, NOW, 0, attempt, bad, NOW + 60, [(event, ["slack"])])
    for _ in range(2):
        await outbox.record([], result)
    assert await outbox.receiver_state() == ReceiverState(bad, NOW + 60)
    assert (await AlertOutbox(database, "slack").backlog()).pending == 1
    await outbox.record([], result_of(PENDING))
    assert (await outbox.receiver_state()).circuit == CIRCUIT_CLOSED


async def test_the_version_changes_with_a_new_event_or_a_write_of_another_process(
    location, outbox, record_event
):
    versions = [await outbox.version()]
    await record_event("fine_tune.failed", NOW, AM)
    versions.append(await outbox.version())
    await record_event("fine_tune.changed", NOW)
    versions.append(await outbox.version())
    assert await outbox.record([1], result_of(DELIVERED)) == [0]
    assert await outbox.version() == versions[-1], "its own result changes nothing"
    async with Database(location, exclusive=False) as beside:
        await AlertOutbox(beside, AM).alert_rows(-1)
        assert await outbox.version() == versions[-1], "reading changes nothing"
        await AlertOutbox(beside, "another").record([], result_of(PENDING))
    versions.append(await outbox.version())
    assert len(set(versions)) == 4


@on_sqlite  # PostgreSQL uses no number again
async def test_a_number_that_is_used_again_changes_the_version(database, outbox, record_event):
    await record_event("fine_tune.changed", NOW, subject="old")
    before = await outbox.version()
    assert await Retention(database).delete_old(NOW + 1, -1) == 1
    await record_event("fine_tune.failed", NOW, AM)
    assert [alert.number for alert in await outbox.alert_rows(-1)] == [1]
    assert await outbox.version() != before


async def test_events_are_read_by_number_without_deleted_ones(outbox, record_event):
    for number in range(3):
        await record_event("fine_tune.failed", NOW, AM, subject=f"ft{number}")
    assert await outbox.events([]) == {}
    found = await outbox.events(range(1, 100))
    assert [event.subject for event in found.values()] == ["ft0", "ft1", "ft2"]


@on_sqlite
async def test_reading_rows_does_not_scan_what_was_delivered_long_ago(
    database, outbox, record_event
):
    statements: list[tuple[str, Any]] = []

    def note(connection, cursor, statement, parameters, *_: Any) -> None:
        if statement.startswith("SELECT"):
            statements.append((statement, parameters))

    await record_outage(database)
    await record_event("agent.poll_failing", NOW, AM, subject="")
    listen(sqlalchemy_engine(database), "before_cursor_execute", note)
    await outbox.alert_rows(0)
    remove(sqlalchemy_engine(database), "before_cursor_execute", note)

    def explain(statement: str, parameters: Any) -> str:
        with database.read() as connection:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            return "\n".join(row[3] for row in rows)

    plans = [await database.run(explain, *each) for each in statements]
    searches = "(receiver=? AND state=?)", "(receiver=? AND state=? AND settled_awake>?)"
    assert [[each in plan for each in searches] for plan in plans] == [
        [True, False],
        [True, False],
        [False, True],
        [False, False],
        [False, False],
    ]
    assert "events_of_type (type=?)" in plans[3]
    assert "(event=? AND receiver=?)" in plans[4]
    assert "SCAN" not in "".join(plans)
    assert "TEMP B-TREE" not in "".join(plans)
