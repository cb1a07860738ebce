"""A file of a running agent is opened beside it, as it is; any other is refused with what to do."""

import asyncio
import os
import sqlite3

import pytest

from exporter.store import database as database_module
from exporter.store import migrations
from exporter.store.database import Database, GuestDatabase
from exporter.store.errors import StoreError, StoreRefusedError
from tests.store.sample_outbox import listed, owe

NOBODY = 65534


@pytest.fixture
def state(tmp_path):
    """A state file that no agent has open."""
    path = tmp_path / "state.db"

    async def make() -> None:
        async with Database(path) as database:
            await owe(database, [1], "ops")

    asyncio.run(make())
    return path


async def look(path) -> int:
    async with GuestDatabase(path) as database:
        return len(await listed(database))


async def touch(path) -> None:
    async with GuestDatabase(path) as database:
        await owe(database, [2], "ops")


def refusal(path) -> str:
    with pytest.raises(StoreRefusedError) as told:
        asyncio.run(look(path))
    return str(told.value)


def test_beside_a_running_agent_it_reads_and_writes_and_takes_no_lock(state):
    async def run() -> int:
        async with Database(state) as agent:
            await touch(state)
            await touch(state)  # the end of the first has closed nothing of the agent's
            await owe(agent, [3], "ops")
            return len(await listed(agent))

    assert asyncio.run(run()) == 3


def test_an_agent_can_start_beside_it(state):
    async def run() -> int:
        async with GuestDatabase(state) as guest, Database(state) as agent:
            await owe(agent, [2], "ops")
            return len(await listed(guest))

    assert asyncio.run(run()) == 2


def test_where_there_is_no_file_none_is_made(tmp_path):
    for path in (tmp_path / "state.db", tmp_path / "no" / "state.db"):
        said = refusal(path)
        assert f"no state file {path}" in said
        assert "`cartesia-exporter run` makes it" in said
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_is_left_to_the_agent(state, monkeypatch):
    before = state.read_bytes()
    monkeypatch.setattr(database_module, "SCHEMA_VERSION", migrations.SCHEMA_VERSION + 1)
    said = refusal(state)
    assert f"has schema version {migrations.SCHEMA_VERSION}" in said
    assert "start the agent once, it upgrades the file" in said
    assert state.read_bytes() == before


def test_an_empty_file_is_left_to_the_agent(tmp_path):
    path = tmp_path / "state.db"
    path.touch()
    assert "start the agent once" in refusal(path)
    assert path.read_bytes() == b""


def test_a_newer_file_is_left_to_the_newer_program(state):
    with sqlite3.connect(state) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE name = 'schema_version'")
    connection.close()
    assert "start the newer program" in refusal(state)


def test_a_damaged_file_is_refused_with_what_to_do(state):
    content = state.read_bytes()
    state.write_bytes(content[: len(content) // 2])
    assert "restore a backup" in refusal(state)


def test_what_is_no_file_is_refused(tmp_path):
    assert "cannot write the state file" in refusal(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    assert "cannot open the state file" in refusal(tmp_path / "loop")


def test_a_writer_that_does_not_end_is_waited_for_and_named(state, monkeypatch):
    monkeypatch.setattr(database_module, "_BUSY_MILLISECONDS", 50)
    writer = sqlite3.connect(state, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    assert asyncio.run(look(state)) == 1, "readers do not wait"
    with pytest.raises(StoreError, match=r"locked by another process .*; try again") as told:
        asyncio.run(touch(state))
    assert not isinstance(told.value, StoreRefusedError)
    writer.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user as well")
def test_what_root_makes_beside_the_file_belongs_to_the_agents_user(state):
    """An agent that starts meanwhile, or after root's command was killed, could not write them."""
    os.chown(state, NOBODY, NOBODY)

    async def owners() -> dict[str, tuple[int, int]]:
        async with GuestDatabase(state) as database:
            await owe(database, [2], "ops")
            beside = [state.with_name(f"state.db-{part}") for part in ("wal", "shm")]
            return {path.name: (path.stat().st_uid, path.stat().st_mode) for path in beside}

    assert asyncio.run(owners()) == {
        "state.db-wal": (NOBODY, 0o100600),
        "state.db-shm": (NOBODY, 0o100600),
    }


def test_another_user_is_told_whose_file_it_is(state, monkeypatch):
    monkeypatch.setattr("exporter.store.files.os.access", lambda *_, **__: False)
    said = refusal(state)
    assert f"cannot write the state file {state}" in said
    assert "the agent's user, or root" in said
