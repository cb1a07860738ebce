"""Serve an ASGI application inside a running event loop, on sockets that are open already."""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Any, Final
from weakref import WeakSet

import structlog
import uvicorn
from starlette.types import ASGIApp
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


_MAX_PORT: Final = 65535
_BACKLOG: Final = 1024
_SHUTDOWN_SECONDS: Final = 1


async def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; an empty host is every address, port 0 a free one.

    Raises OSError when the address can't be had.
    """
    # Some systems wrap a port that is too large, others raise OverflowError.
    if not 0 <= port <= _MAX_PORT:
        raise OSError(errno.EINVAL, f"port {port} is not between 0 and {_MAX_PORT}")
    try:
        listener = await _listen_at(host, port) if host else _listen_everywhere(port)
    except OSError as error:
        # Without its own text, which says the same of the address in Python's words.
        is_dns = isinstance(error, socket.gaierror)
        reason = error.strerror if is_dns else os.strerror(error.errno or errno.EINVAL)
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise OSError(error.errno, f"cannot listen on {where}: {reason}") from None
    # Opened again by its number, the socket knows its protocol. asyncio switches Nagle's delay off
    # only for a socket that does: without this each answer takes 40 ms longer.
    return socket.socket(fileno=listener.detach())


async def _listen_at(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # As Go's programs do: of a name's addresses one, and the IPv4 one rather than the other.
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return socket.create_server(address, family=family, backlog=_BACKLOG)


def _listen_everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                ("", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
            )
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:  # as where IPv6 is switched off
                raise
    return socket.create_server(("", port), backlog=_BACKLOG)


def base_url(listener: socket.socket, *, tls: bool = False) -> str:
    """Return the URL of a listening socket; every address shows as localhost.

    A Unix socket has none: it is shown as unix: and its path, @ before the name of an abstract one.
    """
    if listener.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(listener.getsockname())}".replace("\0", "@")
    scheme = "https" if tls else "http"
    host, port = listener.getsockname()[:2]
    if host in {"::", "0.0.0.0"}:  # noqa: S104 - recognised, not bound
        host = "localhost"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def serve(
    app: ASGIApp,
    listeners: Sequence[socket.socket],
    stop: asyncio.Event,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Answer requests until ``stop`` is set; what is in flight then has a second to finish.

    With ``tls`` on all listeners, without it on none. The listeners are closed in the end.
    """
    config = _Config(
        tls,
        app,
        access_log=False,
        http=ImpatientProtocol,
        lifespan="off",
        log_config=None,
        log_level="error",  # its warnings are for requests that are none, of whoever sends them
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        ws="none",
    )
    server = _Server(config)
    connections = OpenConnections()
    sockets: list[socket.socket] = [LimitedListener(each, connections) for each in listeners]
    serving = asyncio.ensure_future(server.serve(sockets=sockets))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        for listener in listeners:
            listener.close()
        server.should_exit = True
        await serving


class _Config(uvicorn.Config):
    """A configuration with a TLS context of its own: uvicorn's makes one from files, for good."""

    def __init__(self, tls: ssl.SSLContext | None, app: ASGIApp, **settings: Any) -> None:
        super().__init__(app, **settings)
        self._tls = tls

    def load(self) -> None:
        """Get ready to serve."""
        super().load()
        self.ssl = self._tls


class _CutOff(logging.Filter):
    """Leaves out the tracebacks of requests that the server's end cut off: they are no bugs."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


logging.getLogger("uvicorn.error").addFilter(_CutOff())


class _Server(uvicorn.Server):
    """A server that leaves the signals to the program it is a part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
