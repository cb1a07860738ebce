"""What is listed of the outbox: each message once, each event without one, in its state."""

import asyncio
from dataclasses import replace

import pytest

from exporter.core.events import Event
from exporter.store.database import Database
from exporter.store.events import DEAD, DELIVERED, DISCARDED, PENDING
from exporter.store.outbox import Outbox
from exporter.store.queries import (
    ORPHANED,
    Entry,
    EventFilter,
    Happened,
    Selection,
    UnknownIdError,
    details,
    entries,
    happened,
    receivers_known,
)
from tests.store.sample_outbox import (
    CONFIGURED,
    attempt,
    failure,
    freeze,
    listed,
    owe,
    owe_events,
    standings,
)
from tests.store.sample_polls import NOW

ALL = Selection(CONFIGURED)


def with_store(tmp_path, work):
    async def run():
        async with Database(tmp_path / "state.db") as database:
            return await work(database)

    return asyncio.run(run())


def test_an_event_that_no_message_carries_is_listed_by_its_own_id(tmp_path):
    async def work(database: Database) -> list[Entry]:
        await owe(database, [1], "ops")
        return await listed(database)

    assert with_store(tmp_path, work) == [
        Entry(
            "ops", "evt_1", PENDING, ("fine_tune.failed",), 1, NOW + 1, 0, None, "",
            minimal=False, in_flight=False,
        )
    ]  # fmt: skip


def test_a_message_is_listed_once_with_all_that_became_of_it(tmp_path):
    async def work(database: Database) -> tuple[list[Entry], list[Entry]]:
        completed = replace(failure(2), type="fine_tune.completed")
        await owe_events(database, [failure(1), completed, failure(3)], "ops")
        await freeze(database, "ops", digest=True)
        await attempt(database, "ops", PENDING, "answered 503")
        waiting = await listed(database)
        delivery = await Outbox(database, "ops").next()
        assert delivery is not None
        await Outbox(database, "ops").replace_body(delivery, b"minimal")
        await Outbox(database, "ops").claim(delivery)
        return waiting, await listed(database)

    [waiting], [sending] = with_store(tmp_path, work)
    types = ("fine_tune.completed", "fine_tune.failed")
    assert waiting == Entry(
        "ops", "msg_1_2_3", PENDING, types, 3, NOW + 1, 1, NOW + 100, "answered 503",
        minimal=False, in_flight=False,
    )  # fmt: skip
    assert sending == replace(waiting, minimal=True, in_flight=True)


@pytest.mark.parametrize("frozen", [True, False])
def test_every_state_is_shown_and_selected_by_its_name(tmp_path, frozen):
    """Without messages it is as for a receiver that is posted each of its events anew."""
    states = [("ops", state) for state in (PENDING, DEAD, DELIVERED, DISCARDED)]
    states += [("gone", state) for state in (PENDING, DEAD, DELIVERED)]

    async def work(database: Database) -> dict[str, list[tuple[str, str]]]:
        for number, (receiver, state) in enumerate(states):
            await owe(database, [number], receiver)
            if frozen:
                await freeze(database, receiver)
            await database.run(set_state, database, f"evt_{number}", state)
        return {
            state: [(e.receiver, e.id) for e in await listed(database, state)]
            for state in (PENDING, DEAD, DELIVERED, DISCARDED, ORPHANED)
        }

    def set_state(database: Database, event_id: str, state: str) -> None:
        with database.write() as connection:
            connection.exec_driver_sql(
                "UPDATE deliveries SET state = ? WHERE event ="
                " (SELECT number FROM events WHERE id = ?)",
                (state, event_id),
            )
            connection.exec_driver_sql(
                "UPDATE messages SET state = ? WHERE id = ?", (state, event_id)
            )

    assert with_store(tmp_path, work) == {
        PENDING: [("ops", "evt_0")],
        DEAD: [("ops", "evt_1")],
        DELIVERED: [("ops", "evt_2"), ("gone", "evt_6")],
        DISCARDED: [("ops", "evt_3")],
        ORPHANED: [("gone", "evt_4"), ("gone", "evt_5")],
    }


def test_the_newest_are_listed_the_newest_last_and_the_rest_is_counted(tmp_path):
    async def work(database: Database) -> tuple[list[Entry], int]:
        await owe(database, range(7), "ops")
        await freeze(database, "ops", digest=True)
        await owe(database, range(7, 12), "ops")
        return await database.run(entries, database, ALL, 3)

    found, total = with_store(tmp_path, work)
    assert ([entry.id for entry in found], total) == (["evt_9", "evt_10", "evt_11"], 6)


