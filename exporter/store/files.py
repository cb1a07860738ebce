"""Types, permissions and identities of the state file and of the files beside it."""

import errno
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from exporter.core.text import os_error_text
from exporter.store.errors import StoreError, StoreRefusedError

LOCK: Final = ".lock"
WRITE_AHEAD_LOG: Final = "-wal"
SHARED_MEMORY: Final = "-shm"
_JOURNAL: Final = "-journal"
SQLITE_FILES: Final = (WRITE_AHEAD_LOG, SHARED_MEMORY, _JOURNAL)
"""Suffixes of the files that SQLite keeps beside the state file."""

_TEMPORARY_ERRORS: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)
_TYPES: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_CLOSING_SECONDS: Final = 0.2

UNFINISHED: Final = ".part"
"""Suffix of a copy that is being written."""

Identity = tuple[int, int]
"""Device and inode of a file."""


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a file beside the state file."""
    return path.with_name(path.name + suffix)


def check_types(path: Path) -> None:
    """Check that the state file, and each file of its own beside it, is regular or missing.

    Opens nothing: to open a device or a named pipe has effects. ``path`` has no symbolic links.
    Raises StoreError, StoreRefusedError.
    """
    for each in (path, *(beside(path, suffix) for suffix in (*SQLITE_FILES, LOCK))):
        try:
            mode = each.lstat().st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            raise cannot_open(path, error) from error
        if not stat.S_ISREG(mode):
            kind = _TYPES.get(stat.S_IFMT(mode), "a special file")
            if each == path:
                reason = f"it is {kind}, not a regular file: give another storage.path"
            else:
                reason = f"{each.name} beside it is {kind}, not a regular file: move that away"
            raise StoreRefusedError(f"cannot open the state file {path}: {reason}")


def create_folder(path: Path) -> None:
    """Create the folder of the state file if missing, with access for its owner only.

    Raises StoreError; StoreRefusedError for a path that cannot be a file.
    """
    try:
        for missing in reversed([p for p in path.parents if not p.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise cannot_open(path, error) from error


def create(path: Path) -> None:
    """Create the state file if missing, with access for its owner only.

    Does not change a file that exists. Raises StoreError; StoreRefusedError for a file that cannot
    be written.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        os.close(os.open(path, flags, 0o600))
    except OSError as error:
        raise cannot_open(path, error) from error


def check(path: Path) -> None:
    """Check that the state file exists and may be written beside an agent, without opening it.

    Raises StoreError, StoreRefusedError.
    """
    check_types(path)
    if not path.exists():
        raise StoreRefusedError(
            f"there is no state file {path}: the agent creates it at start. "
            "Check storage.path and the working directory"
        )
    # Closing a descriptor of the file would release the locks that SQLite has in this process.
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        raise StoreRefusedError(
            f"cannot write the state file {path}: use the agent's user or root; the file system "
            "must not be read-only"
        )
    if not beside(path, SHARED_MEMORY).exists():
        if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
            raise StoreRefusedError(
                f"cannot open the state file {path}: while no agent runs, SQLite must create "
                f"files beside it; make {path.parent} writable"
            )
    elif _lacks_log(path):
        # SQLite would say "disk I/O error", and create a log that the agent does not know.
        raise StoreRefusedError(
            f"cannot open the state file {path}: {path.name}{WRITE_AHEAD_LOG} was deleted while an "
            "agent uses it; a running agent creates it again within 5 s; try again then. If no "
            f"agent runs, delete {path.name}{SHARED_MEMORY}"
        )


def restrict(path: Path) -> None:
    """Restrict the state file and the files beside it to their owner. Raises StoreError."""
    try:
        for each in (path, *(beside(path, suffix) for suffix in (*SQLITE_FILES, LOCK))):
            if each.exists():
                each.chmod(0o600)
    except OSError as error:
        raise StoreError(f"cannot protect the state file {path}: {os_error_text(error)}") from error


def identity(path: Path) -> Identity | None:
    """Return the identity of the file at ``path``; None if there is none. Raises OSError."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def write_copy(path: Path, copy_to: Callable[[Path], None]) -> None:
    """Create the file ``path`` by ``copy_to``, for its owner only: complete and on the disk.

    ``copy_to`` writes to a file beside it, which is removed if anything fails. An existing file is
    never overwritten. Raises FileExistsError, OSError.
    """
    unfinished = beside(path, UNFINISHED)
    for each in (path, unfinished):
        if os.path.lexists(each):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(each))
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        copy_to(unfinished)
        os.fsync(descriptor)
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        unfinished.rename(path)
        sync_folder(path)
    finally:
        os.close(descriptor)
        unfinished.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Write the names in the folder of ``path`` to the disk. Raises OSError."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # not every file system can
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_open(path: Path, error: OSError) -> StoreError:
    """Return the error for a state file, or for a file beside it, that cannot be opened."""
    error_type = StoreError if error.errno in _TEMPORARY_ERRORS else StoreRefusedError
    return error_type(f"cannot open the state file {path}: {os_error_text(error)}")


def _lacks_log(path: Path) -> bool:
    """Return whether SQLite's shared memory has no write-ahead log, which an agent has not open."""
    for attempt in range(2):
        if beside(path, WRITE_AHEAD_LOG).exists() or not beside(path, SHARED_MEMORY).exists():
            return False
        if attempt == 0:  # an agent that ends deletes one before the other
            time.sleep(_CLOSING_SECONDS)
    return True
