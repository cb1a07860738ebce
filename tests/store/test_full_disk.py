"""A full disk: nothing is half written, the error names the cause, and free space is enough."""

import subprocess
import sys

import pytest

from exporter.store.accounts import Accounts
from exporter.store.errors import StoreError, StoreRefusedError
from exporter.store.outbox import Outbox
from tests.store.raw_sql import execute
from tests.store.sample_polls import (
    KEY,
    NOW,
    commit_snapshot,
    fine_tune,
    poll_result,
    snapshot_of,
)


@pytest.fixture
def location(tmp_path):
    """A state file: PostgreSQL has nothing of what is tested here."""
    return tmp_path / "state.db"


LARGE = "x" * 200_000


async def test_a_full_disk_changes_nothing_and_free_space_is_enough(database):
    before = await commit_snapshot(database, None, snapshot_of(fine_tune("a")))
    # SQLite limits the file to its present number of pages.
    await execute(database, "PRAGMA max_page_count = 1")
    result = poll_result(
        before, snapshot_of(fine_tune("a", "failed", description=LARGE), at=NOW + 60)
    )
    for _ in range(3):
        with pytest.raises(StoreError, match=r"state\.db.* full") as caught:
            await Accounts(database).commit(result)
        assert not isinstance(caught.value, StoreRefusedError)
        assert "full" in database.trouble
    assert await Accounts(database).load(KEY) == before
    assert await Outbox(database, "slack").unsent() == []
    await execute(database, "PRAGMA max_page_count = 100000")
    await Accounts(database).commit(result)
    assert not database.trouble
    assert await Accounts(database).load(KEY) == result.state
    assert len(await Outbox(database, "slack").unsent()) == 1


# In a process of its own: the limit of file sizes applies to a whole process.
_FULL_AT_COMMIT = """
import asyncio, resource, signal, sys
from pathlib import Path
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.errors import StoreError
from tests.store.sample_polls import KEY, NOW, commit_snapshot, fine_tune, poll_result, snapshot_of

async def run():
    async with Database(Path(sys.argv[1])) as database:
        before = await commit_snapshot(database, None, snapshot_of(fine_tune("a")))
        failed = snapshot_of(fine_tune("a", "failed", description="x" * 200_000), at=NOW + 60)
        result = poll_result(before, failed)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
        try:
            await Accounts(database).commit(result)
        except StoreError as error:
            print("refused", error)
        assert await Accounts(database).load(KEY) == before
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await Accounts(database).commit(result)
        assert await Accounts(database).load(KEY) == result.state

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
asyncio.run(run())
"""


def test_a_write_that_fails_at_the_commit_is_rolled_back(tmp_path):
    command = [sys.executable, "-c", _FULL_AT_COMMIT, str(tmp_path / "state.db")]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("refused the state file")
