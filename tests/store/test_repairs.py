"""Retry, discard and reassign lose no event, also during an attempt."""

import asyncio
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from exporter.store.alert_outbox import AlertOutbox
from exporter.store.database import Database
from exporter.store.events import DEAD, DELIVERED, DISCARDED, PENDING
from exporter.store.outbox import Outbox
from exporter.store.queries import ORPHANED, STATES, UNSETTLED, DeliveryFilter, UnknownIdError
from exporter.store.repairs import ReassignCounts, discard, reassign, retry
from exporter.store.schema import deliveries, events
from tests.store.sample_outbox import (
    CONFIGURED,
    attempt,
    create_messages,
    failure,
    list_all,
    listed_states,
    next_message,
    queue,
    record_attempt,
    result_of,
)
from tests.store.sample_polls import NOW

ALL = DeliveryFilter(CONFIGURED)
LATER = NOW + 1_000_000


async def retry_requests(database: Database, receiver: str) -> int:
    return (await Outbox(database, receiver).receiver_state()).retry_requests


async def test_a_retried_dead_message_is_queued_anew_with_its_id_and_body(database, clock):
    await queue(database, [1, 2], "ops")
    await create_messages(database, "ops", digest=True)
    before = await next_message(database, "ops")
    await attempt(database, "ops", DEAD, "answered 400")
    clock.now += 100
    assert await database.run(retry, database, ALL, LATER) == {"ops": 1}
    [summary] = await list_all(database)
    assert (summary.state, summary.queued_at) == (PENDING, LATER)
    assert (summary.attempts, summary.last_result) == (1, "answered 400")
    assert await retry_requests(database, "ops") == 1
    again = await next_message(database, "ops")
    assert (again.id, again.body, again.attempts) == (before.id, before.body, 1)
    assert await Outbox(database, "ops").expire(1, LATER) == 0, "its age starts anew"
    await attempt(database, "ops", DELIVERED)
    assert await listed_states(database) == {("ops", "msg_1_2"): DELIVERED}


async def test_a_retried_pending_delivery_keeps_its_age(database):
    await queue(database, [1], "ops", "chat")
    await create_messages(database, "ops")
    assert await database.run(retry, database, ALL, LATER) == {"chat": 1, "ops": 1}
    assert {each.queued_at for each in await list_all(database, PENDING)} == {NOW + 1}
    assert [await retry_requests(database, name) for name in ("ops", "chat")] == [1, 1]


async def test_a_retried_message_without_a_body_is_rendered_again(database):
    await queue(database, [1, 2], "ops")
    await create_messages(database, "ops")
    for body in (b"", b"minimal"):
        message = await next_message(database, "ops")
        await Outbox(database, "ops").replace_body(message, body)
        await record_attempt(database, message, DEAD)
    await database.run(retry, database, ALL, LATER)
    assert [each.minimal for each in await list_all(database)] == [False, True]


async def test_events_without_a_message_are_retried_and_discarded_too(database, clock):
    await queue(database, [1], "ops")
    assert await Outbox(database, "ops").expire(-1, LATER) == 1
    assert await listed_states(database) == {("ops", "evt_1"): DEAD}
    clock.now += 100
    await database.run(retry, database, ALL, LATER)
    assert [each.age for each in await Outbox(database, "ops").unsent()] == [0]
    await database.run(discard, database, ALL, LATER)
    assert await Outbox(database, "ops").unsent() == []
    assert await listed_states(database) == {("ops", "evt_1"): DISCARDED}


async def test_a_message_expires_with_the_last_of_its_deliveries(database, clock):
    for number in (1, 2):
        await queue(database, [number], "ops", "chat")
        clock.now += 10
    await create_messages(database, "ops", digest=True)
    await create_messages(database, "chat", digest=True)
    outbox = Outbox(database, "ops")
    for max_age, state in ((15, PENDING), (5, DEAD)):
        assert await outbox.expire(max_age, LATER) == 1
        states = await listed_states(database)
        assert states == {("ops", "msg_1_2"): state, ("chat", "msg_1_2"): PENDING}


async def test_only_selected_unsettled_deliveries_are_changed(database):
    await queue(database, range(1, 5), "ops", "gone")
    await create_messages(database, "ops")
    for state in (DELIVERED, DEAD, PENDING):
        await attempt(database, "ops", state)
    before = await listed_states(database)
    dead, delivered = (DeliveryFilter(CONFIGURED, (name,)) for name in ("evt_2", "evt_1"))
    assert await database.run(retry, database, dead, LATER) == {"ops": 1}
    assert await listed_states(database) == before | {("ops", "evt_2"): PENDING}
    assert await database.run(retry, database, delivered, LATER) == {}
    assert await retry_requests(database, "gone") == 0, "no service would send it"
    orphaned = DeliveryFilter(CONFIGURED, states=(ORPHANED,))
    assert await database.run(discard, database, orphaned, LATER) == {"gone": 4}
    unknown = DeliveryFilter(CONFIGURED, ("evt_2", "evt_9"))
    with pytest.raises(UnknownIdError):
        await database.run(discard, database, unknown, LATER)
    assert await database.run(discard, database, ALL, LATER) == {"ops": 3}
    assert {*(await listed_states(database)).values()} == {DELIVERED, DISCARDED}


