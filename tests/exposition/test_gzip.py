"""Two texts, each deflated by itself, are one gzip member for everybody who reads gzip."""

import gzip
import subprocess
import zlib

from hypothesis import example, given
from hypothesis import strategies as st

from exporter.exposition.gzip import beginning, body
from tests.programs import required

contents = st.one_of(st.binary(max_size=2000), st.text("ab\n", max_size=3000).map(str.encode))


@given(contents, contents)
@example(b"", b"")
@example(b"x" * 300_000, b"")
@example(b"", b"x" * 300_000)
def test_any_two_texts_are_one_member(first, rest):
    found = body(beginning(first), rest)
    assert b"".join(found.plain) == first + rest
    # A member's decoder stops at the end of the first: what is left over would be lost.
    decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert decoder.decompress(b"".join(found.gzipped)) == first + rest
    assert (decoder.eof, decoder.unused_data) == (True, b"")
    assert gzip.decompress(b"".join(found.gzipped)) == first + rest


@given(contents, contents, contents)
def test_the_first_text_is_used_again_behind_which_another_stands(first, rest, later):
    start = beginning(first)
    body(start, rest)
    assert gzip.decompress(b"".join(body(start, later).gzipped)) == first + later


def test_the_program_gzip_finds_no_fault():
    found = body(beginning(b"first\n" * 5000), b"rest\n" * 5000)
    ran = subprocess.run(
        [required("gzip", package="gzip"), "--test", "--verbose"],
        input=b"".join(found.gzipped),
        capture_output=True,
        check=False,
    )
    assert (ran.returncode, b"OK" in ran.stderr) == (0, True), ran.stderr


def test_it_is_hardly_larger_than_both_at_once():
    first, rest = b"cartesia_fine_tunes 1.0\n" * 1000, b"cartesia_up 1.0\n" * 1000
    joined = b"".join(body(beginning(first), rest).gzipped)
    assert len(joined) < len(gzip.compress(first + rest)) + 100
