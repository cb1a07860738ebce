"""A body is decoded while it comes, up to its bound and no further."""

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
        pytest.param(chunked([b"h", b"ello"]), id="chunked"),
        pytest.param(
            chunked([bytes([byte]) for byte in gzipped(b"hel", b"lo")], content_encoding="gzip"),
            id="gzip members byte by byte",
        ),
        pytest.param(sends_then_hangs_up(b"HTTP/1.0 200 OK\r\n\r\nhello"), id="until the end"),
    ],
)
def test_a_body_is_decoded(server, sent):
    server.otherwise = sent
    response = send(server.base_url)
    assert (response.body, response.cut) == (b"hello", False)


def test_an_empty_body_needs_no_gzip(server):
    server.otherwise = answer(304, content_encoding="gzip")
    response = send(server.base_url)
    assert (response.body, response.broken) == (b"", None)


@pytest.mark.parametrize("size", [0, 999, 1000, 1001, 200_000])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_body_is_cut_at_the_bound_and_not_before(server, size, encoding):
    body = bytes(size) if encoding == "identity" else gzipped(bytes(size))
    server.otherwise = answer(200, body, content_encoding=encoding)
    response = send(server.base_url)
    assert len(response.body) == min(size, 1000)
    assert response.cut == (size > 1000)


def test_many_members_are_cut_at_the_bound_too(server):
    server.otherwise = answer(200, gzipped(*[bytes(400)] * 10), content_encoding="gzip")
    response = send(server.base_url)
    assert (len(response.body), response.cut) == (1000, True)


def test_the_rest_of_a_long_body_is_not_read(server):
    server.otherwise = chunked(zeros(64))
    assert send(server.base_url, Bounds(10, 8 * 2**20)).cut
    assert server.bytes_sent < 32 * 2**20


def test_a_gzip_bomb_is_not_inflated(server):
    server.otherwise = answer(200, gzip_bomb(64), content_encoding="gzip")
    tracemalloc.start()
    try:
        assert send(server.base_url, Bounds(10, 2**20)).cut
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()
