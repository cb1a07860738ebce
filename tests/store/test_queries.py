"""Lists of deliveries and events: each message once, each event without a message once."""

import pytest
from msgspec.structs import replace

from exporter.store.events import DEAD, DELIVERED, DISCARDED, PENDING
from exporter.store.outbox import Outbox
from exporter.store.queries import (
    ORPHANED,
    DeliveryFilter,
    DeliverySummary,
    UnknownIdError,
    list_deliveries,
    load_details,
    stored_receivers,
)
from tests.store.raw_sql import execute
from tests.store.sample_outbox import (
    CONFIGURED,
    attempt,
    create_messages,
    failure,
    list_all,
    listed_states,
    next_message,
    queue,
    queue_events,
)
from tests.store.sample_polls import NOW

ALL = DeliveryFilter(CONFIGURED)


async def test_an_event_without_a_message_is_listed_by_its_own_id(database):
    await queue(database, [1], "ops")
    assert await list_all(database) == [
        DeliverySummary(
            "ops", "evt_1", PENDING, ("fine_tune.failed",), 1, NOW + 1, 0, None, "",
            minimal=False, in_flight=False,
        )
    ]  # fmt: skip


async def test_a_message_is_listed_once_with_the_results_of_its_attempts(database):
    completed = replace(failure(2), type="fine_tune.completed")
    await queue_events(database, [failure(1), completed, failure(3)], "ops")
    await create_messages(database, "ops", digest=True)
    await attempt(database, "ops", PENDING, "answered 503")
    [waiting] = await list_all(database)
    types = ("fine_tune.completed", "fine_tune.failed")
    assert waiting == DeliverySummary(
        "ops", "msg_1_2_3", PENDING, types, 3, NOW + 1, 1, NOW + 100, "answered 503",
        minimal=False, in_flight=False,
    )  # fmt: skip
    message = await next_message(database, "ops")
    await Outbox(database, "ops").replace_body(message, b"minimal")
    await Outbox(database, "ops").claim(message)
    assert await list_all(database) == [replace(waiting, minimal=True, in_flight=True)]


async def test_types_belong_to_their_own_delivery(database):
    """Two receivers have the same ids, and one event is not in a message yet."""
    completed = replace(failure(2), type="fine_tune.completed")
    await queue_events(database, [failure(1), completed], "ops", "chat")
    await create_messages(database, "ops")
    await create_messages(database, "chat", digest=True)
    await queue(database, [3], "ops")
    failed_only, completed_only = ("fine_tune.failed",), ("fine_tune.completed",)
    assert {(each.receiver, each.id): each.types for each in await list_all(database)} == {
        ("ops", "evt_1"): failed_only,
        ("ops", "evt_2"): completed_only,
        ("ops", "evt_3"): failed_only,
        ("chat", "msg_1_2"): (*completed_only, *failed_only),
    }


@pytest.mark.parametrize("in_messages", [True, False])
async def test_every_state_is_listed_and_selected_by_its_name(database, in_messages):
    """Deliveries of an Alertmanager have states without messages."""
    states = [("ops", state) for state in (PENDING, DEAD, DELIVERED, DISCARDED)]
    states += [("gone", state) for state in (PENDING, DEAD, DELIVERED)]
    for number, (receiver, state) in enumerate(states):
        await queue(database, [number], receiver)
        if in_messages:
            await create_messages(database, receiver)
        event_id = f"evt_{number}"
        await execute(
            database,
            "UPDATE deliveries SET state = :state WHERE event ="
            " (SELECT number FROM events WHERE id = :id)",
            state=state,
            id=event_id,
        )
        setting = "UPDATE messages SET state = :state WHERE id = :id"
        await execute(database, setting, state=state, id=event_id)
    found = {
        state: [(each.receiver, each.id) for each in await list_all(database, state)]
        for state in (PENDING, DEAD, DELIVERED, DISCARDED, ORPHANED)
    }
    assert found == {
        PENDING: [("ops", "evt_0")],
        DEAD: [("ops", "evt_1")],
        DELIVERED: [("ops", "evt_2"), ("gone", "evt_6")],
        DISCARDED: [("ops", "evt_3")],
        ORPHANED: [("gone", "evt_4"), ("gone", "evt_5")],
    }


async def test_the_newest_are_listed_oldest_first_and_all_are_counted(database):
    await queue(database, range(7), "ops")
    await create_messages(database, "ops", digest=True)
    await queue(database, range(7, 12), "ops")
    found, total = await database.run(list_deliveries, database, ALL, 3)
    assert ([each.id for each in found], total) == (["evt_9", "evt_10", "evt_11"], 6)


async def test_an_unambiguous_prefix_is_enough(database):
    await queue(database, [1, 10, 11, 12, 13, 2], "ops", "chat")
    await create_messages(database, "ops")

    async def ids(*given: str, receiver: str | None = None) -> list[tuple[str, str]]:
        criteria = DeliveryFilter(CONFIGURED, given, receiver)
        found, _ = await database.run(list_deliveries, database, criteria, 10)
        return [(each.receiver, each.id) for each in found]

    assert await ids("evt_2") == [("ops", "evt_2"), ("chat", "evt_2")]
    assert await ids("evt_2", receiver="chat") == [("chat", "evt_2")]
    assert await ids("evt_10", receiver="ops") == [("ops", "evt_10")]
    complete = await ids("evt_1", receiver="ops")
    assert complete == [("ops", "evt_1")], "a complete id, though it is a prefix as well"
    with pytest.raises(UnknownIdError, match=r"evt_ is the beginning of evt_1, evt_10, evt_11"):
        await ids("evt_")
    for unknown in ("evt_3", "vt_2", "EVT_2", "%", "evt__", ""):
        with pytest.raises(UnknownIdError, match="no delivery has the id"):
            await ids("evt_2", unknown)
    with pytest.raises(UnknownIdError, match="no delivery of gone has the id evt_2"):
        await ids("evt_2", receiver="gone")


async def test_details_are_the_summary_the_body_and_the_events(database):
    await queue(database, [1, 2], "ops")
    await create_messages(database, "ops", digest=True)
    await queue(database, [3], "ops")
    criteria = DeliveryFilter(CONFIGURED, ("evt_3", "msg_1_2"))
    found = await database.run(load_details, database, criteria)
    digest, unsent = sorted(found, key=lambda each: each.body is None)
    assert (digest.summary.id, digest.body) == ("msg_1_2", b'{"digest":true}')
    assert digest.events == (failure(1), failure(2))
    assert (unsent.summary.id, unsent.body, unsent.events) == ("evt_3", None, (failure(3),))


async def test_messages_of_two_receivers_with_the_same_id_are_counted_apart(database):
    await queue(database, [1], "ops", "chat")
    for receiver in ("ops", "chat"):
        await create_messages(database, receiver)
    assert [(each.receiver, each.id, each.events) for each in await list_all(database)] == [
        ("ops", "evt_1", 1),
        ("chat", "evt_1", 1),
    ]


async def test_stored_receivers_are_those_with_a_delivery(database):
    await queue(database, [1, 2], "ops", "gone")
    assert set(await listed_states(database)) == {
        (name, each) for name in ("ops", "gone") for each in ("evt_1", "evt_2")
    }
    assert await database.run(stored_receivers, database) == ["gone", "ops"]
