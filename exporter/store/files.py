"""The state file's folder, permissions and lock."""

import errno
import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from exporter.core.text import os_error_text
from exporter.store.errors import StoreError, StoreRefusedError


def prepare(path: Path) -> None:
    """Make the state file and its folder where they are missing, for their owner alone.

    What exists is left as it is. Raises StoreError, StoreRefusedError where the path is wrong.
    """
    try:
        _make_folder(path.parent)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise _cannot_open(path, error) from error


def find(path: Path) -> None:
    """Look whether the state file is there and may be written; it is not touched.

    Raises StoreError, StoreRefusedError.
    """
    try:
        path.stat()
    except FileNotFoundError:
        raise StoreRefusedError(
            f"there is no state file {path}: `cartesia-exporter run` makes it when it starts; "
            "is this the agent's storage.path, and its working directory?"
        ) from None
    except OSError as error:
        raise _cannot_open(path, error) from error
    # Not opened to find out: to close it again would take SQLite's locks from this process.
    if not (path.is_file() and os.access(path, os.R_OK | os.W_OK, effective_ids=True)):
        raise StoreRefusedError(
            f"cannot write the state file {path}: this takes the agent's user, or root, and a file "
            "system that is not read-only"
        )


def _cannot_open(path: Path, error: OSError) -> StoreError:
    kind = StoreError if error.errno in _MAY_PASS else StoreRefusedError
    return kind(f"cannot open the state file {path}: {os_error_text(error)}")


_MAY_PASS: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)


def restrict(path: Path) -> None:
    """Take the state file from everybody but its owner, and what SQLite keeps beside it.

    Raises StoreError.
    """
    try:
        for part in (path, *(path.with_name(path.name + suffix) for suffix in _BESIDE)):
            if part.exists():
                part.chmod(0o600)
    except OSError as error:
        raise StoreError(f"cannot protect the state file {path}: {os_error_text(error)}") from error


_BESIDE: Final = ("-wal", "-shm", ".lock")


def _make_folder(folder: Path) -> None:
    for missing in reversed([p for p in (folder, *folder.parents) if not p.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)


class Lock:
    """The right to run on a state file; held by one process, given back by its end however sudden.

    It is a file of its own beside the state: locks on the database itself are SQLite's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._state = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock; raise StoreRefusedError, naming the holder, when another has it.

        Raises StoreError when there can be no lock at all.
        """
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._take(self._descriptor)
        except OSError as error:
            self.release()
            text = os_error_text(error)
            raise StoreError(f"cannot take the lock {self._path}: {text}") from error

    def _take(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
            self.release()
            raise StoreRefusedError(
                f"the state file {self._state} is in use by {holder or 'another process'}: "
                "stop that one, or give this one another storage.path"
            ) from None
        # On a full disk it has no name; to refuse the start would lose what can still be sent.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two processes hold it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
