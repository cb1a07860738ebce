"""A forward proxy (CONNECT) as an answer of the scripted server."""

import contextlib
import socket
import threading

from tests.fakes.server import Peer


def tunnel(peer: Peer) -> None:
    """Connect to the requested port on this machine, whatever the host."""
    port = int(peer.request.target.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as upstream:
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=_copy, args=(upstream, peer.socket))
        back.start()
        _copy(peer.socket, upstream)
        back.join()
    peer.hang_up()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
