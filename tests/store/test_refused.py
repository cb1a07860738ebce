"""A file that is damaged or somebody else's is refused with what to do, and never replaced."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.errors import StoreError, StoreRefusedError
from exporter.store.outbox import Outbox
from tests.store.sample_polls import KEY, NOW, committed, fine_tune, owe_failures, reading

DAMAGED = "is damaged .*: restore a backup of it, or move it away"
FOREIGN = "not one of cartesia-exporter: give another storage.path"
PAGE = 4096


async def use(path) -> None:
    async with Database(path) as database:
        await committed(database, None, reading(fine_tune("a")))


def ours(path: Path) -> bytes:
    """A state file of many pages."""

    async def make() -> None:
        async with Database(path) as database:
            many = (fine_tune(f"f{n}", description=f"{n} " * 100) for n in range(500))
            await committed(database, None, reading(*many))

    asyncio.run(make())
    return path.read_bytes()


def foreign(path: Path, *statements: str) -> bytes:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return path.read_bytes()


def refused(path: Path, content: bytes, refusal: str) -> None:
    path.write_bytes(content)
    path.chmod(0o644)
    with pytest.raises(StoreRefusedError, match=refusal) as told:
        asyncio.run(use(path))
    assert str(path) in str(told.value)
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o644  # it may be somebody else's


def test_garbage_is_refused(tmp_path):
    refused(tmp_path / "state.db", b"This is not a database. " * 1000, DAMAGED)


def test_a_truncated_file_is_refused(tmp_path):
    whole = ours(tmp_path / "state.db")
    assert len(whole) > 20 * PAGE
    for length in (50, PAGE, 3 * PAGE, len(whole) // 2 + 100, len(whole) - PAGE):
        refused(tmp_path / "state.db", whole[:length], DAMAGED)


def test_a_corrupted_page_in_the_middle_is_refused(tmp_path):
    whole = ours(tmp_path / "state.db")
    for page in range(1, len(whole) // PAGE, 7):
        at = page * PAGE
        refused(tmp_path / "state.db", whole[:at] + b"\xff" * 512 + whole[at + 512 :], DAMAGED)


def test_a_file_of_a_format_that_is_none_is_refused(tmp_path):
    whole = ours(tmp_path / "state.db")
    refused(tmp_path / "state.db", whole[:47] + b"\xff" + whole[48:], DAMAGED)


@pytest.mark.parametrize(
    ("statement", "how"),
    [
        ("DROP TABLE deliveries", "without deliveries"),
        ("DELETE FROM meta WHERE name = 'store_id'", "without store_id"),
    ],
)
def test_a_file_that_lacks_a_part_is_refused(tmp_path, statement, how):
    path = tmp_path / "state.db"
    ours(path)
    refused(path, foreign(path, "PRAGMA journal_mode = DELETE", statement), how)


@pytest.mark.parametrize(
    ("damage", "how"),
    [
        ("UPDATE fine_tunes SET name = CAST(x'fffe' AS TEXT)", "a text is not"),
        ("UPDATE events SET content = '{\"xfine_tune\": 1}'", "an event is not"),
        ("UPDATE events SET content = 'torn'", "an event is not"),
    ],
)
def test_what_is_not_as_it_was_written_is_damage_and_is_not_quoted(tmp_path, damage, how):
    """Such a row was taken for a bug and ended the process, at each start again."""
    path = tmp_path / "state.db"

    async def run(statement: str) -> None:
        async with Database(path) as database:
            if not statement:
                await owe_failures(database, 1)
                return
            await database.run(alter, database, statement)
            with pytest.raises(StoreRefusedError, match=DAMAGED) as told:
                await read_all(database)
        assert how in str(told.value)
        assert "torn" not in str(told.value)

    async def read_all(database: Database) -> None:
        await Accounts(database).load(KEY)
        await Outbox(database, "slack").unsent()

    def alter(database: Database, statement: str) -> None:
        with database.write() as connection:
            connection.exec_driver_sql(statement)

    asyncio.run(run(""))
    asyncio.run(run(damage))


@pytest.mark.parametrize(
    "tables",
    [
        ["CREATE TABLE notes (text TEXT)", "INSERT INTO notes VALUES ('mine')"],
        ["CREATE TABLE meta (key TEXT, content TEXT)"],
        [
            "CREATE TABLE meta (name TEXT, value TEXT)",
            "INSERT INTO meta VALUES ('schema_version', '1')",
        ],
        ["CREATE TABLE meta (name TEXT, value TEXT)", "CREATE TABLE fine_tunes (id TEXT)"],
    ],
    ids=["no meta", "another meta", "a version by chance", "no version"],
)
def test_another_programs_database_is_refused(tmp_path, tables):
    path = tmp_path / "state.db"
    refused(path, foreign(path, *tables), FOREIGN)


def test_an_empty_file_is_a_fresh_start(tmp_path):
    path = tmp_path / "state.db"
    path.touch()
    asyncio.run(use(path))


def test_damage_found_while_running_fails_that_commit_with_what_to_do(tmp_path):
    path = tmp_path / "state.db"
    ours(path)

    def forget_pages(database: Database) -> None:
        with database.read() as connection:
            connection.exec_driver_sql("PRAGMA shrink_memory")

    async def run() -> None:
        async with Database(path) as database:
            with path.open("r+b") as file:
                file.seek(PAGE)
                file.write(b"\xff" * (path.stat().st_size - PAGE))
            await database.run(forget_pages, database)
            with pytest.raises(StoreRefusedError, match=DAMAGED):
                await Accounts(database).load(KEY)

    asyncio.run(run())


def test_an_error_never_quotes_what_people_wrote(tmp_path):
    def forbid(database: Database) -> None:
        with database.write() as connection:
            connection.exec_driver_sql(
                "CREATE TRIGGER no BEFORE INSERT ON events "
                "BEGIN SELECT RAISE(ABORT, 'not today'); END"
            )

    async def run() -> str:
        secret = "the secret wish of a customer"
        async with Database(tmp_path / "state.db") as database:
            state = await committed(database, None, reading(fine_tune("a", name=secret)))
            await database.run(forbid, database)
            failed = reading(fine_tune("a", "failed", name=secret), at=NOW + 60)
            with pytest.raises(StoreError, match="not today") as told:
                await committed(database, state, failed)
        texts: list[str] = []
        error: BaseException | None = told.value
        while error is not None:
            texts += [str(error), repr(error)]
            error = error.__cause__
        assert not any(secret in each for each in texts)
        return texts[0]

    assert "state.db" in asyncio.run(run())
