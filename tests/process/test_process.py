"""The end of a process, whatever its work does."""

import signal
import sys

from tests.process.agent import run, started

PYTHON = """
import asyncio, os, signal, sys
from exporter import process

async def work(stop):
    print("begun", flush=True)
    {body}
    print("not flushed by anybody", end="")
    return 3

process._LAST_SECONDS = 0.2
process.run_until_signal(work)
"""


def code(tmp_path, body):
    path = tmp_path / "program.py"
    path.write_text(PYTHON.replace("{body}", body), encoding="utf-8")
    return str(path)


def test_the_status_is_that_of_the_work_and_its_output_is_complete(tmp_path):
    done = run(tmp_path, code(tmp_path, "pass"), command=[sys.executable])
    assert (done.returncode, done.stdout) == (3, "begun\nnot flushed by anybody")


def test_work_that_does_not_end_is_ended(tmp_path):
    program = code(tmp_path, "await asyncio.Event().wait()")
    with started(tmp_path, program, command=[sys.executable]) as process:
        process.line("begun")
        assert process.stop(signal.SIGTERM, seconds=5) == 0


def test_a_thread_that_cannot_be_cancelled_holds_up_nothing(tmp_path):
    body = "import time; asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)"
    done = run(tmp_path, code(tmp_path, body), command=[sys.executable])
    assert done.returncode == 3
