"""What an Alertmanager is owed, by the events that were recorded, told to somebody or not."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from sqlalchemy.event import listen, remove

from exporter.core.active_alerts import AlertRow
from exporter.core.events import Event, EventType
from exporter.core.retry import CIRCUIT_CLOSED, CircuitState
from exporter.store.alert_outbox import AlertOutbox, Findings
from exporter.store.database import Database
from exporter.store.events import record_events
from exporter.store.outbox import Backlog, ReceiverState
from exporter.store.retention import Retention
from tests.store.raw_sqlite import sqlalchemy_engine
from tests.store.sample_polls import NOW, fine_tune

AM = "alertmanager"


async def happened(
    database: Database,
    kind: EventType,
    at: float,
    *receivers: str,
    subject: str = "ft",
    account: str = "default",
) -> None:
    """Record one event; it is told to the receivers."""
    fields = (
        {"fine_tune": fine_tune(subject)}
        if kind.startswith("fine_tune")
        else {"facts": {"receiver": subject}}
    )
    event = Event(f"evt_{kind}_{subject}_{account}_{at}", kind, account, at, **fields)

    def record() -> None:
        with database.write() as connection:
            record_events(connection, [(event, receivers)])

    await database.run(record)


def in_store(path, test: Callable[[Database, AlertOutbox], Coroutine[None, None, None]]) -> None:
    async def run() -> None:
        async with Database(path / "state.db") as database:
            await test(database, AlertOutbox(database, AM))

    asyncio.run(run())


def test_it_is_owed_what_is_pending_and_what_was_taken_lately(tmp_path):
    async def test(database: Database, outbox: AlertOutbox) -> None:
        for number in range(4):
            await happened(database, "fine_tune.failed", NOW + number, AM, subject=f"ft{number}")
        await happened(database, "fine_tune.failed", NOW, "slack", subject="other")
        assert await outbox.record(Findings({1: NOW + 100, 2: NOW + 200}, {3: NOW})) == [100, 199]
        assert await outbox.owed(NOW + 100) == [
            AlertRow(4, NOW + 3),
            AlertRow(2, NOW + 1, settled_at=NOW + 200),
        ]
        assert await outbox.backlog() == Backlog(1, 1, NOW + 3)

    in_store(tmp_path, test)


def test_a_failure_is_over_when_the_fine_tune_leaves_it_not_when_it_is_removed(tmp_path):
    async def test(database: Database, outbox: AlertOutbox) -> None:
        await happened(database, "fine_tune.failed", NOW, AM)
        await happened(database, "fine_tune.removed", NOW + 1)
        await happened(database, "fine_tune.stuck", NOW + 2)
        await happened(database, "fine_tune.changed", NOW + 3, subject="another")
        await happened(database, "fine_tune.changed", NOW + 4, account="other")
        await happened(database, "agent.poll_recovered", NOW + 5, subject="")
        assert [alert.left_at for alert in await outbox.owed(0)] == [None]
        await happened(database, "fine_tune.changed", NOW + 6)
        await happened(database, "fine_tune.completed", NOW + 7)
        assert [alert.left_at for alert in await outbox.owed(0)] == [NOW + 6]

    in_store(tmp_path, test)


def test_a_failure_after_a_failure_ends_the_first(tmp_path):
    async def test(database: Database, outbox: AlertOutbox) -> None:
        for at in (NOW, NOW + 10):
            await happened(database, "fine_tune.failed", at, AM)
        assert await outbox.owed(0) == [
            AlertRow(1, NOW, left_at=NOW + 10),
            AlertRow(2, NOW + 10),
        ]

    in_store(tmp_path, test)


def test_the_agents_troubles_end_with_their_recoveries(tmp_path):
    async def test(database: Database, outbox: AlertOutbox) -> None:
        await happened(database, "agent.poll_failing", NOW, AM, subject="")
        await happened(database, "agent.receiver_unhealthy", NOW, AM, subject="chat", account="")
        await happened(database, "agent.baseline", NOW + 1, subject="")
        await happened(database, "agent.poll_recovered", NOW + 2, subject="", account="b")
        await happened(database, "agent.receiver_recovered", NOW + 3, subject="x", account="")
        assert [alert.left_at for alert in await outbox.owed(0)] == [None, None]
        await happened(database, "agent.poll_recovered", NOW + 4, subject="")
        await happened(database, "agent.receiver_recovered", NOW + 5, subject="chat", account="")
        assert [alert.left_at for alert in await outbox.owed(0)] == [NOW + 4, NOW + 5]

    in_store(tmp_path, test)


def test_only_the_first_time_counts_and_delivered_wins_over_given_up(tmp_path):
    async def test(database: Database, outbox: AlertOutbox) -> None:
        for number in range(2):
            await happened(database, "fine_tune.failed", NOW, AM, subject=f"ft{number}")
        assert await outbox.expire(NOW + 1, NOW + 50) == 2
        assert await outbox.record(Findings({1: NOW + 60})) == [60]
        assert await outbox.record(Findings({1: NOW + 70}, {1: NOW + 70, 2: NOW + 70})) == []
        assert await outbox.owed(0) == [AlertRow(1, NOW, settled_at=NOW + 60)]
        assert await outbox.backlog() == Backlog(0, 1)

    in_store(tmp_path, test)


def test_health_and_what_follows_are_stored_with_it(tmp_path):
    async def test(database: Database, outbox: AlertOutbox) -> None:
        assert await outbox.receiver_state() == ReceiverState()
        bad = CircuitState(3, NOW, open=True, reason="answered 404")
        event = Event("evt", "agent.receiver_unhealthy", "", NOW, facts={"receiver": AM})
        findings = Findings(health=bad, resume_at=NOW + 60, told=[(event, ["slack"])])
        for _ in range(2):
            await outbox.record(findings)
        assert await outbox.receiver_state() == ReceiverState(bad, NOW + 60)
        assert (await AlertOutbox(database, "slack").backlog()).pending == 1
        await outbox.record(Findings())
        assert (await outbox.receiver_state()).health == CIRCUIT_CLOSED

    in_store(tmp_path, test)


def test_its_version_is_another_when_something_happened_or_another_process_wrote(tmp_path):
    async def test(database: Database, outbox: AlertOutbox) -> None:
        versions = [await outbox.version()]
        await happened(database, "fine_tune.failed", NOW, AM)
        versions.append(await outbox.version())
        await happened(database, "fine_tune.changed", NOW)
        versions.append(await outbox.version())
        assert await outbox.record(Findings({1: NOW})) == [0]
        assert await outbox.version() == versions[-1], "what it did itself it knows"
        async with Database(database.path, exclusive=False) as beside:
            await AlertOutbox(beside, AM).owed(0)
            assert await outbox.version() == versions[-1], "to look changes nothing"
            await AlertOutbox(beside, "another").record(Findings(resume_at=NOW))
        versions.append(await outbox.version())
        assert len(set(versions)) == 4

    in_store(tmp_path, test)


def test_a_number_that_is_given_out_again_is_another_version(tmp_path):
    async def test(database: Database, outbox: AlertOutbox) -> None:
        await happened(database, "fine_tune.changed", NOW, subject="old")
        before = await outbox.version()
        assert await Retention(database).delete_old(NOW + 1) == 1
        await happened(database, "fine_tune.failed", NOW, AM)
        assert [alert.number for alert in await outbox.owed(0)] == [1]
        assert await outbox.version() != before

    in_store(tmp_path, test)


def test_events_are_read_by_number_without_those_that_are_gone(tmp_path):
    async def test(database: Database, outbox: AlertOutbox) -> None:
        for number in range(3):
            await happened(database, "fine_tune.failed", NOW, AM, subject=f"ft{number}")
        assert await outbox.events([]) == {}
        found = await outbox.events(range(1, 100))
        assert [event.subject for event in found.values()] == ["ft0", "ft1", "ft2"]

    in_store(tmp_path, test)


def test_a_look_reads_no_more_than_what_it_returns(tmp_path):
    """Years of delivered alerts must not be gone through every five seconds."""

    async def test(database: Database, outbox: AlertOutbox) -> None:
        asked: list[tuple[str, Any]] = []

        def note(connection, cursor, statement, parameters, *_: Any) -> None:
            if statement.startswith("SELECT"):
                asked.append((statement, parameters))

        listen(sqlalchemy_engine(database), "before_cursor_execute", note)
        await outbox.owed(NOW)
        remove(sqlalchemy_engine(database), "before_cursor_execute", note)

        def plan(statement: str, parameters: Any) -> str:
            with database.read() as connection:
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                return "\n".join(row[3] for row in rows)

        plans = [await database.run(plan, *each) for each in asked]
        assert ["(receiver=? AND state=?)" in plan for plan in plans] == [True, False]
        assert ["(receiver=? AND state=? AND settled_at>?)" in plan for plan in plans] == [
            False,
            True,
        ]
        assert all("SCAN" not in plan and "TEMP B-TREE" not in plan for plan in plans)

    in_store(tmp_path, test)
