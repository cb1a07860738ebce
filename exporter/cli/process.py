"""How the process ends: by a signal, by its work, or by a bug."""

import asyncio
import ctypes
import gc
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

import structlog

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


@contextmanager
def kept_from_make(environ: Mapping[str, str]) -> Iterator[None]:
    """Have Ctrl-C reach this process alone where make started it on a terminal.

    A terminal sends SIGINT to the whole group in its foreground, and make, once its command has
    ended well, then ends itself by it with 130. Not so when make is in the background, or without
    a terminal: nobody types Ctrl-C there.
    """
    terminal = _foreground() if "MAKELEVEL" in environ else None
    if terminal is None:
        yield
        return
    group = os.getpgrp()
    # Ctrl-Z would stop this process, and not make, for which the shell waits.
    for number in (signal.SIGTSTP, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    try:
        os.setpgid(0, 0)
        os.tcsetpgrp(terminal, os.getpgrp())
        yield
    finally:
        with suppress(OSError):  # the terminal, or make, may be gone
            os.tcsetpgrp(terminal, group)
        os.close(terminal)


def _foreground() -> int | None:
    """Open the terminal in whose foreground this process is; None if there is none."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    with suppress(OSError):
        if os.tcgetpgrp(terminal) == os.getpgrp():
            return terminal
    os.close(terminal)
    return None


_ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_LAST_SECONDS: Final = 9.5
"""After a signal nothing may go on for longer; what must be kept is committed."""

_LOOKUPS: Final = 256
"""Names looked up at once. A lookup that hangs keeps its thread for minutes, and with asyncio's own
six on a small machine a few dead receivers would keep the API and the others waiting."""

_ONE_SIGNAL_SECONDS: Final = 0.5
"""Two signals within this time are one: `timeout` and others send theirs to a process and again to
its group."""

_KILLED: Final = 128
"""What a shell adds to the number of the signal that ended a process."""

log = structlog.get_logger()


def run_until_signal(
    work: Callable[[asyncio.Event], Awaitable[int]], hangup: asyncio.Event | None = None
) -> NoReturn:
    """Run ``work`` in an event loop and end the process with the status it returns.

    SIGTERM and SIGINT set the event that it is given; another one, later, ends the process at once.
    SIGHUP sets ``hangup``, or without it is one of them. An exception that leaves ``work`` is a
    bug: it is logged with its traceback, the status is 1.
    """
    with asyncio.Runner() as runner:
        try:
            status = runner.run(_signalled(work, hangup))
        except BaseException:  # the last stop before the end of the process
            log.critical("a bug ends the process, please report it", exc_info=True)
            status = 1
        # Here, not behind the runner: it would wait for threads that cannot be cancelled, and a
        # name resolution may hang for minutes. What must be kept is committed.
        _end(status)


def end_at_once_on_signal(hangup: asyncio.Event | None = None) -> None:
    """Have a signal end the process with 0 from now on: nothing has begun that it could cut off.

    SIGHUP sets ``hangup`` instead, if there is one.
    """
    for number in _ending(hangup):
        signal.signal(number, lambda *_: os._exit(0))
    if hangup is not None:
        signal.signal(signal.SIGHUP, lambda *_: hangup.set())


def _ending(hangup: asyncio.Event | None) -> list[signal.Signals]:
    """Return the signals that end the process, but those that it was started to ignore.

    `nohup` has it ignore one; where that asks for something, the wish counts.
    """
    return [
        number
        for number in _ENDING
        if signal.getsignal(number) is not signal.SIG_IGN
        and (hangup is None or number != signal.SIGHUP)
    ]


def _end(status: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        # None when the descriptor was closed before the start, broken when its reader is gone.
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()
    os._exit(status)


async def _signalled(
    work: Callable[[asyncio.Event], Awaitable[int]], hangup: asyncio.Event | None
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="lookup"))

    first: float | None = None

    def on_signal(number: int) -> None:
        nonlocal first
        if first is None:
            first = loop.time()
            stop.set()
            loop.call_later(_LAST_SECONDS, _end, 0)
        elif loop.time() - first > _ONE_SIGNAL_SECONDS:
            os._exit(_KILLED + number)

    for number in _ending(hangup):
        loop.add_signal_handler(number, on_signal, number)
    if hangup is not None:
        loop.add_signal_handler(signal.SIGHUP, hangup.set)
    return await work(stop)
