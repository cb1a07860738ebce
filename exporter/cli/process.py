"""Lifetime and resources of the process: signals, exit status, limits, the terminal under make."""

import asyncio
import ctypes
import gc
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Final, NoReturn

import structlog

from exporter import logs
from exporter.cli import early_signals
from exporter.core.text import os_error_text
from exporter.threads import BoundedLookupLoop, start_executor

_SHUTDOWN_SECONDS: Final = 9.0
"""Limit for a shutdown after the first signal. Everything that must be kept is committed."""

_FLUSH_SECONDS: Final = 0.2
"""Limit for writing the rest of the output when the process ends."""

_SAME_SIGNAL_SECONDS: Final = 0.5
"""Signals within this time count as one: `timeout` signals a process and then its group."""

_KILLED: Final = 128
"""A shell adds this to the number of the signal that ended a process."""

_OPEN_FILES: Final = 65_536

_SWITCH_SECONDS: Final = 0.001
"""Switch interval of the interpreter. With Python's 5 ms the event loop, which releases the
interpreter at each system call, gets only a few turns while another thread renders a large page."""

_M_MMAP_THRESHOLD: Final = -3  # malloc.h
_MMAP_THRESHOLD_BYTES: Final = 256 * 1024

log = structlog.get_logger()


def run_until_signal(
    main: Callable[[asyncio.Event], Awaitable[int]], reload: asyncio.Event | None = None
) -> NoReturn:
    """Run ``main`` in an event loop and end the process with the status that it returns.

    SIGTERM and SIGINT set the event that ``main`` is given; a later one ends the process at once.
    SIGHUP sets ``reload``, or acts as SIGTERM without it. An exception that leaves ``main`` is a
    bug: it is logged with its traceback, and the status is 1.
    """
    with asyncio.Runner(loop_factory=BoundedLookupLoop) as runner:
        try:
            status = runner.run(_run_main(main, reload))
        except BaseException:  # nothing above this handles an exception
            log.critical("a bug ends the process, please report it", exc_info=True)
            status = 1
        # Inside the `with`: Runner.close() would wait for threads that cannot be cancelled, such
        # as a name lookup that hangs for minutes.
        _exit(status)


def exit_on_signal(reload: asyncio.Event | None = None) -> None:
    """Let a signal end the process with 0, as long as there is nothing to shut down.

    SIGHUP sets ``reload`` instead, if given, also one that arrived earlier.
    """
    for number in _stop_signals(reload):
        signal.signal(number, lambda *_: os._exit(0))
    if reload is not None:
        signal.signal(signal.SIGHUP, lambda *_: reload.set())
        if early_signals.hangup_received():
            reload.set()


async def _run_main(
    main: Callable[[asyncio.Event], Awaitable[int]], reload: asyncio.Event | None
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        # One thread: each further one would take the interpreter lock from the event loop.
        loop.set_default_executor(start_executor("worker"))
    except OSError as error:
        log.error("cannot start", error=os_error_text(error))  # noqa: TRY400 - no bug, no traceback
        return 1

    stopped_at: float | None = None

    def on_signal(number: int) -> None:
        nonlocal stopped_at
        if stopped_at is None:
            stopped_at = loop.time()
            stop.set()
            loop.call_later(_SHUTDOWN_SECONDS, _exit, 0)
        elif loop.time() - stopped_at > _SAME_SIGNAL_SECONDS:
            os._exit(_KILLED + number)

    for number in _stop_signals(reload):
        loop.add_signal_handler(number, on_signal, number)
    if reload is not None:
        loop.add_signal_handler(signal.SIGHUP, reload.set)
    return await main(stop)


def _stop_signals(reload: asyncio.Event | None) -> list[signal.Signals]:
    """Return the signals that stop the process, except those ignored at its start (`nohup`)."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    if reload is None:
        numbers.append(signal.SIGHUP)
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def _exit(status: int) -> NoReturn:
    logs.flush()
    # In a thread: standard output may be a pipe that nobody reads.
    flushing = Thread(target=_flush_streams, daemon=True)
    with suppress(RuntimeError):  # no thread can be started
        flushing.start()
        flushing.join(_FLUSH_SECONDS)
    os._exit(status)


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        # None if the descriptor was closed before the start; broken if its reader is gone.
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()


def raise_open_files_limit() -> None:
    """Raise the soft limit of open files to the hard limit, as the Go runtime does.

    The usual soft limit of 1024 is made for select(). Hundreds of accounts with a few connections
    each exceed it, and then neither the state nor a page could be opened.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def return_freed_memory() -> None:
    """Let glibc return large blocks to the system when they are freed; no effect elsewhere.

    By default glibc raises its mmap threshold with the first large block that is freed, and keeps
    later blocks of that size. With 100,000 fine-tunes each poll has a few of them.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)


def keep_loop_responsive() -> None:
    """Shorten the time for which other threads block the event loop."""
    sys.setswitchinterval(_SWITCH_SECONDS)


def enable_collector() -> None:
    """Enable the garbage collector, which the start of an agent disables, after all imports."""
    # A full collection of the imported modules takes 100 ms, in which all threads wait.
    gc.freeze()
    gc.enable()


@contextmanager
def isolated_from_make(environ: Mapping[str, str]) -> Iterator[None]:
    """Let Ctrl-C reach this process alone, if make started it in the foreground of a terminal.

    The terminal sends SIGINT to the whole foreground process group. make would receive it too, and
    exit with 130 although its command succeeded.
    """
    with ExitStack() as stack:
        group = os.getpgrp()
        terminal = None
        with suppress(OSError):  # there is no terminal
            if "MAKELEVEL" in environ:
                file = stack.enter_context(Path("/dev/tty").open("r+b", buffering=0))
                terminal = file.fileno() if os.tcgetpgrp(file.fileno()) == group else None
        if terminal is not None:
            # Ctrl-Z would stop this process but not make, for which the shell waits.
            for number in (signal.SIGTSTP, signal.SIGTTOU):
                signal.signal(number, signal.SIG_IGN)
            os.setpgid(0, 0)
            os.tcsetpgrp(terminal, os.getpgrp())
            stack.enter_context(suppress(OSError))  # the terminal, or make, may be gone
            stack.callback(os.tcsetpgrp, terminal, group)
        yield