@pytest.mark.parametrize(
    ("result", "expected"), [(DELIVERED, DELIVERED), (PENDING, DISCARDED), (DEAD, DISCARDED)]
)
async def test_a_message_discarded_during_an_attempt_stays_discarded_unless_delivered(
    database, result, expected
):
    await queue(database, [1, 2], "ops")
    await create_messages(database, "ops", digest=True)
    outbox = Outbox(database, "ops")
    message = await next_message(database, "ops")
    await outbox.claim(message)
    await database.run(discard, database, ALL, LATER)
    await record_attempt(database, message, result)
    assert await listed_states(database) == {("ops", "msg_1_2"): expected}
    assert await outbox.next() is None


async def test_reassigned_events_are_queued_for_new_messages(database, clock):
    await queue(database, range(1, 5), "gone")
    await create_messages(database, "gone")
    await attempt(database, "gone", DELIVERED)
    await attempt(database, "gone", DEAD)
    await queue(database, [5], "gone")
    clock.now += 100
    counts = await database.run(reassign, database, "gone", "ops", LATER)
    assert counts == ReassignCounts(moved=4, discarded=0)
    assert await retry_requests(database, "ops") == 1
    queued = await Outbox(database, "ops").unsent()
    assert [each.event for each in queued] == [failure(number) for number in range(2, 6)]
    assert {each.age for each in queued} == {0}
    assert [each.id for each in await list_all(database, receiver="gone")] == ["evt_1"]


async def test_events_that_the_target_has_already_are_discarded(database):
    await queue(database, [1, 2], "gone", "ops")
    await queue(database, [3], "gone")
    await create_messages(database, "gone", digest=True)
    await create_messages(database, "ops")
    await attempt(database, "ops", DELIVERED)
    counts = await database.run(reassign, database, "gone", "ops", LATER)
    assert counts == ReassignCounts(moved=1, discarded=2)
    assert await listed_states(database) == {
        ("gone", "msg_1_2_3"): DISCARDED,
        ("ops", "evt_1"): DELIVERED,
        ("ops", "evt_2"): PENDING,
        ("ops", "evt_3"): PENDING,
    }
    assert await Outbox(database, "gone").next() is None


async def test_a_discarded_delivery_of_the_target_does_not_prevent_a_move(database):
    """The event was discarded for both receivers, and nobody was ever notified of it."""
    await queue(database, [1, 2], "gone", "ops")
    await create_messages(database, "ops", digest=True)
    await attempt(database, "ops", PENDING)
    await database.run(discard, database, DeliveryFilter(CONFIGURED, receiver="ops"), NOW)
    counts = await database.run(reassign, database, "gone", "ops", LATER)
    assert counts == ReassignCounts(moved=2, discarded=0)
    queued = await Outbox(database, "ops").unsent()
    assert [each.event for each in queued] == [failure(1), failure(2)]
    await create_messages(database, "ops", digest=True)
    await attempt(database, "ops", DELIVERED)
    assert await listed_states(database) == {("ops", "msg_1_2"): DELIVERED}


@pytest.mark.parametrize("back_to", ["chat", "gone"])
async def test_an_event_that_both_receivers_had_can_be_reassigned_back(database, back_to):
    """Its delivery to the first receiver was discarded, because the second one had it already."""
    await queue(database, [1], "chat", "ops")
    await database.run(reassign, database, "chat", "ops", LATER)
    assert await listed_states(database) == {
        ("chat", "evt_1"): DISCARDED,
        ("ops", "evt_1"): PENDING,
    }
    counts = await database.run(reassign, database, "ops", back_to, LATER)
    assert counts == ReassignCounts(moved=1, discarded=0)
    unsettled = {
        key for key, state in (await listed_states(database)).items() if state in UNSETTLED
    }
    assert unsettled == {(back_to, "evt_1")}


@pytest.mark.parametrize("state", [PENDING, DEAD, DELIVERED])
async def test_no_other_delivery_of_the_target_is_replaced(database, state):
    await queue(database, [1], "gone", "ops")
    await create_messages(database, "ops")
    await attempt(database, "ops", state)
    counts = await database.run(reassign, database, "gone", "ops", LATER)
    assert counts == ReassignCounts(moved=0, discarded=1)
    assert (await listed_states(database))["ops", "evt_1"] == state
    assert await Outbox(database, "ops").unsent() == []