def test_the_beginning_of_an_id_is_enough_where_it_is_the_only_one(tmp_path):
    async def work(database: Database) -> None:
        await owe(database, [1, 10, 2], "ops", "chat")
        await freeze(database, "ops")

        async def ids(*given: str, receiver: str | None = None) -> list[tuple[str, str]]:
            selection = Selection(CONFIGURED, given, receiver)
            found, _ = await database.run(entries, database, selection, 10)
            return [(entry.receiver, entry.id) for entry in found]

        assert await ids("evt_2") == [("ops", "evt_2"), ("chat", "evt_2")]
        assert await ids("evt_2", receiver="chat") == [("chat", "evt_2")]
        assert await ids("evt_10", receiver="ops") == [("ops", "evt_10")]
        assert await ids("evt_1", receiver="ops") == [("ops", "evt_1")], (
            "whole, though others go on"
        )
        with pytest.raises(UnknownIdError, match=r"evt_ is the beginning of evt_1, evt_10, evt_2"):
            await ids("evt_")
        for unknown in ("evt_3", "vt_2", "EVT_2", "%", "evt__", ""):
            with pytest.raises(UnknownIdError, match="no delivery has the id"):
                await ids("evt_2", unknown)
        with pytest.raises(UnknownIdError, match="no delivery of gone has the id evt_2"):
            await ids("evt_2", receiver="gone")

    with_store(tmp_path, work)


def test_all_of_a_delivery_is_its_entry_its_body_and_its_events(tmp_path):
    async def work(database: Database) -> None:
        await owe(database, [1, 2], "ops")
        await freeze(database, "ops", digest=True)
        await owe(database, [3], "ops")
        unsent, digest = await database.run(
            details, database, Selection(CONFIGURED, ("evt_3", "msg_1_2"))
        )
        if digest.body is None:
            unsent, digest = digest, unsent
        assert (digest.entry.id, digest.body) == ("msg_1_2", b'{"digest":true}')
        assert digest.events == (failure(1), failure(2))
        assert (unsent.entry.id, unsent.body, unsent.events) == ("evt_3", None, (failure(3),))

    with_store(tmp_path, work)


def test_an_event_says_how_each_receiver_stands(tmp_path):
    async def work(database: Database) -> list[Happened]:
        await owe(database, [1], "ops", "chat", "gone")
        await owe(database, [2])
        await freeze(database, "ops")
        await attempt(database, "ops", DELIVERED)
        found, total = await database.run(happened, database, EventFilter(), CONFIGURED, 10)
        assert total == 2
        return found

    assert with_store(tmp_path, work) == [
        Happened(failure(1), {"chat": PENDING, "gone": ORPHANED, "ops": DELIVERED}),
        Happened(failure(2), {}),
    ]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (EventFilter(), [1, 2, 3, 4]),
        (EventFilter(account="main"), [1, 2, 4]),
        (EventFilter(subject="ft_2"), [2]),
        (EventFilter(subject="ops"), [4]),
        (EventFilter(types=frozenset({"fine_tune.completed", "agent.baseline"})), [3]),
        (EventFilter("second", "ft_3", frozenset({"fine_tune.completed"})), [3]),
        (EventFilter("second", "ft_2"), []),
    ],
)
def test_events_are_found_by_account_subject_and_type(tmp_path, wanted, found):
    unhealthy = Event("evt_4", "agent.receiver_unhealthy", "main", NOW, facts={"receiver": "ops"})
    completed = replace(failure(3), type="fine_tune.completed", account="second")

    async def work(database: Database) -> tuple[list[Happened], int]:
        events = [failure(1), failure(2), completed, unhealthy]
        await owe_events(database, events)
        newest, total = await database.run(happened, database, wanted, CONFIGURED, 2)
        assert len(newest) == min(total, 2)
        return await database.run(happened, database, wanted, CONFIGURED, 1000)

    rows, total = with_store(tmp_path, work)
    assert [each.event.id for each in rows] == [f"evt_{number}" for number in found]
    assert total == len(found)


def test_a_receiver_is_known_while_anything_of_it_is_stored(tmp_path):
    async def work(database: Database) -> list[str]:
        await owe(database, [1, 2], "ops", "gone")
        assert set(await standings(database)) == {
            (name, each) for name in ("ops", "gone") for each in ("evt_1", "evt_2")
        }
        return await database.run(receivers_known, database)

    assert with_store(tmp_path, work) == ["gone", "ops"]
