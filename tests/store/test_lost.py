"""State files that change from outside while they are open, and copies that rescue them."""

import asyncio
import os
import resource
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from exporter.store.database import Database
from exporter.store.errors import (
    StoreError,
    StoreLostError,
    StoreRefusedError,
    StoreTakenError,
)
from exporter.store.lock import Lock
from tests.store.raw_sql import execute
from tests.store.raw_sqlite import count_rows, query_file, state_path
from tests.store.sample_outbox import list_all, queue
from tests.store.sample_polls import NOW


@pytest.fixture
def location(tmp_path):
    """A state file: PostgreSQL has nothing of what is tested here."""
    return tmp_path / "state.db"


async def verify(database: Database) -> None:
    await database.run(database.engine.verify)


async def rescue(database: Database, now: float = NOW) -> Path:
    return Path(await database.run(database.engine.rescue, now))


@pytest.fixture
async def copy(tmp_path) -> Path:
    """A rescue copy beside no state file, but beside the log of the one that was deleted."""
    log = tmp_path / "state.db-wal"
    async with Database(tmp_path / "state.db") as database:
        await queue(database, [1], "ops")
        content = log.read_bytes()
        state_path(database).unlink()
        written = await rescue(database)
    log.write_bytes(content)  # as after SIGKILL
    return written


async def refusal(path: Path) -> str:
    with pytest.raises(StoreRefusedError) as caught:
        async with Database(path):
            pass
    return str(caught.value)


async def test_an_undisturbed_state_passes(database):
    await queue(database, [1], "ops")
    await database.run(database.checkpoint)
    async with Database(state_path(database), exclusive=False) as other:
        await queue(other, [2], "ops")
        await verify(database)
    await verify(database)
    assert database.lost is None
    assert database.trouble == ""


async def test_a_lost_state_stays_lost_and_is_reported_once(database):
    calls: list[None] = []
    database.on_lost = lambda: calls.append(None)
    state_path(database).unlink()
    for _ in range(2):
        with pytest.raises(StoreLostError, match="was deleted or moved while in use"):
            await verify(database)
    await queue(database, [1], "ops")  # what is committed until the end is rescued too
    assert "was deleted" in database.trouble
    assert calls == [None]


async def test_a_link_that_leads_elsewhere_is_a_replaced_state(tmp_path):
    first, second, link = (tmp_path / name for name in ("first.db", "second.db", "link.db"))
    async with Database(second):
        pass
    link.symlink_to(first)
    async with Database(link) as database:
        await verify(database)
        link.unlink()
        link.symlink_to(second)
        with pytest.raises(StoreLostError, match="was replaced by another file"):
            await verify(database)
        assert (await rescue(database)).name.startswith("second.db.rescue-")


