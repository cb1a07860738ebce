"""The state file is its owner's alone, and one process's at a time."""

import asyncio
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.store.database import Database
from exporter.store.errors import StoreError, StoreRefusedError
from tests.store.sample_polls import committed, fine_tune, reading

pytestmark = pytest.mark.usefixtures("unmeasured")


async def use(path) -> None:
    async with Database(path) as database:
        await committed(database, None, reading(fine_tune("a")))


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_folders_and_files_are_their_owners_alone_whatever_the_umask(tmp_path):
    path = tmp_path / "new" / "deeper" / "state.db"
    before = os.umask(0)
    try:
        asyncio.run(use(path))
    finally:
        os.umask(before)
    assert mode(tmp_path / "new") == mode(path.parent) == 0o700
    assert mode(path) == mode(path.with_name("state.db.lock")) == 0o600


def test_what_sqlite_keeps_beside_the_file_is_as_private(tmp_path):
    path = tmp_path / "state.db"

    async def modes() -> set[int]:
        async with Database(path) as database:
            await committed(database, None, reading(fine_tune("a")))
            assert {p.suffix for p in tmp_path.iterdir()} == {
                ".db",
                ".db-wal",
                ".db-shm",
                ".lock",
            }
            return {mode(each) for each in tmp_path.iterdir()}

    asyncio.run(use(path))
    path.chmod(0o644)
    assert asyncio.run(modes()) == {0o600}


def test_a_file_with_looser_permissions_is_tightened_and_its_folder_left_alone(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o755)
    path = folder / "state.db"
    path.touch()
    path.chmod(0o666)
    asyncio.run(use(path))
    assert mode(path) == 0o600
    assert mode(folder) == 0o755


@contextlib.contextmanager
def holder(path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the state file."""
    command = [sys.executable, "-m", "tests.store.lock_holder", str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_by_any_path_and_told_who_holds_the_file(tmp_path, monkeypatch):
    path = tmp_path / "state.db"
    link = tmp_path / "link.db"
    link.symlink_to(path)
    (tmp_path / "folder").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    with holder(path) as process:
        holds = f"in use by process {process.pid} on {socket.gethostname()}"
        for way in (path, link, Path("state.db"), Path("folder/state.db"), Path("folder/link.db")):
            with pytest.raises(StoreRefusedError, match=holds):
                asyncio.run(use(way))


def test_a_holder_that_was_killed_leaves_the_file_free(tmp_path):
    path = tmp_path / "state.db"
    with holder(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        asyncio.run(use(path))


def test_in_one_process_too_the_file_is_refused_until_it_is_closed(tmp_path):
    path = tmp_path / "state.db"

    async def run() -> None:
        async with Database(path):
            with pytest.raises(StoreRefusedError, match=f"process {os.getpid()}"):
                await use(path)
            with pytest.raises(StoreRefusedError):  # the refusal has not freed it
                await use(path)
        await use(path)

    asyncio.run(run())


@pytest.mark.parametrize(
    "name",
    ["folder", "file/state.db", "file/deeper/state.db", "loop"],
    ids=["a folder", "a file as folder", "a file further up", "links in a circle"],
)
def test_a_path_that_cannot_be_a_file_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StoreRefusedError, match=f"cannot open the state file .*{name}"):
        asyncio.run(use(tmp_path / name))


def test_a_disk_that_is_full_at_the_start_may_have_room_later(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("exporter.store.files.os.open", full)
    with pytest.raises(StoreError, match=r"cannot open the state file .*No space left") as told:
        asyncio.run(use(tmp_path / "state.db"))
    assert not isinstance(told.value, StoreRefusedError)


def test_a_lock_that_cannot_be_had_is_not_called_another_process(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("exporter.store.files.fcntl.flock", refuse)
    with pytest.raises(StoreError, match=r"the lock .*Operation not supported") as told:
        asyncio.run(use(tmp_path / "state.db"))
    assert not isinstance(told.value, StoreRefusedError)


def test_a_disk_too_full_to_name_the_holder_does_not_keep_the_agent_from_starting(
    tmp_path, monkeypatch
):
    """What is stored can still be sent: a start that fails would be tried again for ever."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("exporter.store.files.os.write", full)
        asyncio.run(use(tmp_path / "state.db"))


def test_a_file_that_cannot_be_protected_is_not_used(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr("exporter.store.files.Path.chmod", refuse)
        with pytest.raises(StoreError, match=r"cannot protect .*Operation not permitted"):
            asyncio.run(use(tmp_path / "state.db"))
    asyncio.run(use(tmp_path / "state.db"))
