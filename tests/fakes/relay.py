"""Forwards TCP connections to a port; can stop forwarding, and cut a connection at a request."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count


@dataclass
class _Connection:
    client: socket.socket
    server: socket.socket
    drops_answer: bool = False

    def close(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@dataclass
class Relay:
    """The relay that listens on ``port``.

    ``cuts`` are requests, as bytes that the client sends, at which a connection is cut, each once:
    before the request is forwarded (False), or when the server has answered it (True).
    """

    target: int
    cuts: dict[bytes, bool] = field(default_factory=dict)
    accepted: Iterator[int] = field(default_factory=count)
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _forwards: threading.Event = field(default_factory=threading.Event)
    _connections: list[_Connection] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def stop(self) -> None:
        """Forward nothing from now on, as a network that loses every packet."""
        self._forwards.clear()

    def resume(self) -> None:
        self._forwards.set()

    def cut(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                next(self.accepted)
                try:
                    server = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    client.close()
                    continue
                connection = _Connection(client, server)
                self._connections.append(connection)
                for copy in (self._requests, self._answers):
                    threading.Thread(target=copy, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._forwards.set()
        self.cut()

    def _requests(self, connection: _Connection) -> None:
        with suppress(OSError):
            while data := connection.client.recv(65536):
                self._forwards.wait()
                cut = next((each for each in self.cuts if each in data), None)
                if cut is not None:
                    connection.drops_answer = self.cuts.pop(cut)
                    if not connection.drops_answer:
                        break
                connection.server.sendall(data)
        connection.close()

    def _answers(self, connection: _Connection) -> None:
        with suppress(OSError):
            while data := connection.server.recv(65536):
                self._forwards.wait()
                if connection.drops_answer:
                    break
                connection.client.sendall(data)
        connection.close()


@contextmanager
def relay(target: int) -> Iterator[Relay]:
    """Run a relay to a port of this machine."""
    running = Relay(target)
    running.resume()
    thread = threading.Thread(target=running.serve, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        running.close()
        thread.join(5)
