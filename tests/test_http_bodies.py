"""Bodies are decoded while they arrive, up to the limit and not further."""

import tracemalloc

import pytest

from exporter.http_client import Bounds
from tests.fakes.answers import answer, chunked, gzip_bomb, gzipped, sends_then_hangs_up, zeros
from tests.fakes.http_requests import send
from tests.fakes.server import Server


@pytest.fixture
def server():
    with Server(answer(200, b"hello")) as running:
        yield running


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(answer(200, b"hello"), id="plain"),
        pytest.param(answer(200, b"hello", content_encoding="identity"), id="identity"),
        pytest.param(answer(200, gzipped(b"hello"), content_encoding="gzip"), id="gzip"),
        pytest.param(answer(200, gzipped(b"hello"), content_encoding=" X-GZIP "), id="x-gzip"),
        pytest.param(answer(200, gzipped(b"he", b"", b"llo"), content_encoding="gzip"), id="many"),
        pytest.param(answer(200, b"hello", content_encoding="utf-8"), id="no coding"),
        pytest.param(answer(200, b"hello", content_encoding="None, UTF8"), id="no codings"),
        pytest.param(answer(200, b"hello", content_encoding=""), id="empty"),
        pytest.param(
            answer(200, gzipped(b"hello"), content_encoding="utf-8, identity, gzip"),
            id="gzip and no codings",
        ),
        pytest.param(
            answer(200, gzipped(b"hello") + bytes(9), content_encoding="gzip"), id="zeros"
        ),
        pytest.param(
            answer(200, gzipped(b"he") + bytes(9) + gzipped(b"llo"), content_encoding="gzip"),
            id="zeros between gzip members",
        ),
        pytest.param(
            chunked([gzipped(b"hello"), *[b"\0"] * 3, bytes(3)], content_encoding="gzip"),
            id="zeros in pieces",
        ),
        pytest.param(chunked([b"h", b"ello"]), id="chunked"),
        pytest.param(
            chunked([bytes([byte]) for byte in gzipped(b"hel", b"lo")], content_encoding="gzip"),
            id="gzip members byte by byte",
        ),
        pytest.param(sends_then_hangs_up(b"HTTP/1.0 200 OK\r\n\r\nhello"), id="until the end"),
    ],
)
async def test_supported_encodings_are_decoded(server, sent):
    server.otherwise = sent
    response = await send(server.base_url)
    assert (response.body, response.truncated) == (b"hello", False)


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("br", "br"),
        (" Zstd ", "zstd"),
        ("deflate", "deflate"),
        ("compress", "compress"),
        ("gzip, gzip", "gzip, gzip"),
        ("utf-8, gzip, br", "gzip, br"),
    ],
)
async def test_a_coding_that_was_not_asked_for_is_named(server, encoding, names):
    server.otherwise = answer(200, b"hello", content_encoding=encoding)
    response = await send(server.base_url)
    assert (response.status, response.body, response.truncated) == (200, b"", False)
    assert response.error is not None
    assert response.error.reason == "protocol"
    assert str(response.error).endswith(f": its Content-Encoding {names} was not requested")


@pytest.mark.parametrize("rest", [b"\0\0garbage", b"garbage", b"\0" + gzipped(b"x")[:-1]])
async def test_anything_else_behind_a_gzip_member_is_an_error(server, rest):
    server.otherwise = answer(200, gzipped(b"hello") + rest, content_encoding="gzip")
    response = await send(server.base_url)
    assert (response.body, response.error is None) == (b"", False)


async def test_an_empty_body_is_valid_gzip(server):
    server.otherwise = answer(304, content_encoding="gzip")
    response = await send(server.base_url)
    assert (response.body, response.error) == (b"", None)


@pytest.mark.parametrize("size", [0, 999, 1000, 1001, 200_000])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_a_body_is_truncated_at_the_limit(server, size, encoding):
    body = bytes(size) if encoding == "identity" else gzipped(bytes(size))
    server.otherwise = answer(200, body, content_encoding=encoding)
    response = await send(server.base_url)
    assert len(response.body) == min(size, 1000)
    assert response.truncated == (size > 1000)


async def test_a_body_of_several_gzip_members_is_truncated_at_the_limit(server):
    server.otherwise = answer(200, gzipped(*[bytes(400)] * 10), content_encoding="gzip")
    response = await send(server.base_url)
    assert (len(response.body), response.truncated) == (1000, True)


async def test_the_rest_of_a_truncated_body_is_not_read(server):
    server.otherwise = chunked(zeros(64))
    assert (await send(server.base_url, Bounds(10, 8 * 2**20))).truncated
    assert server.bytes_sent < 32 * 2**20


async def test_a_gzip_bomb_is_not_inflated(server):
    server.otherwise = answer(200, gzip_bomb(64), content_encoding="gzip")
    tracemalloc.start()
    try:
        assert (await send(server.base_url, Bounds(10, 2**20))).truncated
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()
