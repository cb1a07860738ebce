"""HTTP server for an ASGI application, inside a running event loop and on open sockets."""

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

_MAX_CONNECTIONS: Final = 256
"""Most systems allow a process 1024 open files. Clients that use all of them would keep the agent
from polling, storing and sending."""

_REQUEST_SECONDS: Final = 10.0
_RESPONSE_SECONDS: Final = 60.0
_SHUTDOWN_SECONDS: Final = 1

_MAX_PORT: Final = 65535
_BACKLOG: Final = 1024

log = structlog.get_logger()


async def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. An empty host means all addresses, port 0 any free port.

    Raises OSError if that is not possible.
    """
    # Some systems truncate a port that is too large, others raise OverflowError.
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
    # Reopened by its descriptor, the socket knows its protocol. asyncio disables Nagle's algorithm
    # only then: without this, each response takes 40 ms longer.
    return socket.socket(fileno=listener.detach())


async def _listen_at(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # As Go programs do: one of the addresses of a name, and preferably an IPv4 address.
    family, _, _, _, address = min(addresses, key=lambda entry: entry[0] != socket.AF_INET)
    return socket.create_server(address, family=family, backlog=_BACKLOG)


def _listen_everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                ("", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
            )
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:  # raised where IPv6 is disabled
                raise
    return socket.create_server(("", port), backlog=_BACKLOG)


def base_url(listener: socket.socket, *, tls: bool = False) -> str:
    """Return the URL of a listening socket, with localhost for all addresses.

    A Unix socket is shown as ``unix:`` and its path, an abstract one as ``unix:@`` and its name.
    """
    if listener.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(listener.getsockname())}".replace("\0", "@")
    scheme = "https" if tls else "http"
    host, port = listener.getsockname()[:2]
    if host in {"::", "0.0.0.0"}:  # noqa: S104 - compared, not bound
        host = "localhost"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def serve(
    app: ASGIApp,
    listeners: Sequence[socket.socket],
    stop: asyncio.Event,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve requests until ``stop`` is set. Running requests then have one second to finish.

    ``tls`` applies to all listeners. They are closed at the end.
    """
    config = _Config(
        tls,
        app,
        access_log=False,
        http=TimeoutProtocol,
        lifespan="off",
        log_config=None,
        log_level="error",  # its warnings are about invalid requests, which any client can send
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


class OpenConnections:
    """Open connections of all listeners of a server, including those in a handshake."""

    def __init__(self) -> None:
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._warned = False

    def admit(self, connection: socket.socket) -> bool:
        """Count a connection until it is closed. Return False if there are too many."""
        open_now = sum(each.fileno() >= 0 for each in self._sockets)
        if open_now >= _MAX_CONNECTIONS:
            if not self._warned:
                log.warning(
                    "too many open connections, new ones are closed", limit=_MAX_CONNECTIONS
                )
            self._warned = True
            return False
        self._warned = self._warned and open_now > _MAX_CONNECTIONS // 2
        self._sockets.add(connection)
        return True


class LimitedListener(socket.socket):
    """Duplicate of a listening socket that closes new connections when too many are open."""

    def __init__(self, listener: socket.socket, connections: OpenConnections) -> None:
        super().__init__(fileno=os.dup(listener.fileno()))
        self.setblocking(False)
        self._connections = connections

    def accept(self) -> tuple[socket.socket, Any]:
        """Return a connection and its address. Raises ConnectionAbortedError for one too many."""
        connection, address = super().accept()
        if not self._connections.admit(connection):
            connection.close()
            raise ConnectionAbortedError
        return connection, address


class TimeoutProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with timeouts, which uvicorn lacks for slow clients.

    A client has 10 s to send the head of its first request. The response, its transfer and the next
    request have 60 s. A connection without traffic is closed after the server's keep-alive timeout.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Start the timeout of the first request."""
        super().connection_made(transport)
        self._restart_timer(_REQUEST_SECONDS)

    def handle_events(self) -> None:
        """Process received data. The head of a request starts the timeout of its response."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._restart_timer(_RESPONSE_SECONDS)

    def on_response_complete(self) -> None:
        """Start the timeout of the transfer and of the next request."""
        self._restart_timer(_RESPONSE_SECONDS)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timeout."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _restart_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # abort(), not close(): close() waits until the client has read all pending data.
        self._timer = self.loop.call_later(seconds, self.transport.abort)


class _Config(uvicorn.Config):
    """Configuration with a given TLS context. uvicorn would create one from files, once."""

    def __init__(self, tls: ssl.SSLContext | None, app: ASGIApp, **settings: Any) -> None:
        super().__init__(app, **settings)
        self._tls = tls

    def load(self) -> None:
        """Load the configuration."""
        super().load()
        self.ssl = self._tls


class _CancelledRequestFilter(logging.Filter):
    """Drops the tracebacks of requests that the shutdown cancelled: they are not bugs."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


logging.getLogger("uvicorn.error").addFilter(_CancelledRequestFilter())


class _Server(uvicorn.Server):
    """Server that leaves signal handling to the program."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals."""
        yield
