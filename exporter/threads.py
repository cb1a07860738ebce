"""Threads of a process with a limit of tasks: started early, or refused as a failed lookup.

Python raises RuntimeError in whatever asks first for a thread that the system refuses. Therefore
the threads that are always needed run from the start, and only name lookups start others.
"""

import asyncio
import errno
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, Thread
from typing import Any, Final, NamedTuple

MAX_LOOKUPS: Final = 64
"""Name lookups under way at a time. A lookup that gets no answer occupies its thread for minutes,
and cannot be cancelled."""

_SHARED_SECONDS: Final = 10.0
"""Lookups of the same name share a thread for this long; then another one may get an answer."""


def start_executor(name: str, threads: int = 1) -> ThreadPoolExecutor:
    """Return an executor whose threads are running already.

    Raises OSError if the system refuses another thread.
    """
    executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
    started = Barrier(threads)  # none is idle and takes the work that the next one is started for
    try:
        for _ in range(threads):
            executor.submit(started.wait)
    except RuntimeError:
        text = "no thread can be started; raise the limit of tasks (ulimit -u, TasksMax, pids.max)"
        raise OSError(errno.EAGAIN, text) from None
    return executor


class _Lookup(NamedTuple):
    started: float
    result: asyncio.Future[Any]


class BoundedLookupLoop(asyncio.SelectorEventLoop):
    """Event loop whose name lookups have threads of their own, at most `MAX_LOOKUPS`.

    In the default executor, lookups without an answer would delay all other work of threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lookups: dict[tuple[Any, ...], _Lookup] = {}
        self._threads = 0

    async def getaddrinfo(  # noqa: PLR0913 - asyncio's signature
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 - asyncio's name
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """Return the addresses of a host; see socket.getaddrinfo.

        Raises socket.gaierror, also when `MAX_LOOKUPS` are under way or no thread can be started.
        """
        arguments = (host, port, family, type, proto, flags)
        lookup = self._lookups.get(arguments)
        if lookup is None or self.time() - lookup.started > _SHARED_SECONDS:
            lookup = self._lookups[arguments] = self._start_lookup(arguments)
        # Shielded: one request that gives up must not cancel the lookup of the others.
        return await asyncio.shield(lookup.result)

    def _start_lookup(self, arguments: tuple[Any, ...]) -> _Lookup:
        if self._threads >= MAX_LOOKUPS:
            text = f"{MAX_LOOKUPS} other lookups wait for an answer"
            raise socket.gaierror(socket.EAI_AGAIN, text)
        lookup = _Lookup(self.time(), self.create_future())
        # asyncio logs an error that was never read, here that of a lookup which all gave up.
        lookup.result.add_done_callback(asyncio.Future.exception)

        def look_up() -> None:
            addresses, error = None, None
            try:
                addresses = socket.getaddrinfo(*arguments)
            except Exception as raised:  # noqa: BLE001 - raised where the lookup is awaited
                error = raised
            with suppress(RuntimeError):  # the loop is closed
                self.call_soon_threadsafe(self._end_lookup, arguments, lookup, addresses, error)

        try:
            # A daemon: the end of the process must not wait for it.
            Thread(target=look_up, name="lookup", daemon=True).start()
        except RuntimeError:
            text = "no thread can be started for the lookup; raise the limit of tasks"
            raise socket.gaierror(socket.EAI_AGAIN, text) from None
        self._threads += 1
        return lookup

    def _end_lookup(
        self, arguments: tuple[Any, ...], lookup: _Lookup, addresses: Any, error: Exception | None
    ) -> None:
        self._threads -= 1
        if self._lookups.get(arguments) is lookup:
            del self._lookups[arguments]
        if error is None:
            lookup.result.set_result(addresses)
        else:
            lookup.result.set_exception(error)
