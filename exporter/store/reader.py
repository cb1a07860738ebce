"""Read-only access to the store for the pages, the JSON API and the commands."""

import asyncio
import secrets
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from typing import Concatenate, Final, ParamSpec, Self, TypeVar

import msgspec
from sqlalchemy import Connection

from exporter.store.engines import ReadEngine
from exporter.store.errors import StoreError
from exporter.threads import start_executor

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

MAX_WAITING: Final = 32
"""Reads that may wait for the reader's thread; further ones are refused at once."""

READ_SECONDS: Final = 5.0
"""Time after which a read is interrupted."""

_CLOSE_SECONDS: Final = 1.0


class BusyError(StoreError):
    """Too many reads are waiting, or one took too long: try again later."""


class Reader:
    """Reads from the store in a thread and on a connection of its own.

    A slow read delays neither a commit nor the event loop. At most MAX_WAITING reads wait.
    """

    def __init__(self, engine: ReadEngine) -> None:
        self._engine = engine
        self._thread = start_executor("reader")
        self._waiting = 0
        self._opened = secrets.token_hex(8)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._run(self._engine.close), _CLOSE_SECONDS)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def read(
        self,
        query: Callable[Concatenate[Connection, _Parameters], _Result],
        *arguments: _Parameters.args,
        **named: _Parameters.kwargs,
    ) -> _Result:
        """Return the result of ``query``, called with a connection in one transaction.

        Raises BusyError when too many reads wait or it takes longer than READ_SECONDS, StoreError
        for any other error of the database.
        """
        if self._waiting >= MAX_WAITING:
            raise BusyError("too many requests read the state; try again")
        self._waiting += 1
        try:
            return await self._run(partial(self._read, query, *arguments, **named))
        finally:
            self._waiting -= 1

    async def version(self) -> Hashable:
        """Return a value that changes with every commit to the store. Raises as ``read`` does.

        No other reader returns it: an engine may count the commits since the reader was opened.
        """
        return self._opened, await self.read(self._engine.version)

    def _read(
        self,
        query: Callable[Concatenate[Connection, _Parameters], _Result],
        *arguments: _Parameters.args,
        **named: _Parameters.kwargs,
    ) -> _Result:
        try:
            with self._engine.begin(READ_SECONDS) as connection:
                return query(connection, *arguments, **named)
        except msgspec.MsgspecError as error:
            raise self._engine.damaged("an event is not what was written") from error
        except TimeoutError:
            raise BusyError(f"the state could not be read within {READ_SECONDS:.0f} s") from None

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