async def test_a_path_that_cannot_be_looked_at_is_not_lost(database, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("exporter.store.files.Path.stat", fail)
        with pytest.raises(StoreError, match=r"cannot check .*Permission denied") as caught:
            await verify(database)
    assert not isinstance(caught.value, StoreLostError)
    assert database.lost is None


async def test_a_lock_that_another_process_took_meanwhile_ends_this_one(database):
    lock_file = state_path(database).with_name("state.db.lock")
    lock_file.unlink()
    other = Lock(state_path(database))
    other.acquire()
    with pytest.raises(StoreTakenError, match=r"another agent uses the state file .*locked it"):
        await verify(database)
    other.release()


@pytest.mark.parametrize("kind", ["other content", "link", "directory"])
async def test_a_lock_that_cannot_be_restored_is_an_error_and_left_as_it_is(database, kind):
    lock_file = state_path(database).with_name("state.db.lock")
    target = state_path(database).with_name("target")
    target.write_bytes(b"precious")
    lock_file.unlink()
    match kind:
        case "other content":
            target.rename(lock_file)
        case "link":
            lock_file.symlink_to(target)
        case "directory":
            lock_file.mkdir()
    with pytest.raises(StoreError, match=r"state\.db\.lock") as caught:
        await verify(database)
    assert not isinstance(caught.value, StoreLostError)
    if kind != "directory":
        assert lock_file.read_bytes() == b"precious"
    await queue(database, [1], "ops")


async def test_the_older_of_two_agents_writes_nothing_more(tmp_path, monkeypatch):
    monkeypatch.setattr("exporter.store.lock.fcntl.flock", lambda *_: None)
    path = tmp_path / "state.db"
    async with Database(path) as older:
        await queue(older, [1], "ops")
        async with Database(path) as younger:
            with pytest.raises(StoreTakenError, match="another agent uses the state file"):
                await queue(older, [2], "ops")
            assert older.lost is not None
            await queue(younger, [3], "ops")
            async with Database(path, exclusive=False) as command:
                await queue(command, [4], "ops")
            assert {each.id for each in await list_all(younger)} == {"evt_1", "evt_3", "evt_4"}
            await queue(younger, [5], "ops")


async def test_a_deleted_log_is_restored_with_all_that_was_committed(database):
    await queue(database, [1], "ops")
    for suffixes in (["-wal"], ["-shm"], ["-wal", "-shm"]):
        for suffix in suffixes:
            state_path(database).with_name(f"state.db{suffix}").unlink()
        await verify(database)
        assert count_rows(state_path(database), "events") == 1
        await verify(database)
    await queue(database, [2], "ops")
    assert count_rows(state_path(database), "events") == 2
    assert await execute(database, "PRAGMA busy_timeout") == [(5000,)]


async def test_a_log_that_a_reader_uses_is_restored_when_the_reader_has_ended(database):
    await queue(database, [1], "ops")
    with closing(sqlite3.connect(state_path(database), isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)
        await queue(database, [2], "ops")
        state_path(database).with_name("state.db-wal").unlink()
        with pytest.raises(StoreError, match="others still use it") as caught:
            await verify(database)
        assert not isinstance(caught.value, StoreLostError)
        assert len(await list_all(database)) == 2
    await verify(database)
    assert count_rows(state_path(database), "events") == 2


async def test_a_checkpoint_beside_a_reader_and_a_writer_neither_waits_nor_fails(database):
    await queue(database, [1], "ops")
    with closing(sqlite3.connect(state_path(database), isolation_level=None)) as other:
        other.execute("BEGIN")
        assert other.execute("SELECT count(*) FROM events").fetchone() == (1,)
        await queue(database, [2], "ops")
        async with asyncio.timeout(4):  # less than the timeout of a transaction
            await database.run(database.checkpoint)
        assert other.execute("SELECT count(*) FROM events").fetchone() == (1,)
        other.execute("COMMIT")
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(4):
            await database.run(database.checkpoint)
        other.execute("COMMIT")
    await database.run(database.checkpoint)
    assert state_path(database).with_name("state.db-wal").stat().st_size == 0
    assert len(await list_all(database)) == 2


async def test_a_close_beside_a_command_writes_everything_to_the_file(tmp_path):
    path, backup = tmp_path / "state.db", tmp_path / "backup.db"
    async with Database(path) as agent, Database(path, exclusive=False):
        await queue(agent, [1], "ops")
        await agent.run(agent.engine.close)
        backup.write_bytes(path.read_bytes())
    assert count_rows(backup, "events") == 1


async def test_a_rescue_copy_becomes_the_state_without_the_log_of_the_old_one(tmp_path, copy):
    path = tmp_path / "state.db"
    async with Database(path) as database:
        assert [each.id for each in await list_all(database)] == ["evt_1"]
        await queue(database, [2], "ops")
    assert query_file(path, "PRAGMA integrity_check") == [("ok",)]
    assert not copy.exists()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["state.db", "state.db.lock"]


async def test_an_empty_state_file_is_none_beside_a_copy(tmp_path, copy):
    (tmp_path / "state.db").touch()
    async with Database(tmp_path / "state.db") as database:
        assert [each.id for each in await list_all(database)] == ["evt_1"]


async def test_a_state_file_and_a_copy_are_refused_with_what_to_do(tmp_path, copy):
    path = tmp_path / "state.db"
    content = copy.read_bytes()
    path.write_bytes(content)
    error = await refusal(path)
    assert f"both the state file {path} and the rescue copy {copy}" in error
    assert "move one of them away" in error
    assert path.read_bytes() == copy.read_bytes() == content


async def test_several_copies_are_refused_with_what_to_do(tmp_path, copy):
    second = copy.with_name("state.db.rescue-20300101T000000Z")
    second.write_bytes(copy.read_bytes())
    error = await refusal(tmp_path / "state.db")
    assert f"several rescue copies ({copy.name}, {second.name}): move all but one away" in error
    assert not (tmp_path / "state.db").exists()


async def test_other_files_are_no_copies(tmp_path, copy):
    copy.rename(copy.with_name(f"{copy.name}.part"))
    (tmp_path / "state.db.rescue-folder").mkdir()
    (tmp_path / "state.db.rescue-link").symlink_to("state.db.rescue-folder")
    (tmp_path / "other.db.rescue-20300101T000000Z").touch()
    async with Database(tmp_path / "state.db") as database:
        assert await list_all(database) == []


async def test_a_damaged_copy_is_refused_and_no_new_state_is_begun(tmp_path, copy):
    copy.write_bytes(copy.read_bytes()[:5000])
    for _ in range(2):
        assert "is damaged" in await refusal(tmp_path / "state.db")


async def test_a_copy_is_private_and_overwrites_nothing(tmp_path, database):
    before = os.umask(0)
    try:
        written = await rescue(database)
        content = written.read_bytes()
        with pytest.raises(StoreError, match="exists"):
            await rescue(database)
    finally:
        os.umask(before)
    assert written.stat().st_mode & 0o777 == 0o600
    assert written.read_bytes() == content
    assert [each.name for each in tmp_path.glob("*.part")] == []
    assert await rescue(database, NOW + 1) != written


async def test_a_full_disk_leaves_no_part_of_a_copy(tmp_path, database):
    await execute(database, "CREATE TABLE large (content BLOB)")
    await execute(database, "INSERT INTO large VALUES (zeroblob(200000))")

    def run() -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            database.engine.rescue(NOW)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with pytest.raises(StoreError, match=r"state file .*(full|I/O error)"):
        await database.run(run)
    assert list(tmp_path.glob("*.rescue-*")) == []
