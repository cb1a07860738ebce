"""What a person does about deliveries loses no event, also in the middle of an attempt."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from exporter.store.database import Database, GuestDatabase
from exporter.store.events import DEAD, DELIVERED, DISCARDED, PENDING
from exporter.store.outbox import Outbox
from exporter.store.queries import ORPHANED, STATES, Selection, UnknownIdError
from exporter.store.repairs import Reassigned, discard, reassign, retry
from exporter.store.schema import deliveries, events
from tests.store.sample_outbox import (
    CONFIGURED,
    attempt,
    failure,
    freeze,
    listed,
    owe,
    result_of,
    standings,
)
from tests.store.sample_polls import NOW

ALL = Selection(CONFIGURED)
LATER = NOW + 1_000_000


def with_store(tmp_path, work):
    async def run():
        async with Database(tmp_path / "state.db") as database:
            return await work(database)

    return asyncio.run(run())


async def retry_requests(database: Database, receiver: str) -> int:
    return (await Outbox(database, receiver).receiver_state()).retry_requests


def test_what_is_dead_is_owed_again_from_now_on_under_its_id_and_with_its_bytes(tmp_path):
    async def work(database: Database) -> None:
        await owe(database, [1, 2], "ops")
        await freeze(database, "ops", digest=True)
        before = await Outbox(database, "ops").next()
        await attempt(database, "ops", DEAD, "answered 400")
        assert await database.run(retry, database, ALL, LATER) == {"ops": 1}
        [entry] = await listed(database)
        assert (entry.state, entry.owed_since) == (PENDING, LATER)
        assert (entry.attempts, entry.last_result) == (1, "answered 400")
        assert await retry_requests(database, "ops") == 1
        again = await Outbox(database, "ops").next()
        assert before is not None
        assert again is not None
        assert (again.id, again.body, again.attempts) == (before.id, before.body, 1)
        assert await Outbox(database, "ops").expire(LATER - 1, LATER) == 0, "not too old again"
        await attempt(database, "ops", DELIVERED)
        assert await standings(database) == {("ops", "msg_1_2"): DELIVERED}

    with_store(tmp_path, work)


def test_what_is_pending_is_tried_at_once_and_stays_owed_since_then(tmp_path):
    async def work(database: Database) -> None:
        await owe(database, [1], "ops", "chat")
        await freeze(database, "ops")
        assert await database.run(retry, database, ALL, LATER) == {"chat": 1, "ops": 1}
        assert {entry.owed_since for entry in await listed(database, PENDING)} == {NOW + 1}
        assert [await retry_requests(database, name) for name in ("ops", "chat")] == [1, 1]

    with_store(tmp_path, work)


def test_what_could_never_be_rendered_is_rendered_again(tmp_path):
    async def work(database: Database) -> None:
        await owe(database, [1, 2], "ops")
        await freeze(database, "ops")
        outbox = Outbox(database, "ops")
        for body in (b"", b"minimal"):
            delivery = await outbox.next()
            assert delivery is not None
            await outbox.replace_body(delivery, body)
            await outbox.record(delivery, result_of(DEAD))
        await database.run(retry, database, ALL, LATER)
        assert [entry.minimal for entry in await listed(database)] == [False, True]

    with_store(tmp_path, work)


def test_what_no_message_carries_is_retried_and_discarded_too(tmp_path):
    async def work(database: Database) -> None:
        await owe(database, [1], "ops")
        assert await Outbox(database, "ops").expire(LATER, LATER) == 1
        assert await standings(database) == {("ops", "evt_1"): DEAD}
        await database.run(retry, database, ALL, LATER)
        assert [owed.since for owed in await Outbox(database, "ops").unsent()] == [LATER]
        await database.run(discard, database, ALL, LATER)
        assert await Outbox(database, "ops").unsent() == []
        assert await standings(database) == {("ops", "evt_1"): DISCARDED}

    with_store(tmp_path, work)


def test_only_what_is_selected_and_not_settled_is_touched(tmp_path):
    async def work(database: Database) -> None:
        await owe(database, range(1, 5), "ops", "gone")
        await freeze(database, "ops")
        for state in (DELIVERED, DEAD, PENDING):
            await attempt(database, "ops", state)
        before = await standings(database)
        one = Selection(CONFIGURED, ("evt_2",))
        assert await database.run(retry, database, one, LATER) == {"ops": 1}
        assert await standings(database) == before | {("ops", "evt_2"): PENDING}
        assert await database.run(retry, database, Selection(CONFIGURED, ("evt_1",)), LATER) == {}
        assert await retry_requests(database, "gone") == 0, "nobody would send it"
        orphaned = Selection(CONFIGURED, states=(ORPHANED,))
        assert await database.run(discard, database, orphaned, LATER) == {"gone": 4}
        with pytest.raises(UnknownIdError):
            await database.run(discard, database, Selection(CONFIGURED, ("evt_2", "evt_9")), LATER)
        assert await database.run(discard, database, ALL, LATER) == {"ops": 3}
        assert {*(await standings(database)).values()} == {DELIVERED, DISCARDED}

    with_store(tmp_path, work)


@pytest.mark.parametrize(
    ("end", "shown"), [(DELIVERED, DELIVERED), (PENDING, DISCARDED), (DEAD, DISCARDED)]
)
def test_what_is_discarded_during_an_attempt_stays_so_unless_it_arrived(tmp_path, end, shown):
    async def work(database: Database) -> None:
        await owe(database, [1, 2], "ops")
        await freeze(database, "ops", digest=True)
        outbox = Outbox(database, "ops")
        delivery = await outbox.next()
        assert delivery is not None
        await outbox.claim(delivery)
        await database.run(discard, database, ALL, LATER)
        await outbox.record(delivery, result_of(end))
        assert await standings(database) == {("ops", "msg_1_2"): shown}
        assert await outbox.next() is None

    with_store(tmp_path, work)


def test_what_is_reassigned_is_owed_to_the_other_in_new_messages(tmp_path):
    async def work(database: Database) -> None:
        await owe(database, range(1, 5), "gone")
        await freeze(database, "gone")
        await attempt(database, "gone", DELIVERED)
        await attempt(database, "gone", DEAD)
        await owe(database, [5], "gone")
        done = await database.run(reassign, database, "gone", "ops", LATER)
        assert done == Reassigned(moved=4, discarded=0)
        assert await retry_requests(database, "ops") == 1
        owed = await Outbox(database, "ops").unsent()
        assert [each.event for each in owed] == [failure(number) for number in range(2, 6)]
        assert {each.since for each in owed} == {LATER}
        assert [entry.id for entry in await listed(database, receiver="gone")] == ["evt_1"]

    with_store(tmp_path, work)


def test_an_event_that_the_other_was_to_be_told_anyway_is_not_told_it_twice(tmp_path):
    async def work(database: Database) -> None:
        await owe(database, [1, 2], "gone", "ops")
        await owe(database, [3], "gone")
        await freeze(database, "gone", digest=True)
        await freeze(database, "ops")
        await attempt(database, "ops", DELIVERED)
        done = await database.run(reassign, database, "gone", "ops", LATER)
        assert done == Reassigned(moved=1, discarded=2)
        assert await standings(database) == {
            ("gone", "msg_1_2_3"): DISCARDED,
            ("ops", "evt_1"): DELIVERED,
            ("ops", "evt_2"): PENDING,
            ("ops", "evt_3"): PENDING,
        }
        assert await Outbox(database, "gone").next() is None

    with_store(tmp_path, work)


@pytest.mark.parametrize("end", [DELIVERED, PENDING, DEAD])
def test_an_attempt_of_what_was_reassigned_meanwhile_ends_without_a_trace(tmp_path, end):
    async def work(database: Database) -> None:
        await owe(database, [1], "chat")
        await freeze(database, "chat")
        outbox = Outbox(database, "chat")
        delivery = await outbox.next()
        assert delivery is not None
        await outbox.claim(delivery)
        await database.run(reassign, database, "chat", "ops", LATER)
        assert await outbox.events_of(delivery) == []
        await outbox.replace_body(delivery, b"minimal")
        assert await outbox.record(delivery, result_of(end)) == []
        assert await standings(database) == {("ops", "evt_1"): PENDING}

    with_store(tmp_path, work)


def test_what_came_back_can_be_sent_under_its_id_again(tmp_path):
    async def work(database: Database) -> None:
        await owe(database, [1], "chat")
        for source, target in (("chat", "ops"), ("ops", "chat")):
            await freeze(database, source)
            await database.run(reassign, database, source, target, LATER)
        await freeze(database, "chat")
        assert await attempt(database, "chat", DELIVERED) == "evt_1"

    with_store(tmp_path, work)


def test_two_at_once_wait_for_each_other(tmp_path):
    path = tmp_path / "state.db"

    async def owed() -> None:
        async with Database(path) as database:
            await owe(database, range(200), "chat", "gone")

    async def hand_on(source: str) -> Reassigned:
        async with GuestDatabase(path) as guest:
            return await guest.run(reassign, guest, source, "ops", LATER)

    async def both() -> list[Reassigned]:
        return [*await asyncio.gather(hand_on("chat"), hand_on("gone"))]

    asyncio.run(owed())
    done = asyncio.run(both())
    assert sorted((each.moved, each.discarded) for each in done) == [(0, 200), (200, 0)]


NAMES = st.sampled_from(["ops", "chat", "gone"])
_selections = st.builds(
    Selection,
    st.just(CONFIGURED),
    receiver=st.none() | NAMES,
    states=st.lists(st.sampled_from(STATES), min_size=1, unique=True).map(tuple),
)
_steps = st.one_of(
    st.tuples(st.just("owe"), st.lists(NAMES, min_size=1, unique=True)),
    st.tuples(st.just("freeze"), NAMES, st.booleans()),
    st.tuples(st.just("attempt"), NAMES, st.sampled_from([PENDING, DEAD, DELIVERED])),
    st.tuples(st.just("retry"), _selections),
    st.tuples(st.just("discard"), _selections),
    st.tuples(st.just("reassign"), NAMES, NAMES),
)


async def take(database: Database, step: tuple[Any, ...], number: int) -> None:
    kind, *rest = step
    if kind == "owe":
        await owe(database, [number], *rest[0])
    elif kind == "freeze":
        await freeze(database, rest[0], digest=rest[1])
    elif kind == "attempt":
        if await Outbox(database, rest[0]).next() is not None:
            await attempt(database, rest[0], rest[1])
    elif kind == "reassign":
        if rest[0] != rest[1]:
            await database.run(reassign, database, rest[0], rest[1], NOW + number)
    else:
        work = {"retry": retry, "discard": discard}[kind]
        await database.run(work, database, rest[0], NOW + number)


async def events_with_a_delivery(database: Database) -> set[str]:
    def read() -> set[str]:
        query = select(events.c.id).join(deliveries, deliveries.c.event == events.c.number)
        with database.read() as connection:
            return set(connection.execute(query).scalars())

    return await database.run(read)


@given(st.lists(_steps, max_size=14))
def test_whatever_is_done_no_event_is_lost_and_what_is_shown_is_what_is_owed(steps):
    async def run(path: Path) -> None:
        told: set[str] = set()
        async with Database(path) as database:
            for number, step in enumerate(steps):
                await take(database, step, number)
                if step[0] == "owe":
                    told.add(f"evt_{number}")
                shown = await listed(database)
                assert await events_with_a_delivery(database) == told
                assert {entry.state for entry in shown} <= {*STATES}
                for name in ("ops", "chat", "gone"):
                    backlog = await Outbox(database, name).backlog()
                    unsettled = [e for e in shown if e.receiver == name and is_open(e.state)]
                    assert sum(e.events for e in unsettled) == backlog.pending + backlog.dead

    def is_open(state: str) -> bool:
        return state in {PENDING, DEAD, ORPHANED}

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder) / "state.db"))
