"""A full disk: nothing is half-written, the trouble is named, and room again is enough."""

import asyncio
import subprocess
import sys

import pytest

from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.errors import StoreError, StoreRefusedError
from exporter.store.outbox import Outbox
from tests.store.sample_polls import KEY, NOW, committed, fine_tune, reading, record_of

LARGE = "x" * 200_000


async def limit(database: Database, pages: int) -> None:
    def set_limit() -> None:
        with database.read() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    await database.run(set_limit)


async def fill_and_recover(path) -> None:
    async with Database(path) as database:
        before = await committed(database, None, reading(fine_tune("a")))
        await limit(database, 1)  # SQLite takes as many as there are: not one more
        found = record_of(before, reading(fine_tune("a", "failed", description=LARGE), at=NOW + 60))
        for _ in range(3):
            with pytest.raises(StoreError, match=r"state\.db.* full") as told:
                await Accounts(database).commit(found)
            assert not isinstance(told.value, StoreRefusedError)
            assert "full" in database.trouble
        assert await Accounts(database).load(KEY) == before
        assert await Outbox(database, "slack").unsent() == []
        await limit(database, 100_000)
        await Accounts(database).commit(found)
        assert not database.trouble
        assert await Accounts(database).load(KEY) == found.state
        assert len(await Outbox(database, "slack").unsent()) == 1


def test_nothing_is_half_written_and_it_works_again_when_there_is_room(tmp_path):
    asyncio.run(fill_and_recover(tmp_path / "state.db"))


# In a process of its own: the limit of the size of files is the whole process's.
_AT_THE_COMMIT = """
import asyncio, resource, signal, sys
from pathlib import Path
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.errors import StoreError
from tests.store.sample_polls import KEY, NOW, committed, fine_tune, reading, record_of

async def run():
    async with Database(Path(sys.argv[1])) as database:
        before = await committed(database, None, reading(fine_tune("a")))
        failed = reading(fine_tune("a", "failed", description="x" * 200_000), at=NOW + 60)
        found = record_of(before, failed)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
        try:
            await Accounts(database).commit(found)
        except StoreError as error:
            print("refused", error)
        assert await Accounts(database).load(KEY) == before
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await Accounts(database).commit(found)
        assert await Accounts(database).load(KEY) == found.state

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
asyncio.run(run())
"""


def test_a_write_that_fails_at_the_commit_itself_is_taken_back(tmp_path):
    command = [sys.executable, "-c", _AT_THE_COMMIT, str(tmp_path / "state.db")]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("refused the state file")
