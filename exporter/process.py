"""How the process ends: by a signal, by its work, or by a bug."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, NoReturn

import structlog

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
