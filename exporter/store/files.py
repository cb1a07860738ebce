"""Folder, permissions and lock of the state file."""

import errno
import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from exporter.core.text import os_error_text
from exporter.store.errors import StoreError, StoreRefusedError

_TEMPORARY_ERRORS: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)
_COMPANION_SUFFIXES: Final = ("-wal", "-shm", ".lock")


def create(path: Path) -> None:
    """Create the state file and its folder if missing, with access for their owner only.

    Does not change a file or folder that exists. Raises StoreError; StoreRefusedError for a path
    that cannot be a file.
    """
    try:
        _make_folder(path.parent)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise _cannot_open(path, error) from error


def check(path: Path) -> None:
    """Check that the state file exists and may be written, without opening it.

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
    # Closing a descriptor of the file would release the locks that SQLite has in this process.
    if not (path.is_file() and os.access(path, os.R_OK | os.W_OK, effective_ids=True)):
        raise StoreRefusedError(
            f"cannot write the state file {path}: this takes the agent's user, or root, and a file "
            "system that is not read-only"
        )


def restrict(path: Path) -> None:
    """Restrict the state file and the files beside it to their owner. Raises StoreError."""
    companions = (path.with_name(path.name + suffix) for suffix in _COMPANION_SUFFIXES)
    try:
        for each in (path, *companions):
            if each.exists():
                each.chmod(0o600)
    except OSError as error:
        raise StoreError(f"cannot protect the state file {path}: {os_error_text(error)}") from error


class Lock:
    """Lock of a state file, held by one process until it ends.

    It is a file of its own beside the state file, whose own locks belong to SQLite.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._state = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Acquire the lock.

        Raises StoreRefusedError, which names the holder, if another process has it, and StoreError
        if locking fails.
        """
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._lock(self._descriptor)
        except OSError as error:
            self.release()
            text = os_error_text(error)
            raise StoreError(f"cannot take the lock {self._path}: {text}") from error

    def release(self) -> None:
        """Release the lock. The file stays: removing it would let two processes hold the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
            self.release()
            raise StoreRefusedError(
                f"the state file {self._state} is in use by {holder or 'another process'}: "
                "stop that one, or give this one another storage.path"
            ) from None
        # On a full disk the holder's name is missing: an agent that does not start sends nothing.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _cannot_open(path: Path, error: OSError) -> StoreError:
    error_type = StoreError if error.errno in _TEMPORARY_ERRORS else StoreRefusedError
    return error_type(f"cannot open the state file {path}: {os_error_text(error)}")


def _make_folder(folder: Path) -> None:
    for missing in reversed([p for p in (folder, *folder.parents) if not p.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
