"""What is not a regular file, and a file of somebody else, is refused before anything changes."""

import os
import socket
import sqlite3
import stat
from pathlib import Path

import pytest

from exporter.store.database import Database
from exporter.store.errors import StoreRefusedError
from tests.store.sample_polls import commit_snapshot, fine_tune, snapshot_of


@pytest.fixture
def location(tmp_path):
    """A state file: PostgreSQL has nothing of what is tested here."""
    return tmp_path / "state.db"


KINDS = {
    "directory": "a directory",
    "named pipe": "a named pipe",
    "socket": "a socket",
    "device": "a device",
}


def create_special(path: Path, kind: str) -> None:
    match kind:
        case "directory":
            path.mkdir()
        case "named pipe":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
        case "device":
            if os.geteuid() != 0:
                pytest.skip("only root can make a device node")
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    path.chmod(0o640)


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return mode, modification time and content of all files, without following links."""
    return {
        each.name: (
            each.lstat().st_mode,
            0 if each.is_dir() else each.lstat().st_mtime_ns,
            each.read_bytes() if stat.S_ISREG(each.lstat().st_mode) else b"",
        )
        for each in folder.iterdir()
    }


async def refusal(path: Path, *, exclusive: bool = True) -> str:
    """Return the error of an open that is refused and changes nothing in its folder."""
    before = snapshot(path.parent)
    with pytest.raises(StoreRefusedError) as caught:
        async with Database(path, exclusive=exclusive):
            pass
    assert snapshot(path.parent) == before
    return str(caught.value)


@pytest.mark.parametrize("exclusive", [True, False], ids=["agent", "command"])
@pytest.mark.parametrize("linked", [False, True], ids=["itself", "by a link"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_state_that_is_not_a_regular_file_is_refused(tmp_path, kind, linked, exclusive):
    special = path = tmp_path / "special"
    create_special(special, kind)
    if linked:
        path = tmp_path / "state.db"
        path.symlink_to(special)
    error = await refusal(path, exclusive=exclusive)
    assert f"cannot open the state file {special}: it is {KINDS[kind]}" in error
    assert "give another storage.path" in error


@pytest.mark.parametrize("with_state", [True, False])
@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal", ".lock"])
@pytest.mark.parametrize("kind", [*KINDS, "link to a file", "broken link"])
async def test_a_file_beside_it_that_is_not_regular_is_refused(tmp_path, kind, suffix, with_state):
    path = tmp_path / "state.db"
    if with_state:
        async with Database(path):
            pass
        path.with_name("state.db.lock").unlink()
    special = path.with_name(f"state.db{suffix}")
    if kind in KINDS:
        create_special(special, kind)
    else:
        target = tmp_path / "target"
        special.symlink_to(target)
        if kind == "link to a file":
            target.write_bytes(b"precious")
            target.chmod(0o644)
    error = await refusal(path)
    assert f"state.db{suffix} beside it is {KINDS.get(kind, 'a symbolic link')}" in error
    assert "move that away" in error


async def test_a_lock_file_with_other_content_is_refused_and_not_quoted(tmp_path):
    path = tmp_path / "state.db"
    precious = tmp_path / "precious"
    precious.write_bytes(b"secret content\n")
    precious.chmod(0o644)
    path.with_name("state.db.lock").hardlink_to(precious)
    error = await refusal(path)
    assert "state.db.lock is not a lock file of cartesia-exporter: move it away" in error
    assert "secret" not in error


@pytest.mark.parametrize("content", [b"", b"\0" * 30, b"process 1 on a\n", b"process 1 on a, b\n"])
async def test_a_lock_file_of_a_killed_agent_is_used(tmp_path, content):
    """A power cut may leave zeros in it."""
    path = tmp_path / "state.db"
    path.with_name("state.db.lock").write_bytes(content)
    async with Database(path):
        text = path.with_name("state.db.lock").read_text(encoding="utf-8")
        assert text == f"process {os.getpid()} on {socket.gethostname()}\n"


@pytest.mark.parametrize(
    "statements",
    [
        ["PRAGMA journal_mode = WAL"],
        ["CREATE TABLE gone (x)", "DROP TABLE gone"],
        ["PRAGMA user_version = 7"],
    ],
    ids=["a copy without its log", "no tables any more", "no tables yet"],
)
async def test_a_file_with_pages_but_without_tables_is_refused(tmp_path, statements):
    """It was taken for a new state, which began with a baseline of what had failed before."""
    path = tmp_path / "state.db"
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()
    content = path.read_bytes()
    assert len(content) >= 4096
    with pytest.raises(StoreRefusedError, match=r"has no tables: .*copy .*without state.db-wal"):
        async with Database(path):
            pass
    assert path.read_bytes() == content


async def test_the_file_itself_always_has_the_tables_and_the_baseline(tmp_path):
    """A copy without its write-ahead log is at most a checkpoint behind."""
    path, copy = tmp_path / "state.db", tmp_path / "copy.db"
    async with Database(path) as database:
        copy.write_bytes(path.read_bytes())
        async with Database(copy) as new:
            assert new.store_id == database.store_id
        await commit_snapshot(database, None, snapshot_of(fine_tune("a")))
        copy.write_bytes(path.read_bytes())
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT id FROM fine_tunes").fetchall() == [("a",)]
    connection.close()
