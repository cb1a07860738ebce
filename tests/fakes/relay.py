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


@dataclass(frozen=True)
class Cut:
    """A request that contains ``at``, next to one that contains ``after``.

    The connection is cut when the server has ``answered`` it, or else before it is forwarded.
    """

    at: bytes
    after: bytes
    answered: bool


@dataclass
class Relay:
    """The relay that listens on ``port``; ``cuts`` are where it cuts a connection, each once."""

    target: int
    cuts: list[Cut] = field(default_factory=list)
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
        previous = b""
        with suppress(OSError):
            while data := connection.client.recv(65536):
                self._forwards.wait()
                for cut in [each for each in self.cuts if each.at in data]:
                    if cut.after in previous:
                        self.cuts.remove(cut)
                        connection.drops_answer = cut.answered
                        if not cut.answered:
                            return connection.close()
                connection.server.sendall(data)
                previous = data
        return connection.close()

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
