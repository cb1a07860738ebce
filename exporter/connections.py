"""What clients may hold open: so many connections, and each so long without getting on."""

import asyncio
import os
import socket
from typing import Any, Final
from weakref import WeakSet

import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

_MAX_OPEN: Final = 256
"""A process may have 1024 files open on most systems. Clients that took them all would keep the
agent from polling, from storing and from sending."""

_REQUEST_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 60.0

log = structlog.get_logger()


class OpenConnections:
    """The connections that are open, handshakes included, on all listeners of a server."""

    def __init__(self) -> None:
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._told = False

    def admit(self, connection: socket.socket) -> bool:
        """Count a connection until it is closed; return False when it is one too many."""
        count = sum(each.fileno() >= 0 for each in self._sockets)
        if count >= _MAX_OPEN:
            if not self._told:
                log.warning("too many connections are open, new ones are closed", most=_MAX_OPEN)
            self._told = True
            return False
        self._told = self._told and count > _MAX_OPEN // 2
        self._sockets.add(connection)
        return True


class LimitedListener(socket.socket):
    """A listener of its own on the same address, which closes a connection that is one too many."""

    def __init__(self, listener: socket.socket, connections: OpenConnections) -> None:
        super().__init__(fileno=os.dup(listener.fileno()))
        self.setblocking(False)
        self._connections = connections

    def accept(self) -> tuple[socket.socket, Any]:
        """Return a connection and its address; ConnectionAbortedError for one too many."""
        connection, address = super().accept()
        if not self._connections.admit(connection):
            connection.close()
            raise ConnectionAbortedError
        return connection, address


class ImpatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, which alone waits for good for a request, and for a client that reads.

    The head of the first request has 10 s. An answer, its way to the client and the next request
    after it have 60 s; a connection without any traffic is closed after the server's keep-alive.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._allow(_REQUEST_SECONDS)

    def handle_events(self) -> None:
        """Take what came; a whole head of a request begins an answer."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._allow(_ANSWER_SECONDS)

    def on_response_complete(self) -> None:
        """Begin to wait for the client to read, and for its next request."""
        self._allow(_ANSWER_SECONDS)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _allow(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        # Not closed: that would wait for the client to read what is left.
        self._deadline = self.loop.call_later(seconds, self.transport.abort)
