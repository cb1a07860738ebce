"""A large account in the store: written in pieces, as one transaction, and held once."""

import asyncio

import pytest

from exporter.core.model import FAILED
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.errors import StoreError
from exporter.store.outbox import Outbox
from tests.store.sample_polls import KEY, committed, fine_tune, reading

MANY = 1_201
"""More than are made ready together, and not a multiple of it."""


def test_a_large_baseline_is_stored_as_a_whole_or_not_at_all(tmp_path):
    """Its rows are made ready in pieces; the last one is refused."""
    many = [fine_tune(f"ft_{n:04d}") for n in range(MANY)]
    last = f"BEFORE INSERT ON fine_tunes WHEN NEW.id = 'ft_{MANY - 1:04d}'"

    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:

            def execute(statement: str) -> None:
                with database.write() as connection:
                    connection.exec_driver_sql(statement)

            refusal = "BEGIN SELECT RAISE(ABORT, 'no room'); END"
            await database.run(execute, f"CREATE TRIGGER no {last} {refusal}")
            with pytest.raises(StoreError, match="no room"):
                await committed(database, None, reading(*many))
            assert await Accounts(database).load(KEY) is None
            await database.run(execute, "DROP TRIGGER no")
            state = await committed(database, None, reading(*many))
            assert await Accounts(database).load(KEY) == state
            assert len(state.tracked) == MANY

    asyncio.run(run())


def test_many_events_are_owed_once_each_also_when_they_are_stored_again(tmp_path):
    failed = [fine_tune(f"ft_{n:04d}", FAILED) for n in range(MANY)]

    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:
            state = await committed(database, None, reading())
            for _ in range(2):
                await committed(database, state, reading(*failed))
            owed = await Outbox(database, "slack").unsent()
            assert [each.event.subject for each in owed] == [each.id for each in failed]

    asyncio.run(run())


def test_texts_that_fine_tunes_share_are_held_once(tmp_path):
    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:
            await committed(database, None, reading(*(fine_tune(x, dataset="d" * 9) for x in "ab")))
            state = await Accounts(database).load(KEY)
            assert state is not None
            one, other = (each.fine_tune for each in state.tracked.values())
            for name in ("language", "model_id", "dataset", "status"):
                assert getattr(one, name) is getattr(other, name)

    asyncio.run(run())
