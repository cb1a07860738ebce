"""What is remembered of an account comes back as it was, and is written only where it changed."""

import asyncio
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from sqlalchemy import text

from exporter.core.account import AccountState
from exporter.core.counters import Counters, DurationBucket
from exporter.core.labels import Labels
from exporter.core.model import FAILED, AccountKey, FineTune, TrackedFineTune
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.outbox import Outbox
from tests.store.sample_polls import KEY, NOW, committed, fine_tune, reading, record_of

HOSTILE = FineTune(
    id="id with \x00 NUL, 'quotes' and \u202ereversed\u202c",
    name="\U0001f469\u200d\U0001f469\u200d\U0001f467 \x1b[31m; DROP TABLE fine_tunes; --",
    description="\U0001f3a4\x00" + "x" * 1_000_000,
    language="\n\t\r",
    model_id="{{ fine }} ${HOME} %s :name",
    dataset="",
    status="a status from the future \ufeff",
)


def test_an_account_without_a_baseline_is_not_known(tmp_path):
    async def run() -> AccountState | None:
        async with Database(tmp_path / "state.db") as database:
            return await Accounts(database).load(KEY)

    assert asyncio.run(run()) is None


def test_a_baseline_of_nothing_is_a_baseline(tmp_path):
    async def run() -> AccountState | None:
        async with Database(tmp_path / "state.db") as database:
            await committed(database, None, reading())
            return await Accounts(database).load(KEY)

    assert asyncio.run(run()) == AccountState()


async def survives(path, state: AccountState) -> AccountState | None:
    """Store a state over an empty baseline and read it with another process's eyes."""
    async with Database(path) as database:
        before = await committed(database, None, reading())
        record = record_of(before, reading(at=NOW + 60))
        await Accounts(database).commit(replace(record, changed=state.tracked, state=state))
    async with Database(path) as database:
        return await Accounts(database).load(KEY)


def test_every_field_survives_a_restart(tmp_path):
    known = TrackedFineTune(
        HOSTILE,
        sequence=7,
        since=NOW + 0.123456789,
        since_seen=True,
        exit_pending=True,
        missed_polls=1,
        removals=3,
        stuck=True,
    )
    other = TrackedFineTune(FineTune("b"), sequence=1, since=0.0, since_seen=False)
    state = AccountState(
        {HOSTILE.id: known, "b": other},
        Labels(("z", "a", HOSTILE.model_id), ("en", "de"), (HOSTILE.name,)),
        Counters(
            {("a", "none", "failed"): 2**40, ("other", "x", "y"): 1},
            {"failed": 5},
            {
                ("training", 3600.0): DurationBucket(2, 5000.5),
                ("failed", math.inf): DurationBucket(1, 1e6),
            },
        ),
    )
    found = asyncio.run(survives(tmp_path / "state.db", state))
    assert found == state
    assert found.labels.models == state.labels.models  # in the order first seen
    assert [type(found.tracked["b"].since_seen), type(found.tracked["b"].since)] == [bool, float]


texts = st.text(st.characters(exclude_categories=["Cs"]))
fine_tunes = st.builds(FineTune, texts, texts, texts, texts, texts, texts, texts)
times = st.floats(0, 1e11)
knowns = st.builds(
    TrackedFineTune,
    fine_tunes,
    st.integers(1, 2**50),
    times,
    st.booleans(),
    st.booleans(),
    st.integers(0, 2),
    st.integers(0, 2**50),
    st.booleans(),
)
stays = st.builds(DurationBucket, st.integers(1, 2**50), times)
states = st.builds(
    AccountState,
    st.lists(knowns, max_size=5).map(lambda each: {known.fine_tune.id: known for known in each}),
    st.builds(Labels, *[st.lists(texts, unique=True, max_size=5).map(tuple)] * 3),
    st.builds(
        Counters,
        st.dictionaries(st.tuples(texts, texts, texts), st.integers(1, 2**50), max_size=3),
        st.dictionaries(texts, st.integers(1, 2**50), max_size=3),
        st.dictionaries(
            st.tuples(texts, st.floats(0)),
            st.builds(DurationBucket, st.integers(1, 2**50), times),
            max_size=3,
        ),
    ),
)


