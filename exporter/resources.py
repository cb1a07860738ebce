"""What the process asks of the system and of the interpreter before it sets to work."""

import ctypes
import gc
import resource
import sys
from contextlib import suppress
from typing import Final

_SWITCH_SECONDS: Final = 0.001
"""After how long a thread at work lets another go on. With Python's 5 ms the event loop, which lets
go at each system call, comes to a few of them in the time in which a large page is written."""

_FILES: Final = 65_536
"""Files that may be open at once, where the system allows it."""

_M_MMAP_THRESHOLD: Final = -3  # malloc.h
_LARGE: Final = 256 * 1024
"""From how many bytes on a block is one of its own, which goes back when it is freed."""


def allow_many_files() -> None:
    """Have as many files open as the hard limit allows, as programs written in Go do.

    The usual soft limit of 1024 is for programs that use select(); hundreds of accounts with a few
    connections each are more, and then neither the state nor a page could be opened.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def give_memory_back() -> None:
    """Have what large blocks took go back to the system when they are freed.

    glibc learns from the first large block that is freed to keep the next ones of that size, and
    with 100,000 fine-tunes there are a few in each poll. Elsewhere than on glibc nothing happens.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)


def keep_loop_free() -> None:
    """Keep the work of other threads from holding up the event loop; after what is imported."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    # Modules are for good: to look them all over in search of garbage takes 100 ms, in which no
    # thread goes on.
    gc.freeze()
