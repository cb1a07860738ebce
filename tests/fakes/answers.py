"""Answers of the scripted server: complete, incomplete, slow and broken ones."""

import itertools
import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from tests.fakes.server import Answer, Peer


def head(status: int, **headers: str | int) -> bytes:
    """Return a status line and headers; `content_length` becomes Content-Length."""
    lines = [f"HTTP/1.1 {status} Scripted"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def answer(status: int = 200, body: bytes = b"", **headers: str | int) -> Answer:
    """Send a complete answer; the connection stays open."""
    return sends(head(status, content_length=len(body), **headers) + body)


def as_json(value: Any, status: int = 200, **headers: str | int) -> Answer:
    return answer(status, json.dumps(value).encode(), content_type="application/json", **headers)


def redirect(location: str, status: int = 307) -> Answer:
    return answer(status, location=location)


def sends(*pieces: bytes) -> Answer:
    """Send the bytes; the connection stays open."""

    def script(peer: Peer) -> None:
        for piece in pieces:
            peer.send(piece)

    return script


def sends_then_hangs_up(*pieces: bytes) -> Answer:
    def script(peer: Peer) -> None:
        sends(*pieces)(peer)
        peer.hang_up()

    return script


def sends_then_resets(*pieces: bytes) -> Answer:
    def script(peer: Peer) -> None:
        sends(*pieces)(peer)
        peer.wait(0.05)  # a reset discards what the client has not read yet
        peer.reset()

    return script


def drips(start: bytes, drop: bytes = b" ", every: float = 0.02) -> Answer:
    """Send ``start``, then a ``drop`` every so many seconds, forever."""

    def script(peer: Peer) -> None:
        peer.send(start)
        while True:
            peer.wait(every)
            peer.send(drop)

    return script


def silence(peer: Peer) -> None:
    """Send nothing; the connection stays open."""
    peer.wait(600)


def chunked(pieces: Iterable[bytes], *, complete: bool = True, **headers: str | int) -> Answer:
    """Send a chunked body; an incomplete one lacks the last chunk."""

    def script(peer: Peer) -> None:
        peer.send(head(200, transfer_encoding="chunked", **headers))
        for piece in pieces:
            peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        if not complete:
            peer.hang_up()
        peer.send(b"0\r\n\r\n")

    return script


def gzipped(*members: bytes) -> bytes:
    """Return the concatenated gzip members."""
    return b"".join(zlib.compress(member, wbits=31) for member in members)


def zeros(megabytes: int) -> Iterator[bytes]:
    return itertools.repeat(bytes(2**20), megabytes)


def gzip_bomb(megabytes: int) -> bytes:
    """Return zeros compressed to about a thousandth of their size.

    One megabyte is compressed and repeated: compressing all would take longer than the test.
    """
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    megabyte = deflater.compress(bytes(2**20)) + deflater.flush(zlib.Z_FULL_FLUSH)
    # Without their checksum: a reader that gets to the end has lost already.
    end = deflater.flush() + struct.pack("<II", 0, megabytes * 2**20)
    return b"\x1f\x8b\x08" + bytes(7) + megabyte * megabytes + end
