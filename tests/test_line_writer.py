"""Lines of the log on pipes and files that do not take them."""

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator

import pytest

from exporter import logs
from exporter.logs import LineWriter
from tests.process.agent_process import until


def notice(number: int) -> str:
    return f"{number} were dropped"


class Pipe:
    """A pipe with room for 4096 bytes, which is read only on request."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)

    def read_lines(self, last: str) -> list[str]:
        """Read until a line is complete that equals ``last``; return all lines."""
        text = ""
        while not text.endswith(f"{last}\n"):
            text += os.read(self.reader, 65536).decode()
        return text.splitlines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    # The reader first: a writer that waits for it ends with an error.
    os.close(made.reader)
    time.sleep(0)
    os.close(made.writer)


@pytest.mark.parametrize("is_blocking", [True, False])
def test_a_stalled_reader_delays_nobody_and_gets_the_lines_in_order(pipe, is_blocking):
    os.set_blocking(pipe.writer, is_blocking)
    writer = LineWriter(pipe.writer, notice)
    lines = [f"{number} {'x' * 100}" for number in range(1000)]
    begun = time.monotonic()
    for line in lines:
        writer.write(line)
    assert time.monotonic() - begun < 5
    assert not writer.flush(0.1)
    assert pipe.read_lines(lines[-1]) == lines
    assert writer.flush(10)
    assert writer.dropped == 0


@pytest.mark.parametrize("limit", ["_MAX_WAITING_LINES", "_MAX_WAITING_BYTES"])
def test_a_full_queue_drops_lines_and_reports_how_many_in_their_place(pipe, monkeypatch, limit):
    waiting = 50
    monkeypatch.setattr(logs, limit, waiting if limit.endswith("LINES") else waiting * 100)
    writer = LineWriter(pipe.writer, notice)
    lines = [f"{number:99}" for number in range(300)]
    for line in lines:
        writer.write(line)
    written = 300 - writer.dropped
    assert waiting <= written < 200
    before = pipe.read_lines(f"{writer.dropped} were dropped")
    assert before[:-1] == lines[:written]
    writer.write("the next one")
    assert pipe.read_lines("the next one") == ["the next one"]
    assert writer.flush(10)


def test_the_report_precedes_lines_that_came_after_the_dropped_ones(pipe, monkeypatch):
    monkeypatch.setattr(logs, "_MAX_WAITING_LINES", 3)
    writer = LineWriter(pipe.writer, notice)
    writer.write("x" * 10_000)  # more than the pipe takes
    until(lambda: not writer._lines)
    for number in range(5):
        writer.write(f"line {number}")
    os.read(pipe.reader, 100)
    found = pipe.read_lines("2 were dropped")[1:]
    assert found == ["line 0", "line 1", "line 2", "2 were dropped"]
    assert writer.dropped == 2


def test_a_reader_that_is_gone_costs_the_lines_and_nothing_else(pipe):
    os.close(pipe.reader)
    writer = LineWriter(pipe.writer, notice)
    for number in range(100):
        writer.write(f"line {number}")
    assert writer.flush(10)
    assert writer.dropped == 100
    assert writer.error is not None
    assert writer.error.errno == errno.EPIPE
    pipe.reader = os.open(os.devnull, os.O_RDONLY)


def test_a_reader_that_leaves_while_a_line_waits_for_it_ends_the_wait(pipe):
    writer = LineWriter(pipe.writer, notice)
    writer.write("x" * 10_000)
    assert not writer.flush(0.05)
    os.close(pipe.reader)
    assert writer.flush(10)
    assert writer.dropped == 1
    pipe.reader = os.open(os.devnull, os.O_RDONLY)


def test_a_full_file_costs_lines_until_there_is_room(tmp_path, monkeypatch):
    """As on a full disk; a line that was written in part is ended first."""
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    room = 1000

    def write(number: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(number, data[:room])
        room -= written
        return written

    real = os.write
    monkeypatch.setattr(os, "write", write)
    writer = LineWriter(descriptor, notice)
    lines = [f"{number:299}" for number in range(6)]
    for line in lines:
        writer.write(line)
    assert writer.flush(10)
    assert writer.dropped == 3
    room = 10_000
    writer.write("again")
    assert writer.flush(10)
    os.close(descriptor)
    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert text.splitlines() == [*lines[:3], lines[3][:100], "3 were dropped", "again"]


def test_lines_of_several_threads_are_whole(pipe):
    writer = LineWriter(pipe.writer, notice)
    lines = {f"{thread} {number} {'x' * 50}" for thread in range(4) for number in range(100)}

    def write(thread: int) -> None:
        for line in sorted(lines):
            if line.startswith(f"{thread} "):
                writer.write(line)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.write("end")
    assert set(pipe.read_lines("end")) == {*lines, "end"}
