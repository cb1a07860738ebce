"""Lock of a state file, held by one process until it ends."""

import errno
import fcntl
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from exporter.core.text import os_error_text
from exporter.store.errors import StoreError, StoreRefusedError
from exporter.store.files import LOCK, beside, cannot_open, identity

_UNSUPPORTED: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_HOLDER: Final = b"process "
_LONGEST_HOLDER: Final = 400
"""Length of the longest text of a holder: a host name has at most 255 bytes."""


class LockedError(StoreRefusedError):
    """Another process has the lock; the text names it."""


class Lock:
    """Lock of the state file at ``path``.

    It is a file of its own beside the state file, whose own locks belong to SQLite.
    """

    def __init__(self, path: Path) -> None:
        self._path = beside(path, LOCK)
        self._state = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Acquire the lock, also when the file of a lock that is held was deleted or replaced.

        Raises LockedError if another process has it, StoreRefusedError if the file system has no
        locks or the file is not one of this program, which is left as it is; StoreError.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise cannot_open(self._path, error) from error
        try:
            self._lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise StoreError(
                f"cannot take the lock {self._path}: {os_error_text(error)}"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        self.release()
        self._descriptor = descriptor
        # On a full disk the holder's name is missing: an agent that does not start sends nothing.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            holder = f"{_HOLDER.decode()}{os.getpid()} on {socket.gethostname()}\n"
            os.pwrite(descriptor, holder.encode(), 0)

    def is_current(self) -> bool:
        """Return whether the lock that is held is that of the file at its path. Raises OSError."""
        return self._descriptor is not None and _is_at(self._path, self._descriptor)

    def release(self) -> None:
        """Release the lock. The file stays: removing it would let two processes hold the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _lock(self, descriptor: int) -> None:
        """Lock the file. Raises OSError, StoreError."""
        content = os.pread(descriptor, _LONGEST_HOLDER, 0)
        # Zeros: a power cut may leave the length of a file without its content.
        is_ours = content.startswith(_HOLDER) or not content.strip(b"\0")
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not is_ours:
            raise StoreRefusedError(
                f"{self._path} is not a lock file of cartesia-exporter: move it away, or give "
                "another storage.path; it was left as it is"
            )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = content.decode(errors="replace").strip("\0\n")
            raise LockedError(
                f"the state file {self._state} is in use by {holder or 'another process'}: "
                "stop that one, or give this one another storage.path"
            ) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            raise StoreRefusedError(
                f"the file system of {self._path} has no locks ({os_error_text(error)}), without "
                "which two agents could send each alert twice: put storage.path on a local disk, "
                "or mount the file system with support for flock"
            ) from None
        if not _is_at(self._path, descriptor):
            raise StoreError(f"the lock {self._path} was replaced while it was taken; try again")


def _is_at(path: Path, descriptor: int) -> bool:
    opened = os.fstat(descriptor)
    return identity(path) == (opened.st_dev, opened.st_ino)