@pytest.mark.parametrize("result", [DELIVERED, PENDING, DEAD])
async def test_the_result_of_an_attempt_of_a_reassigned_message_is_dropped(database, result):
    await queue(database, [1], "chat")
    await create_messages(database, "chat")
    outbox = Outbox(database, "chat")
    message = await next_message(database, "chat")
    await outbox.claim(message)
    await database.run(reassign, database, "chat", "ops", LATER)
    assert await outbox.events_of(message) == []
    await outbox.replace_body(message, b"minimal")
    assert await record_attempt(database, message, result) == []
    assert await listed_states(database) == {("ops", "evt_1"): PENDING}


async def test_an_event_reassigned_back_can_be_sent_with_its_id_again(database):
    await queue(database, [1], "chat")
    for source, target in (("chat", "ops"), ("ops", "chat")):
        await create_messages(database, source)
        await database.run(reassign, database, source, target, LATER)
    await create_messages(database, "chat")
    assert await attempt(database, "chat", DELIVERED) == "evt_1"


async def test_two_commands_at_once_wait_for_each_other(database, location):
    await queue(database, range(200), "chat", "gone")

    async def reassign_all(source: str) -> ReassignCounts:
        async with Database(location, exclusive=False) as other:
            return await other.run(reassign, other, source, "ops", LATER)

    counts = await asyncio.gather(reassign_all("chat"), reassign_all("gone"))
    assert sorted((each.moved, each.discarded) for each in counts) == [(0, 200), (200, 0)]


ALERTMANAGER = "alerts"
"""A receiver whose deliveries no messages carry."""
RECEIVERS = ("ops", "chat", "gone", ALERTMANAGER)
senders = st.sampled_from(RECEIVERS[:-1])
names = st.sampled_from(RECEIVERS)
filters = st.builds(
    DeliveryFilter,
    st.just(CONFIGURED),
    receiver=st.none() | names,
    states=st.lists(st.sampled_from(STATES), min_size=1, unique=True).map(tuple),
)
results = st.sampled_from([PENDING, DEAD, DELIVERED])
steps = st.one_of(
    st.tuples(st.just("queue"), st.lists(names, min_size=1, unique=True)),
    st.tuples(st.just("create messages"), senders, st.booleans()),
    st.tuples(st.just("attempt"), senders, results),
    st.tuples(st.just("post"), results),
    st.tuples(st.just("expire"), names),
    st.tuples(st.just("retry"), filters),
    st.tuples(st.just("discard"), filters),
    # Listed again: it takes several in a row to move an event back and forth.
    *[st.sampled_from([("reassign", *pair) for pair in permutations(RECEIVERS, 2)])] * 4,
)


async def run_step(database: Database, step: tuple[Any, ...], number: int) -> None:
    now = NOW + number
    match step:
        case "queue", receivers:
            await queue(database, [number], *receivers)
        case "create messages", receiver, digest:
            await create_messages(database, receiver, digest=digest)
        case "attempt", receiver, result:
            if await Outbox(database, receiver).next() is not None:
                await attempt(database, receiver, result)
        case "post", result:
            alerts = AlertOutbox(database, ALERTMANAGER)
            numbers = [row.number for row in await alerts.alert_rows(-1)]
            await alerts.record(numbers, result_of(result, now))
        case "expire", receiver:
            await Outbox(database, receiver).expire(-1, now)
        case "reassign", source, target:
            await database.run(reassign, database, source, target, now)
        case command, criteria:
            repair = {"retry": retry, "discard": discard}[command]
            await database.run(repair, database, criteria, now)


async def stored_events(database: Database, *states: str) -> set[str]:
    """Return the ids of the events that have a delivery in one of the states."""

    def read() -> set[str]:
        query = select(events.c.id).join(deliveries, deliveries.c.event == events.c.number)
        with database.read() as connection:
            return set(connection.scalars(query.where(deliveries.c.state.in_(states))))

    return await database.run(read)


@given(st.lists(steps, max_size=10).map(lambda history: [("queue", RECEIVERS), *history]))
async def test_commands_neither_lose_nor_duplicate_events(new_state, history):
    """An event leaves the states in which it was or will be sent only by `discard`."""
    queued: set[str] = set()
    discarded: set[str] = set()
    async with Database(new_state()) as database:
        for number, step in enumerate(history):
            await run_step(database, step, number)
            if step[0] == "queue":
                queued.add(f"evt_{number}")
            live = await stored_events(database, PENDING, DEAD, DELIVERED)
            if step[0] == "discard":
                discarded |= queued - live
            assert queued - discarded <= live
            assert await stored_events(database, *STATES) == queued
        listed = await list_all(database)
        assert {each.state for each in listed} <= {*STATES}
        for name in RECEIVERS:
            backlog = await Outbox(database, name).backlog()
            unsettled = [e for e in listed if e.receiver == name and e.state in UNSETTLED]
            assert sum(e.events for e in unsettled) == backlog.pending + backlog.dead
