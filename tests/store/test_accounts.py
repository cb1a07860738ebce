"""The state of an account is loaded as it was stored, and written only where it changed."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from msgspec.structs import replace

from exporter.core.account import AccountState
from exporter.core.counters import Counters, DurationBucket
from exporter.core.labels import Labels
from exporter.core.model import FAILED, AccountKey, FineTune, TrackedFineTune
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.location import StoreLocation
from exporter.store.outbox import Outbox
from tests.engines import on_postgres, on_sqlite
from tests.store.raw_sql import count_rows, execute
from tests.store.sample_polls import (
    KEY,
    NOW,
    commit_snapshot,
    fine_tune,
    poll_result,
    snapshot_of,
)

HOSTILE = FineTune(
    id="id with \x7f DEL, 'quotes' and \u202ereversed\u202c",
    name="\U0001f469\u200d\U0001f469\u200d\U0001f467 \x1b[31m; DROP TABLE fine_tunes; --",
    description="\U0001f3a4" + "x" * 1_000_000,
    language="\n\t\r",
    model_id="{{ fine }} ${HOME} %s :name",
    dataset="",
    status="a status from the future \ufeff",
)


async def test_an_account_without_a_baseline_has_no_state(database):
    assert await Accounts(database).load(KEY) is None


async def test_an_empty_baseline_is_a_baseline(database):
    await commit_snapshot(database, None, snapshot_of())
    assert await Accounts(database).load(KEY) == AccountState()


async def store_and_load(location: StoreLocation, state: AccountState) -> AccountState | None:
    """Store a state over an empty baseline, and load it after a restart, with those removed."""
    async with Database(location) as database:
        before = await commit_snapshot(database, None, snapshot_of())
        result = poll_result(before, snapshot_of(at=NOW + 60))
        await Accounts(database).commit(replace(result, changed=state.tracked, state=state))
    async with Database(location) as database:
        loaded = await Accounts(database).load(KEY)
        if loaded is None:
            return None
        assert not any(each.removed for each in loaded.tracked.values())
        removed = await Accounts(database).removed(KEY, list(state.tracked))
        assert all(each.removed for each in removed.values())
        return replace(loaded, tracked={**loaded.tracked, **removed})


async def test_every_field_survives_a_restart(location):
    tracked = TrackedFineTune(
        HOSTILE,
        sequence=7,
        since=NOW + 0.123456789,
        since_seen=True,
        exit_pending=True,
        missed_polls=1,
        removals=3,
        stuck=True,
        configured_failure=True,
        returned=True,
    )
    other = TrackedFineTune(FineTune("b"), sequence=1, since=0.0, since_seen=False)
    state = AccountState(
        {HOSTILE.id: tracked, "b": other},
        Labels(("z", "a", HOSTILE.model_id), ("en", "de"), (HOSTILE.name,)),
        Counters(
            {("a", "none", "failed"): 2**40, ("other", "x", "y"): 1},
            {"failed": 5},
            {
                ("training", 3600.0): DurationBucket(2, 5000.5),
                ("failed", math.inf): DurationBucket(1, 1e6),
            },
        ),
        "fingerprint",
        3,
        ("z status", "a status"),
    )
    loaded = await store_and_load(location, state)
    assert loaded == state
    assert loaded.labels.models == state.labels.models  # in the order first seen
    assert [type(loaded.tracked["b"].since_seen), type(loaded.tracked["b"].since)] == [bool, float]


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
fine_tunes = st.builds(FineTune, texts, texts, texts, texts, texts, texts, texts)
times = st.floats(0, 1e11)
totals = st.integers(1, 2**50)
tracked_fine_tunes = st.builds(
    TrackedFineTune,
    fine_tunes,
    totals,
    times,
    st.booleans(),
    st.booleans(),
    st.integers(0, 2),
    st.integers(0, 2**50),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
states = st.builds(
    AccountState,
    st.lists(tracked_fine_tunes, max_size=5).map(
        lambda tracked: {each.fine_tune.id: each for each in tracked}
    ),
    st.builds(Labels, *[st.lists(texts, unique=True, max_size=5).map(tuple)] * 3),
    st.builds(
        Counters,
        st.dictionaries(st.tuples(texts, texts, texts), totals, max_size=3),
        st.dictionaries(texts, totals, max_size=3),
        st.dictionaries(
            st.tuples(texts, st.floats(0)), st.builds(DurationBucket, totals, times), max_size=3
        ),
    ),
    texts,
    totals,
    st.lists(texts, unique=True, max_size=5).map(tuple),
)


@on_sqlite
@settings(max_examples=25)
@given(state=states)
async def test_any_state_survives_a_restart(new_state, state):
    assert await store_and_load(new_state(), state) == state


@on_postgres
@settings(max_examples=8)
@given(state=states)
async def test_any_state_survives_a_restart_in_postgresql(new_state, state):
    assert await store_and_load(new_state(), state) == state


async def test_removed_fine_tunes_are_loaded_by_id_and_account(database):
    accounts, other = Accounts(database), AccountKey("other", KEY.base_url)
    many = [fine_tune(f"f{number}") for number in range(1_200)]
    for key in (KEY, other):
        state = None
        for listed in (many, many[:1], many[:1] if key == KEY else many):
            result = poll_result(state, snapshot_of(*listed), key=key)
            await accounts.commit(result)
            state = result.state
    ids = [each.id for each in many]
    assert (await accounts.removed(KEY, ids)).keys() == set(ids[1:])
    assert (await accounts.removed(KEY, ["f1", "unknown"])).keys() == {"f1"}
    assert await accounts.removed(other, ids) == {}
    loaded = await accounts.load(KEY)
    assert loaded is not None
    assert loaded.tracked.keys() == {"f0"}


async def test_an_event_is_stored_with_its_fine_tune_and_its_facts(database):
    state = await commit_snapshot(database, None, snapshot_of(HOSTILE), receivers=())
    failed = snapshot_of(structs.replace(HOSTILE, status=FAILED), at=NOW + 60)
    result = poll_result(state, failed)
    [(event, receivers)] = result.events
    event = replace(
        event, facts={"text": HOSTILE.name, "n": 3, "lines": ["a", "\x00"], "none": None}
    )
    await Accounts(database).commit(replace(result, events=[(event, receivers)]))
    [queued] = await Outbox(database, "slack").unsent()
    assert queued.event == event


CLOCK_ROWS = 1
"""Each write transaction stores the awake clock."""


@on_sqlite
async def test_only_changes_are_written(database):
    many = [fine_tune(f"f{n}", "completed") for n in range(500)]
    first = snapshot_of(*many, fine_tune("x"))
    renamed = snapshot_of(*many, fine_tune("x", name="new name"))
    failed = snapshot_of(*many, fine_tune("x", "failed", name="new name"))
    removed = snapshot_of(*many)
    state, written = None, []
    for snapshot in (first, first, renamed, failed, removed, removed, removed):
        [(start,)] = await execute(database, "SELECT total_changes()")
        state = await commit_snapshot(database, state, snapshot)
        [(total,)] = await execute(database, "SELECT total_changes()")
        written.append(total - start - CLOCK_ROWS)
    assert written == [
        1 + 501 + 1 + 1,  # the account, its fine-tunes, one model, the counts
        1,  # the account: when it was read
        1 + 1,
        # The row, a counter, the training, the counts, the event, two deliveries.
        1 + 1 + 1 + 1 + 1 + 1 + 2,
        1 + 1 + 1,  # missed once: not confirmed, but not counted
        1 + 1 + 1 + 1 + 2,  # missed twice: removed
        1,
    ]


def test_a_poll_without_changes_is_empty():
    state = poll_result(None, snapshot_of(fine_tune("a"))).state
    assert poll_result(state, snapshot_of(fine_tune("a"), at=NOW + 60)).is_empty
    assert not poll_result(state, snapshot_of(fine_tune("a", "failed"))).is_empty
    assert not poll_result(state, snapshot_of(fine_tune("a", name="b"))).is_empty
    assert not poll_result(None, snapshot_of()).is_empty


@pytest.mark.parametrize(
    "other", [AccountKey("default", "https://eu.example"), AccountKey("second", KEY.base_url)]
)
async def test_accounts_with_another_name_or_base_url_are_separate(database, other):
    accounts = Accounts(database)
    state = await commit_snapshot(database, None, snapshot_of(fine_tune("a")))
    assert await accounts.load(other) is None
    second = poll_result(None, snapshot_of(fine_tune("a", "failed")), key=other)
    await accounts.commit(second)
    assert await accounts.load(KEY) == state
    assert await accounts.load(other) == second.state


async def test_the_same_event_is_queued_once(database):
    state = await commit_snapshot(database, None, snapshot_of(fine_tune("a")))
    for at in (NOW + 60, NOW + 120):
        result = poll_result(state, snapshot_of(fine_tune("a", "failed"), at=at))
        await Accounts(database).commit(result)
    assert await count_rows(database, "events") == 1
    assert await count_rows(database, "deliveries") == 2
    assert await execute(database, "SELECT sum(total) FROM transitions") == [(1,)]


async def test_an_event_without_receivers_is_stored(database):
    state = await commit_snapshot(database, None, snapshot_of(fine_tune("a")))
    await commit_snapshot(database, state, snapshot_of(fine_tune("a", "failed")), receivers=())
    assert await Outbox(database, "slack").unsent() == []
    assert await count_rows(database, "events") == 1