@settings(max_examples=25)
@given(state=states)
def test_any_state_survives(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("any") / "state.db"
    assert asyncio.run(survives(path, state)) == state


def test_an_event_survives_with_its_fine_tune_and_its_facts(tmp_path):
    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:
            state = await committed(database, None, reading(HOSTILE))
            record = record_of(state, reading(structs.replace(HOSTILE, status=FAILED), at=NOW + 60))
            [(event, receivers)] = record.events
            facts = {"text": HOSTILE.name, "n": 3, "lines": ["a", "\x00"], "none": None}
            event = replace(event, facts=facts)
            await Accounts(database).commit(replace(record, events=[(event, receivers)]))
            [owed] = await Outbox(database, "slack").unsent()
            assert owed.event == event

    asyncio.run(run())


async def rows_changed(database: Database, *readings, before: AccountState | None) -> list[int]:
    """How many rows each of the readings inserts, updates or deletes."""

    def total() -> int:
        with database.read() as connection:
            return int(connection.exec_driver_sql("SELECT total_changes()").scalar_one())

    counts = []
    for snapshot in readings:
        start = await database.run(total)
        before = await committed(database, before, snapshot)
        counts.append(await database.run(total) - start)
    return counts


def test_only_what_changed_is_written(tmp_path):
    many = [fine_tune(f"f{n}", "completed") for n in range(500)]
    first = reading(*many, fine_tune("x"))

    async def run() -> list[int]:
        async with Database(tmp_path / "state.db") as database:
            return await rows_changed(
                database,
                first,
                first,
                reading(*many, fine_tune("x", name="new name")),
                reading(*many, fine_tune("x", "failed", name="new name")),
                reading(*many),
                reading(*many),
                reading(*many),
                before=None,
            )

    assert asyncio.run(run()) == [
        1 + 501 + 1,  # the account, its fine-tunes, one model
        0,
        1,
        1 + 1 + 1 + 2,  # the row, the counter, the event, two deliveries; no stay: it was there
        1,  # missed once: unconfirmed
        1 + 1 + 1 + 2,  # missed twice: removed
        0,
    ]


def test_a_poll_that_found_nothing_new_has_nothing_to_write(tmp_path):
    state = record_of(None, reading(fine_tune("a"))).state
    assert record_of(state, reading(fine_tune("a"), at=NOW + 60)).is_empty
    assert not record_of(state, reading(fine_tune("a", "failed"))).is_empty
    assert not record_of(state, reading(fine_tune("a", name="b"))).is_empty
    assert not record_of(None, reading()).is_empty


@pytest.mark.parametrize(
    "other", [AccountKey("default", "https://eu.example"), AccountKey("second", KEY.base_url)]
)
def test_accounts_of_another_name_or_base_url_do_not_meet(tmp_path, other):
    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:
            accounts = Accounts(database)
            state = await committed(database, None, reading(fine_tune("a")))
            assert await accounts.load(other) is None
            second = record_of(None, reading(fine_tune("a", "failed")), key=other)
            await accounts.commit(second)
            assert await accounts.load(KEY) == state
            assert await accounts.load(other) == second.state

    asyncio.run(run())


def test_the_same_events_again_are_owed_once_also_after_they_were_delivered(tmp_path):
    async def run() -> list[int]:
        async with Database(tmp_path / "state.db") as database:
            state = await committed(database, None, reading(fine_tune("a")))
            record = record_of(state, reading(fine_tune("a", "failed"), at=NOW + 60))
            later = record_of(state, reading(fine_tune("a", "failed"), at=NOW + 120))
            await Accounts(database).commit(record)
            await Accounts(database).commit(later)
            return await database.run(counts, database)

    def counts(database: Database) -> list[int]:
        with database.read() as connection:
            return [
                connection.execute(text(query)).scalar_one()
                for query in (
                    "SELECT count(*) FROM events",
                    "SELECT count(*) FROM deliveries",
                    "SELECT sum(total) FROM transitions",
                )
            ]

    assert asyncio.run(run()) == [1, 2, 1]


def test_an_event_that_nobody_is_told_is_kept_and_owed_to_nobody(tmp_path):
    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:
            state = await committed(database, None, reading(fine_tune("a")))
            await committed(database, state, reading(fine_tune("a", "failed")), receivers=())
            assert await Outbox(database, "slack").unsent() == []
            assert await database.run(number, database) == 1

    def number(database: Database) -> int:
        with database.read() as connection:
            return int(connection.exec_driver_sql("SELECT count(*) FROM events").scalar_one())

    asyncio.run(run())
