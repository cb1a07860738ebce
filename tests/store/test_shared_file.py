"""The state file of a running agent is opened beside it, and not created or upgraded."""

import os
import sqlite3
from pathlib import Path

import pytest

from exporter.store.database import Database
from exporter.store.errors import StoreError, StoreRefusedError
from tests.store.raw_sqlite import query_file
from tests.store.sample_outbox import list_all, queue


@pytest.fixture
def location(tmp_path):
    """A state file: PostgreSQL has nothing of what is tested here."""
    return tmp_path / "state.db"


NOBODY = 65534


@pytest.fixture
async def state(tmp_path):
    """A state file that no agent has open."""
    path = tmp_path / "state.db"
    async with Database(path) as database:
        await queue(database, [1], "ops")
    return path


async def read(path) -> int:
    async with Database(path, exclusive=False) as database:
        return len(await list_all(database))


async def write(path) -> None:
    async with Database(path, exclusive=False) as database:
        await queue(database, [2], "ops")


async def refusal(path) -> str:
    with pytest.raises(StoreRefusedError) as caught:
        await read(path)
    return str(caught.value)


async def test_beside_a_running_agent_it_reads_and_writes_without_the_lock(state):
    async with Database(state) as agent:
        await write(state)
        await write(state)  # closing the first has not released locks of the agent
        await queue(agent, [3], "ops")
        assert len(await list_all(agent)) == 3


async def test_an_agent_can_start_beside_it(state):
    async with Database(state, exclusive=False) as other, Database(state) as agent:
        await queue(agent, [2], "ops")
        assert len(await list_all(other)) == 2


async def test_a_missing_file_is_not_created(tmp_path):
    for path in (tmp_path / "state.db", tmp_path / "no" / "state.db"):
        error = await refusal(path)
        assert f"no state file {path}" in error
        assert "the agent creates it at start" in error
    assert list(tmp_path.iterdir()) == []


async def test_an_older_file_is_left_to_the_agent(state, monkeypatch):
    before = state.read_bytes()
    for module in ("exporter.store.migrations", "exporter.store.database"):
        monkeypatch.setattr(f"{module}.REVISIONS", ("0001", "0002"))
    error = await refusal(state)
    assert "has schema version 0001, this program needs 0002" in error
    assert "start the agent once, it upgrades the tables" in error
    assert state.read_bytes() == before


async def test_an_empty_file_is_left_to_the_agent(tmp_path):
    path = tmp_path / "state.db"
    path.touch()
    assert "start the agent once" in await refusal(path)
    assert path.read_bytes() == b""


async def test_a_newer_file_is_left_to_the_newer_program(state):
    query_file(state, "UPDATE alembic_version SET version_num = '0099'")
    assert "start the newer program" in await refusal(state)


async def test_a_damaged_file_is_refused_with_what_to_do(state):
    content = state.read_bytes()
    state.write_bytes(content[: len(content) // 2])
    assert "restore a backup" in await refusal(state)


async def test_beside_an_agent_whose_log_was_deleted_it_says_what_to_do(state):
    """SQLite said "disk I/O error", and created a log that the agent did not know."""
    log = state.with_name("state.db-wal")
    async with Database(state) as agent:
        await queue(agent, [2], "ops")
        log.unlink()
        error = await refusal(state)
        assert "state.db-wal was deleted while an agent uses it" in error
        assert "try again" in error
        assert not log.exists()
        await agent.run(agent.engine.verify)
        assert await read(state) == 2


async def test_a_folder_that_cannot_be_written_is_named(state, monkeypatch):
    def access(path: Path, *_: object, **__: object) -> bool:
        return path != Path(state.parent)

    monkeypatch.setattr("exporter.store.files.os.access", access)
    assert f"make {state.parent} writable" in await refusal(state)
    async with Database(state) as agent:
        await queue(agent, [2], "ops")
        assert await read(state) == 2, "beside an agent all files are there"


async def test_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert "cannot open the state file" in await refusal(tmp_path / "loop")


async def test_a_writer_that_does_not_end_is_an_error_after_the_timeout(state, monkeypatch):
    monkeypatch.setattr("exporter.store.engines.sqlite._BUSY_MILLISECONDS", 50)
    writer = sqlite3.connect(state, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    assert await read(state) == 1, "readers do not wait"
    with pytest.raises(StoreError, match=r"locked by another process .*; try again") as caught:
        await write(state)
    assert not isinstance(caught.value, StoreRefusedError)
    writer.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user as well")
async def test_files_that_root_creates_beside_it_belong_to_the_agents_user(state):
    """An agent that starts meanwhile, or after root's command was killed, must write them."""
    os.chown(state, NOBODY, NOBODY)
    async with Database(state, exclusive=False) as database:
        await queue(database, [2], "ops")
        for suffix in ("-wal", "-shm"):
            found = state.with_name(f"state.db{suffix}").stat()
            assert (found.st_uid, found.st_mode) == (NOBODY, 0o100600), suffix


async def test_another_user_reads_whose_file_it_is(state, monkeypatch):
    monkeypatch.setattr("exporter.store.files.os.access", lambda *_, **__: False)
    error = await refusal(state)
    assert f"cannot write the state file {state}" in error
    assert "the agent's user or root" in error
