"""Two texts, compressed separately, are one gzip member for every decoder."""

import gzip
import subprocess
import zlib

from hypothesis import example, given
from hypothesis import strategies as st

from exporter.exposition.gzip import append, compress_prefix
from tests.programs import required

contents = st.one_of(st.binary(max_size=2000), st.text("ab\n", max_size=3000).map(str.encode))


@given(contents, contents)
@example(b"", b"")
@example(b"x" * 300_000, b"")
@example(b"", b"x" * 300_000)
def test_two_texts_are_one_member(first, rest):
    body = append(compress_prefix(first), rest)
    assert b"".join(body.plain) == first + rest
    # A decoder of members stops at the end of the first one and loses what follows.
    decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert decoder.decompress(b"".join(body.gzipped)) == first + rest
    assert (decoder.eof, decoder.unused_data) == (True, b"")
    assert gzip.decompress(b"".join(body.gzipped)) == first + rest


@given(contents, contents, contents)
def test_a_prefix_can_be_reused(first, rest, later):
    prefix = compress_prefix(first)
    append(prefix, rest)
    assert gzip.decompress(b"".join(append(prefix, later).gzipped)) == first + later


def test_the_gzip_program_accepts_the_member():
    body = append(compress_prefix(b"first\n" * 5000), b"rest\n" * 5000)
    done = subprocess.run(
        [required("gzip", package="gzip"), "--test", "--verbose"],
        input=b"".join(body.gzipped),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, b"OK" in done.stderr) == (0, True), done.stderr


def test_separate_compression_adds_less_than_100_bytes():
    first, rest = b"cartesia_fine_tunes 1.0\n" * 1000, b"cartesia_up 1.0\n" * 1000
    joined = b"".join(append(compress_prefix(first), rest).gzipped)
    assert len(joined) < len(gzip.compress(first + rest)) + 100
