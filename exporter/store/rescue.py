"""Rescue copies: the content of a state file that was deleted or replaced while it was in use."""

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from exporter.core.text import os_error_text, timestamp
from exporter.store import files
from exporter.store.errors import StoreError, StoreRefusedError
from exporter.store.files import SQLITE_FILES, UNFINISHED, beside, create_folder, sync_folder

_MARK: Final = ".rescue-"


def write_copy(path: Path, copy_to: Callable[[Path], None], now: float) -> Path:
    """Write a rescue copy beside ``path`` by ``copy_to``, for its owner only; return its path.

    Its name has the time ``now`` (Unix seconds). Creates the folder if it is gone. An existing file
    is never overwritten, and an unfinished copy is never taken for a copy. Raises StoreError.
    """
    copy = beside(path, _MARK + re.sub("[-:]", "", timestamp(now)))
    create_folder(path)
    try:
        files.write_copy(copy, copy_to)
    except OSError as error:
        raise StoreError(f"cannot write {copy}: {os_error_text(error)}") from error
    return copy


def adopt_copy(path: Path) -> Path | None:
    """Make a rescue copy the state file if there is none or an empty one; return its old path.

    Returns None without a copy. Raises StoreRefusedError if a person has to choose, StoreError.
    """
    try:
        copies = _find_copies(path)
        if not copies:
            return None
        if path.exists() and path.stat().st_size:
            raise StoreRefusedError(
                f"there are both the state file {path} and the rescue copy {copies[-1]}, which an "
                "agent made when its state file was deleted, moved or replaced: move one of them "
                "away. The copy has what that agent knew last; it becomes the state when there is "
                "no state file"
            )
        if len(copies) > 1:
            names = ", ".join(each.name for each in copies)
            raise StoreRefusedError(
                f"there is no state file {path}, but several rescue copies ({names}): move all but "
                "one away, usually all but the last one"
            )
        # They belong to the file that is gone: SQLite would write their content into the copy.
        for suffix in SQLITE_FILES:
            beside(path, suffix).unlink(missing_ok=True)
        copies[0].rename(path)
        sync_folder(path)
    except OSError as error:
        raise StoreError(
            f"cannot use the rescue copy of the state file {path}: {os_error_text(error)}"
        ) from error
    return copies[0]


def _find_copies(path: Path) -> list[Path]:
    """Return the finished rescue copies beside ``path``, oldest first. Raises OSError."""
    with os.scandir(path.parent) as entries:
        return sorted(
            path.with_name(each.name)
            for each in entries
            if each.name.startswith(path.name + _MARK)
            and not each.name.endswith(UNFINISHED)
            and stat.S_ISREG(each.stat(follow_symlinks=False).st_mode)
        )
