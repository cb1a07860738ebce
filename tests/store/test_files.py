"""The state file is private to its owner, and used by one process at a time."""

import contextlib
import errno
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
from tests.store.sample_polls import commit_snapshot, fine_tune, snapshot_of


@pytest.fixture
def location(tmp_path):
    """A state file: PostgreSQL has nothing of what is tested here."""
    return tmp_path / "state.db"


pytestmark = pytest.mark.usefixtures("unmeasured")


async def use(path) -> None:
    async with Database(path) as database:
        await commit_snapshot(database, None, snapshot_of(fine_tune("a")))


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_new_folders_and_files_are_private_with_any_umask(tmp_path):
    path = tmp_path / "new" / "deeper" / "state.db"
    before = os.umask(0)
    try:
        await use(path)
    finally:
        os.umask(before)
    assert mode(tmp_path / "new") == mode(path.parent) == 0o700
    assert mode(path) == mode(path.with_name("state.db.lock")) == 0o600


async def test_the_files_of_sqlite_beside_it_are_private(tmp_path):
    path = tmp_path / "state.db"
    await use(path)
    path.chmod(0o644)
    async with Database(path) as database:
        await commit_snapshot(database, None, snapshot_of(fine_tune("a")))
        names = {"state.db", "state.db-wal", "state.db-shm", "state.db.lock"}
        assert {each.name: mode(each) for each in tmp_path.iterdir()} == dict.fromkeys(names, 0o600)


async def test_permissions_of_a_file_are_restricted_and_those_of_its_folder_kept(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o755)
    path = folder / "state.db"
    path.touch()
    path.chmod(0o666)
    await use(path)
    assert mode(path) == 0o600
    assert mode(folder) == 0o755


@contextlib.contextmanager
def lock_holder(path) -> Iterator[subprocess.Popen[str]]:
    """Run another process that holds the state file."""
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


async def test_a_second_process_is_refused_by_any_path_with_the_holders_name(tmp_path, monkeypatch):
    path = tmp_path / "state.db"
    link = tmp_path / "link.db"
    link.symlink_to(path)
    (tmp_path / "folder").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    with lock_holder(path) as process:
        error = f"in use by process {process.pid} on {socket.gethostname()}"
        for way in (path, link, Path("state.db"), Path("folder/state.db"), Path("folder/link.db")):
            with pytest.raises(StoreRefusedError, match=error):
                await use(way)


async def test_a_killed_holder_releases_the_lock(tmp_path):
    path = tmp_path / "state.db"
    with lock_holder(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        await use(path)


async def test_the_lock_holds_within_one_process_too(tmp_path):
    path = tmp_path / "state.db"
    async with Database(path):
        with pytest.raises(StoreRefusedError, match=f"process {os.getpid()}"):
            await use(path)
        with pytest.raises(StoreRefusedError):  # the refusal has not released it
            await use(path)
    await use(path)


@pytest.mark.parametrize(
    "name",
    ["folder", "file/state.db", "file/deeper/state.db", "loop"],
    ids=["a folder", "a file as folder", "a file further up", "a loop of links"],
)
async def test_a_path_that_cannot_be_a_file_is_refused(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StoreRefusedError, match=f"cannot open the state file .*{name}"):
        await use(tmp_path / name)


async def test_a_full_disk_at_the_start_is_a_temporary_error(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("exporter.store.files.os.open", full)
    with pytest.raises(StoreError, match=r"cannot open the state file .*No space left") as caught:
        await use(tmp_path / "state.db")
    assert not isinstance(caught.value, StoreRefusedError)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
async def test_a_file_system_without_locks_is_refused_with_what_to_do(
    tmp_path, monkeypatch, number
):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("exporter.store.lock.fcntl.flock", refuse)
    with pytest.raises(StoreRefusedError) as caught:
        await use(tmp_path / "state.db")
    error = str(caught.value)
    assert f"state.db.lock has no locks ({os.strerror(number)})" in error
    assert "put storage.path on a local disk" in error
    assert not (tmp_path / "state.db").exists()


async def test_a_lock_that_fails_for_another_reason_is_a_temporary_error(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("exporter.store.lock.fcntl.flock", fail)
    with pytest.raises(StoreError, match=r"the lock .*Input/output error") as caught:
        await use(tmp_path / "state.db")
    assert not isinstance(caught.value, StoreRefusedError)


async def test_a_disk_too_full_for_the_holders_name_does_not_prevent_a_start(tmp_path, monkeypatch):
    """The agent can still send what is stored."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("exporter.store.lock.os.pwrite", full)
        await use(tmp_path / "state.db")


async def test_a_file_that_cannot_be_made_private_is_not_used(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr("exporter.store.files.Path.chmod", refuse)
        with pytest.raises(StoreError, match=r"cannot protect .*Operation not permitted"):
            await use(tmp_path / "state.db")
    await use(tmp_path / "state.db")
