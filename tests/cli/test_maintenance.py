"""`state backup` and `state check`: output, refusals and exit statuses."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.store import integrity, migrations
from exporter.store.database import Database
from tests.cli.stored_state import StoredState
from tests.process.agent_process import environment
from tests.store.raw_sqlite import query_file
from tests.store.sample_outbox import queue

EVENTS = 40


@pytest.fixture
def state(tmp_path) -> StoredState:
    """A state with pending deliveries, and a configuration whose secrets do not exist."""
    stored = StoredState(tmp_path)

    async def fill(database: Database) -> None:
        await queue(database, range(1, EVENTS + 1), "ops")

    stored.run(fill)
    missing = '{"name": "main", "api_key_file": "/nonexistent"}'
    text = stored.config.read_text().replace("{", f'{{"accounts": [{missing}], ', 1)
    stored.config.write_text(text)
    return stored


def failed(state: StoredState, status: int, *arguments: str) -> str:
    done = state.invoke(*arguments)
    assert done.exit_code == status, done.output
    return done.stderr


def checked(path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Check a file, in a process of its own: damage may crash SQLite."""
    command = [sys.executable, "-m", "exporter", "state", "check", f"--storage.path={path}"]
    env = environment(path.parent)
    return subprocess.run(
        [*command, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_backup_has_everything_and_is_for_its_owner_only(state, tmp_path):
    target = tmp_path / "backup.db"
    output = state.output("state", "backup", str(target))
    assert output == f"{state.path} copied to {target}: {target.stat().st_size:,} bytes\n"
    assert target.stat().st_mode & 0o777 == 0o600
    for table in ("events", "deliveries", "meta"):
        query = f"SELECT * FROM {table} ORDER BY 1"
        assert query_file(target, query) == query_file(state.path, query)
    # Nothing is left beside it, or beside the state.
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "backup.db",
        "config.yaml",
        "state.db",
        "state.db.lock",
    ]


def test_check_says_what_is_in_a_sound_state(state):
    assert state.output("state", "check") == (
        f"{state.path} is sound: schema version 0001; accounts: 0, fine-tunes: 0, events: 40, "
        "pending deliveries: 40; last complete poll: never\n"
    )


@pytest.mark.parametrize("existing", ["backup.db", "backup.db.part"])
def test_an_existing_file_is_never_overwritten(state, tmp_path, existing):
    (tmp_path / existing).write_text("precious")
    error = failed(state, 2, "state", "backup", str(tmp_path / "backup.db"))
    assert error.startswith(f"cartesia-exporter: {tmp_path / existing} exists: ")
    assert ("delete it" in error) == existing.endswith(".part")
    assert (tmp_path / existing).read_text() == "precious"


def test_a_dangling_link_is_not_followed(state, tmp_path):
    link = tmp_path / "backup.db"
    link.symlink_to(tmp_path / "elsewhere")
    assert "exists" in failed(state, 2, "state", "backup", str(link))
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_missing_is_an_error_and_not_created(state, tmp_path):
    error = failed(state, 1, "state", "backup", str(tmp_path / "missing" / "backup.db"))
    assert error.endswith("backup.db: No such file or directory\n")
    assert not (tmp_path / "missing").exists()


def test_nothing_is_left_of_a_copy_for_which_there_is_no_room(state, tmp_path):
    """SQLite cannot write more than so many bytes to a file; the state itself is larger."""
    limit = state.path.stat().st_size // 2
    assert limit > 32 * 1024, "SQLite's shared memory must have room"
    command = [sys.executable, "-m", "exporter", "state", "backup", "backup.db"]
    done = subprocess.run(
        [*command, f"--storage.path={state.path}"],
        cwd=tmp_path,
        env=environment(tmp_path),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"the state file {state.path} cannot be copied to {tmp_path}/backup.db" in done.stderr
    assert not list(tmp_path.glob("backup.db*"))


def test_an_older_schema_can_be_copied_and_is_sound(state, tmp_path, monkeypatch):
    """A backup before an upgrade may be made by the newer program."""
    for module in (migrations, integrity):
        monkeypatch.setattr(module, "REVISIONS", ("0001", "0002"))
    target = tmp_path / "backup.db"
    state.output("state", "backup", str(target))
    assert "schema version 0001" in state.output("state", "check")


def damage_pages(path: Path) -> None:
    with path.open("r+b") as file:
        for page in range(20, path.stat().st_size // 4096 - 1):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)


def remove_index_entries(path: Path) -> None:
    """Let an index lack rows of its table: queries would not find them."""
    query_file(path, "CREATE TABLE spare (name TEXT, value TEXT)")
    query_file(path, "CREATE INDEX spare_index ON spare (value)")
    query_file(path, "INSERT INTO spare VALUES ('a', 'b'), ('c', 'd')")
    [(page,)] = query_file(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'spare_index'")
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096 + 3)
        file.write(b"\0\0")


STATEMENTS = {
    "refers to a row of events that is missing": "DELETE FROM events WHERE id = 'evt_3'",
    "table events has no index events_of_type": "DROP INDEX events_of_type",
    "table events has no column search": "ALTER TABLE events DROP COLUMN search",
    "without attempts": "DROP TABLE attempts",
    "the event evt_7 is not what was written": (
        "UPDATE events SET content = '{' WHERE id = 'evt_7'"
    ),
    "a text is not what was written": (
        "UPDATE events SET name = CAST(x'ff' AS TEXT) WHERE id = 'evt_7'"
    ),
    "schema version 9999": "UPDATE alembic_version SET version_num = '9999'",
    "is a database, but not one of cartesia-exporter": "DROP TABLE alembic_version",
}


@pytest.mark.parametrize("problem", STATEMENTS)
def test_check_names_what_is_wrong_in_tables_and_rows(state, problem):
    query_file(state.path, STATEMENTS[problem])
    before = state.path.read_bytes()
    done = state.invoke("state", "check")
    assert done.exit_code == 1
    assert problem in done.output
    assert state.path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "problem"),
    [(damage_pages, "damaged"), (remove_index_entries, "wrong # of entries in index spare_index")],
)
def test_check_names_damage_of_pages_and_indexes(state, change, problem):
    change(state.path)
    done = checked(state.path)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert problem in done.stdout + done.stderr
    assert "restore a backup" in done.stderr


@pytest.mark.parametrize("content", [None, b"", b"no database, but a text\n" * 500])
def test_check_refuses_what_is_no_state(state, content):
    state.path.unlink()
    if content is not None:
        state.path.write_bytes(content)
    for command in ("check", "backup"):
        done = state.invoke("state", command, *(["copy"] if command == "backup" else []))
        assert done.exit_code == (1 if command == "check" else 2)
        expected = {None: "there is no state file", b"": "is empty"}
        assert expected.get(content, "is damaged") in done.stderr
    assert (state.path.read_bytes() if state.path.exists() else None) == content


def test_a_copy_to_postgresql_and_back_is_complete(state, tmp_path, postgres):
    url = postgres.url(postgres.new_database())
    output = state.output("state", "copy", f"--to={url}")
    assert output.startswith(f"{state.path} copied to test_")
    assert f"events: {EVENTS}" in output
    content = json.loads(state.config.read_text())
    content["storage"] = {"url": url}
    state.config.write_text(json.dumps(content))
    assert len(state.rows("deliveries")) == EVENTS
    assert f"events: {EVENTS}" in state.output("state", "check")
    assert "pg_dump" in failed(state, 2, "state", "backup", str(tmp_path / "backup"))
    back = tmp_path / "back.db"
    state.output("state", "copy", f"--to={back}")
    query = "SELECT * FROM events ORDER BY number"
    assert query_file(back, query) == query_file(state.path, query)
    assert "is not empty" in failed(state, 2, "state", "copy", f"--to={url}")
    assert "exists: give another name" in failed(state, 2, "state", "copy", f"--to={back}")


def test_a_password_for_a_copy_is_read_from_a_file(state, tmp_path, postgres):
    postgres.set_password("hunter2")
    database = postgres.new_database()
    for url in (
        f"postgresql://agent:hunter2@127.0.0.1:{postgres.port}/{database}",
        postgres.url(database, user="agent", password="hunter2"),
    ):
        text = failed(state, 2, "state", "copy", f"--to={url}")
        assert "--password-file" in text
        assert "hunter2" not in text
    password = tmp_path / "password"
    password.write_text("hunter2\n")
    url = postgres.url(database, user="agent")
    assert "no password supplied" in failed(state, 1, "state", "copy", f"--to={url}")
    state.output("state", "copy", f"--to={url}", f"--password-file={password}")
    assert "for a URL" in failed(state, 2, "state", "copy", "--to=x", "--password-file=y")
