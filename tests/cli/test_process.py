"""The end of a process, whatever its work does."""

import signal
import sys

from tests.process.agent_process import run, started

PYTHON = """
import asyncio, os, signal, sys
from exporter.cli import process

async def work(stop):
    print("begun", flush=True)
    {body}
    print("not flushed by anybody", end="")
    return 3

process._SHUTDOWN_SECONDS = 0.2
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
        process.wait_for_line("begun")
        assert process.stop(signal.SIGTERM, seconds=5) == 0


def test_a_signal_that_comes_twice_at_once_is_one(tmp_path):
    """`timeout` sends its to the process and to its group; the work has its time all the same."""
    body = "os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGINT)"
    done = run(tmp_path, code(tmp_path, f"{body}; await stop.wait()"), command=[sys.executable])
    assert (done.returncode, done.stdout) == (3, "begun\nnot flushed by anybody")


def test_the_end_of_the_terminal_is_a_signal_to_stop(tmp_path):
    with started(
        tmp_path, code(tmp_path, "await stop.wait()"), command=[sys.executable]
    ) as process:
        process.wait_for_line("begun")
        assert process.stop(signal.SIGHUP, seconds=5) == 3


def test_a_signal_that_is_to_be_ignored_is(tmp_path):
    """As `nohup` says."""
    body = "os.kill(os.getpid(), signal.SIGHUP); await asyncio.sleep(0); assert not stop.is_set()"
    program = code(tmp_path, body)
    command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable]
    assert run(tmp_path, program, command=command).returncode == 3


def test_a_thread_that_cannot_be_cancelled_holds_up_nothing(tmp_path):
    body = "import time; asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)"
    done = run(tmp_path, code(tmp_path, body), command=[sys.executable])
    assert done.returncode == 3
