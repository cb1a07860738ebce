"""A damaged file, or one of another program, is refused with what to do and not changed."""

import sqlite3
from pathlib import Path

import pytest

from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.errors import StoreError, StoreRefusedError
from exporter.store.outbox import Outbox
from tests.store.raw_sql import execute, reject_inserts
from tests.store.sample_polls import (
    KEY,
    NOW,
    commit_snapshot,
    fine_tune,
    queue_failures,
    snapshot_of,
)


@pytest.fixture
def location(tmp_path):
    """A state file: PostgreSQL has nothing of what is tested here."""
    return tmp_path / "state.db"


DAMAGED = "is damaged .*: restore a backup of it, or move it away"
FOREIGN = "not one of cartesia-exporter: give another storage.path"
PAGE = 4096


async def create(path) -> bytes:
    """Create a state file of many pages; return its content."""
    async with Database(path) as database:
        many = (fine_tune(f"f{n}", description=f"{n} " * 100) for n in range(500))
        await commit_snapshot(database, None, snapshot_of(*many))
    content: bytes = path.read_bytes()
    return content


def execute_in_file(path: Path, *statements: str) -> bytes:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return path.read_bytes()


async def assert_refused(path, content: bytes, error: str) -> None:
    path.write_bytes(content)
    path.chmod(0o644)
    with pytest.raises(StoreRefusedError, match=error) as caught:
        async with Database(path):
            pass
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o644  # it may belong to somebody else


async def test_a_file_that_is_no_database_is_refused(tmp_path):
    await assert_refused(tmp_path / "state.db", b"This is not a database. " * 1000, DAMAGED)


async def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "state.db"
    content = await create(path)
    assert len(content) > 20 * PAGE
    for length in (50, PAGE, 3 * PAGE, len(content) // 2 + 100, len(content) - PAGE):
        await assert_refused(path, content[:length], DAMAGED)


async def test_a_file_with_a_corrupted_page_is_refused(tmp_path):
    path = tmp_path / "state.db"
    content = await create(path)
    for page in range(1, len(content) // PAGE, 7):
        at = page * PAGE
        corrupted = content[:at] + b"\xff" * 512 + content[at + 512 :]
        await assert_refused(path, corrupted, DAMAGED)


async def test_a_file_of_an_unknown_format_is_refused(tmp_path):
    path = tmp_path / "state.db"
    content = await create(path)
    await assert_refused(path, content[:47] + b"\xff" + content[48:], DAMAGED)


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("DROP TABLE deliveries", "without deliveries"),
        ("DELETE FROM meta WHERE name = 'store_id'", "it was emptied"),
    ],
)
async def test_an_incomplete_file_is_refused(tmp_path, statement, error):
    path = tmp_path / "state.db"
    await create(path)
    content = execute_in_file(path, "PRAGMA journal_mode = DELETE", statement)
    await assert_refused(path, content, error)


async def read_all(database: Database) -> None:
    await Accounts(database).load(KEY)
    await Outbox(database, "slack").unsent()


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        ("UPDATE fine_tunes SET name = CAST(x'fffe' AS TEXT)", "a text is not"),
        ("UPDATE events SET content = '{\"xfine_tune\": 1}'", "an event is not"),
        ("UPDATE events SET content = 'torn'", "an event is not"),
    ],
)
async def test_a_damaged_row_is_reported_as_damage_and_not_quoted(tmp_path, damage, error):
    """Such a row was reported as a bug and ended the process, at each start again."""
    path = tmp_path / "state.db"
    async with Database(path) as database:
        await queue_failures(database, 1)
    async with Database(path) as database:
        await execute(database, damage)
        with pytest.raises(StoreRefusedError, match=DAMAGED) as caught:
            await read_all(database)
    assert error in str(caught.value)
    assert "torn" not in str(caught.value)


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE notes (text TEXT)", "INSERT INTO notes VALUES ('mine')"],
        ["CREATE TABLE meta (key TEXT, content TEXT)"],
        [
            "CREATE TABLE meta (name TEXT, value TEXT)",
            "INSERT INTO meta VALUES ('schema_version', '1')",
        ],
        ["CREATE TABLE meta (name TEXT, value TEXT)", "CREATE TABLE fine_tunes (id TEXT)"],
        [
            "CREATE TABLE alembic_version (version_num TEXT)",
            "INSERT INTO alembic_version VALUES ('0001')",
        ],
    ],
    ids=["no meta", "another meta", "a version by chance", "no version", "another Alembic"],
)
async def test_a_database_of_another_program_is_refused(tmp_path, statements):
    path = tmp_path / "state.db"
    await assert_refused(path, execute_in_file(path, *statements), FOREIGN)


async def test_an_empty_file_is_a_new_state(tmp_path):
    path = tmp_path / "state.db"
    path.touch()
    async with Database(path) as database:
        await commit_snapshot(database, None, snapshot_of(fine_tune("a")))


async def test_damage_found_while_running_fails_the_read_with_what_to_do(tmp_path):
    path = tmp_path / "state.db"
    await create(path)
    async with Database(path) as database:
        with path.open("r+b") as file:
            file.seek(PAGE)
            file.write(b"\xff" * (path.stat().st_size - PAGE))
        await execute(database, "PRAGMA shrink_memory")  # drops cached pages
        with pytest.raises(StoreRefusedError, match=DAMAGED):
            await Accounts(database).load(KEY)


async def test_an_error_never_quotes_texts_of_fine_tunes(database):
    secret = "the secret wish of a customer"
    state = await commit_snapshot(database, None, snapshot_of(fine_tune("a", name=secret)))
    await reject_inserts(database, "events")
    failed = snapshot_of(fine_tune("a", "failed", name=secret), at=NOW + 60)
    with pytest.raises(StoreError, match="no room") as caught:
        await commit_snapshot(database, state, failed)
    assert "state.db" in str(caught.value)
    error: BaseException | None = caught.value
    while error is not None:
        assert secret not in str(error) + repr(error)
        error = error.__cause__
