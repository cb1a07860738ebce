"""A forward proxy that tunnels (CONNECT), as an answer of the scripted server."""

import contextlib
import socket
import threading

from tests.fakes.server import Peer


def tunnel(peer: Peer) -> None:
    """Connect to where CONNECT asks, whatever the name says: to this machine."""
    port = int(peer.request.target.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as beyond:
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=_copy, args=(beyond, peer.socket))
        back.start()
        _copy(peer.socket, beyond)
        back.join()
    peer.hang_up()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
