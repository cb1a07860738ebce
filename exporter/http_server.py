"""HTTP server for an ASGI application, inside a running event loop and on open sockets."""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from exporter.core.connections import Connection, ConnectionTable
from exporter.core.text import os_error_text

_MAX_CONNECTIONS: Final = 256
_MIN_CONNECTIONS: Final = 8

_REQUEST_SECONDS: Final = 10.0
_RESPONSE_SECONDS: Final = 60.0

_ACCEPT_PAUSE_SECONDS: Final = 0.5
"""Time between two attempts while no connection can be accepted."""

_WARNING_SECONDS: Final = 3600.0

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
    config = uvicorn.Config(
        app,
        access_log=False,
        http=_ClientProtocol,
        lifespan="off",
        log_config=None,
        log_level="error",  # its warnings are about invalid requests, which any client can send
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        ws="none",
    )
    config.load()
    server = _Server(config)
    acceptor = _Acceptor(server, tls)
    serving = asyncio.ensure_future(server.serve())
    accepting = [asyncio.ensure_future(acceptor.accept_from(each)) for each in listeners]
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((serving, stopping, *accepting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        for task in accepting:
            task.cancel()
        ended = await asyncio.gather(*accepting, return_exceptions=True)
        for listener in listeners:
            listener.close()
        server.should_exit = True
        await serving
        acceptor.close()
    for error in ended:
        if isinstance(error, Exception):
            raise error


def max_connections() -> int:
    """Return how many connections may be open: 256, or a quarter of the limit of open files.

    The rest is left for polling, storing and sending.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else soft // 4
    return max(_MIN_CONNECTIONS, min(limit, _MAX_CONNECTIONS))


class _Acceptor:
    """Accepts connections within the limits and hands them to the server's protocol.

    asyncio's own servers repeat accept() thousands of times when no file can be opened, and log a
    traceback for each.
    """

    def __init__(self, server: "_Server", tls: ssl.SSLContext | None) -> None:
        self._server = server
        self._tls = tls
        self._table = ConnectionTable(max_connections())
        self._tasks: set[asyncio.Task[None]] = set()
        self._logged_at: dict[str, float] = {}

    def close(self) -> None:
        """Cancel handshakes that are in progress."""
        for task in self._tasks:
            task.cancel()

    async def accept_from(self, listener: socket.socket) -> None:
        """Accept connections until cancelled."""
        listener.setblocking(False)
        while True:
            # Without a free descriptor, accept() fails even if no connection waits.
            await _readable(listener)
            try:
                accepted, address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):  # the client has left already
                continue
            except OSError as error:
                self._warn("connections cannot be accepted", error=os_error_text(error))
                if (oldest := self._table.remove_oldest_idle()) is not None:
                    oldest.close()
                await asyncio.sleep(_ACCEPT_PAUSE_SECONDS)
            else:
                self._admit(accepted, address[0] if isinstance(address, tuple) else "")

    def _admit(self, accepted: socket.socket, host: str) -> None:
        accepted.setblocking(False)
        opened = _Opened(accepted)
        connection = Connection(host, opened.abort)
        self._table.limit = limit = max_connections()
        admitted, closed = self._table.admit(connection)
        for each in closed:
            each.close()
        if closed or not admitted:
            event = "too many open connections, idle ones are closed"
            largest = closed[0] if closed else connection
            self._warn(event, limit=limit, client=largest.client)
        if not admitted:
            accepted.close()
            return
        task = asyncio.create_task(self._open(connection, opened))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, connection: Connection, opened: "_Opened") -> None:
        def protocol() -> _ClientProtocol:
            return _ClientProtocol(self._server, connection, opened, self._table)

        timeout = None if self._tls is None else _REQUEST_SECONDS
        loop = asyncio.get_running_loop()
        try:
            # An OSError: the client has left, or the handshake failed or timed out.
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(
                    protocol, opened.socket, ssl=self._tls, ssl_handshake_timeout=timeout
                )
        finally:
            if opened.transport is None:
                self._table.remove(connection)

    def _warn(self, event: str, **values: object) -> None:
        """Log a warning, each event at most once an hour: any client can cause them."""
        now = asyncio.get_running_loop().time()
        if now - self._logged_at.get(event, -inf) >= _WARNING_SECONDS:
            self._logged_at[event] = now
            log.warning(event, **values)


async def _readable(listener: socket.socket) -> None:
    """Wait until a connection can be accepted."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(listener, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(listener)


@dataclass(eq=False, slots=True)
class _Opened:
    """The socket of a connection, and its transport after the handshake."""

    socket: socket.socket
    transport: asyncio.Transport | None = None

    def abort(self) -> None:
        """Close the connection without waiting for the client."""
        if self.transport is not None:
            self.transport.abort()
        else:
            # Its transport, which is still unknown, notices and closes the socket.
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)


class _ClientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with timeouts, which uvicorn lacks for slow clients.

    A client has 10 s to send the head of its first request. The response, its transfer and the next
    request have 60 s. A connection without traffic is closed after the server's keep-alive timeout.
    """

    _timer: asyncio.TimerHandle | None = None

    def __init__(
        self, server: "_Server", connection: Connection, opened: _Opened, table: ConnectionTable
    ) -> None:
        super().__init__(server.config, server.server_state, app_state={})
        self._connection = connection
        self._opened = opened
        self._table = table

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._opened.transport = transport
        self._restart_timer(_REQUEST_SECONDS)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._table.set_idle(self._connection, idle=self.cycle.response_complete)
            self._restart_timer(_RESPONSE_SECONDS)

    def on_response_complete(self) -> None:
        self._table.set_idle(self._connection, idle=True)
        self._restart_timer(_RESPONSE_SECONDS)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._table.remove(self._connection)
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _restart_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # abort(), not close(): close() waits until the client has read all pending data.
        self._timer = self.loop.call_later(seconds, self.transport.abort)


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


# Without the tracebacks of requests that the shutdown cancelled: they are not bugs.
logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)


class _Server(uvicorn.Server):
    """Server that leaves signal handling to the program, and connections to the acceptor."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - as inherited
        self.servers = []
        self.started = True
