"""A scripted server on a loopback socket, whose answers are bytes and so can be invalid.

It runs in its own threads: sync tests, async tests and processes can use it.
"""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qs, urlsplit

_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """A received request; header names are in lower case. `connection` counts from 1."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: texts[-1] for name, texts in parse_qs(urlsplit(self.target).query).items()}


class Peer:
    """The server's side of one connection, with the request to answer."""

    def __init__(self, sock: socket.socket, server: "Server", number: int) -> None:
        self.socket = sock
        self._server = server
        self._number = number
        self._buffer = b""
        self.request: Received

    def receive(self) -> bool:
        """Read the next request; return False if the client closed the connection."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                return False
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = int(headers.get("content-length", "0"))
        while len(self._buffer) < length and self._more():
            pass
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        self.request = Received(method, target, headers, body, self._number)
        return True

    def _more(self) -> bool:
        data = self.socket.recv(_CHUNK)
        self._buffer += data
        return bool(data)

    def send(self, data: bytes) -> None:
        """Send bytes; `bytes_sent` grows as the client receives them."""
        for begin in range(0, len(data), _CHUNK):
            piece = data[begin : begin + _CHUNK]
            self.socket.sendall(piece)
            self._server.bytes_sent += len(piece)

    def wait(self, seconds: float) -> None:
        """Wait; the end of the server ends the connection."""
        if self._server.stopping.wait(seconds):
            raise ConnectionAbortedError

    def hang_up(self) -> None:
        """Close the connection after what was sent has arrived."""
        raise ConnectionAbortedError

    def reset(self) -> None:
        """Reset the connection: the client gets ECONNRESET."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionAbortedError


def _shake_hands(sock: ssl.SSLSocket) -> None:
    try:
        sock.do_handshake()
    except ssl.SSLError:
        # Closing a socket with unread data resets it, and the client would lose the TLS alert.
        socket.socket.shutdown(sock, socket.SHUT_WR)
        while socket.socket.recv(sock, _CHUNK):
            pass
        raise


Answer = Callable[[Peer], None]
"""Answers one request. When it returns, the connection stays open for the next one."""


class Server:
    """Answers each request with the next scripted answer, then with `otherwise`.

    On each new connection, `greeting` is sent and `on_connection` is called.
    """

    def __init__(self, otherwise: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.otherwise = otherwise
        self.greeting = b""
        self.on_connection: Answer = lambda _: None
        self.script: list[Answer] = []
        self.requests: list[Received] = []
        self.bytes_sent = 0
        self.connections = 0
        self.stopping = threading.Event()
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address = f"127.0.0.1:{self.port}"
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def address(self) -> str:
        """Host and port, as errors name them; also after the end of the server."""
        return self._address

    @property
    def base_url(self) -> str:
        return f"http{'s' if self._tls else ''}://{self.address}"

    def then(self, *answers: Answer) -> Self:
        """Add scripted answers, one per request."""
        self.script += answers
        return self

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the blocking accept
        self._threads[0].join()
        self._listener.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock, self.connections))
            self._threads.append(thread)
            thread.start()

    def _serve(self, raw: socket.socket, number: int) -> None:
        sock = raw
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
                self._open.add(sock)
                _shake_hands(sock)
            sock.sendall(self.greeting)
            peer = Peer(sock, self, number)
            self.on_connection(peer)
            while not self.stopping.is_set() and peer.receive():
                self.requests.append(peer.request)
                answer = self.script.pop(0) if self.script else self.otherwise
                answer(peer)
        except OSError:
            pass  # the client or the script closed the connection
        finally:
            self._open -= {raw, sock}
            sock.close()
            raw.close()
