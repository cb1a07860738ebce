"""The body of an answer, read and inflated no further than it may be long."""

import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import httpx


class EncodingError(Exception):
    """The body's Content-Encoding is not one we asked for, or it ends too early."""


async def read_body(response: httpx.Response, most: int) -> tuple[bytes, bool]:
    """Return the decoded body, at most so many bytes of it, and whether it is longer.

    Raises EncodingError and zlib.error for one that does not decode, httpx's errors for one that
    does not come whole.
    """
    body = bytearray()
    async with aclosing(_decoded(response, most)) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > most:
                return bytes(body[:most]), True
    return bytes(body), False


def _decoded(response: httpx.Response, most: int) -> AsyncGenerator[bytes, None]:
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in {"", "identity"}:
        return _plain(response.aiter_raw())
    if encoding in {"gzip", "x-gzip"}:
        return _gunzip(response.aiter_raw(), most)
    raise EncodingError("an encoding that was not asked for")


async def _plain(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    async for piece in pieces:
        yield piece


async def _gunzip(pieces: AsyncIterator[bytes], most: int) -> AsyncGenerator[bytes, None]:
    """Inflate at most ``most`` bytes at a time: httpx would inflate a whole piece, 1000-fold."""
    inflater = zlib.decompressobj(wbits=31)
    begun = False
    async for piece in pieces:
        data = piece
        while data:
            if inflater.eof:
                inflater = zlib.decompressobj(wbits=31)
            begun = True
            yield inflater.decompress(data, most + 1)
            data = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    if begun and not inflater.eof:
        raise EncodingError("it ends in the middle")
