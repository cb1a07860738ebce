"""The end of a process by its work or by signals, and its resource settings."""

import gc
import resource
import signal
import sys

from exporter.cli import process as cli_process
from tests.process.agent_process import injected, run, started

PYTHON = """
import asyncio, os, signal, sys
from exporter.cli import process

async def main(stop):
    print("started", flush=True)
    {body}
    print("not flushed", end="")
    return 3

process._SHUTDOWN_SECONDS = 0.2
process.run_until_signal(main)
"""


def program(tmp_path, body):
    path = tmp_path / "program.py"
    path.write_text(PYTHON.replace("{body}", body), encoding="utf-8")
    return str(path)


def test_the_process_ends_with_the_status_of_its_work_and_complete_output(tmp_path):
    done = run(tmp_path, program(tmp_path, "pass"), command=[sys.executable])
    assert (done.returncode, done.stdout) == (3, "started\nnot flushed")


def test_work_that_ignores_the_stop_is_ended(tmp_path):
    path = program(tmp_path, "await asyncio.Event().wait()")
    with started(tmp_path, path, command=[sys.executable]) as process:
        process.wait_for_line("started")
        assert process.stop(signal.SIGTERM, seconds=5) == 0


def test_two_signals_at_once_are_one(tmp_path):
    """`timeout` sends its signal to the process and to its group."""
    body = "os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGINT)"
    done = run(tmp_path, program(tmp_path, f"{body}; await stop.wait()"), command=[sys.executable])
    assert (done.returncode, done.stdout) == (3, "started\nnot flushed")


def test_sighup_stops_the_work(tmp_path):
    with started(
        tmp_path, program(tmp_path, "await stop.wait()"), command=[sys.executable]
    ) as process:
        process.wait_for_line("started")
        assert process.stop(signal.SIGHUP, seconds=5) == 3


def test_a_signal_that_is_ignored_at_start_stays_ignored(tmp_path):
    """As with `nohup`."""
    body = "os.kill(os.getpid(), signal.SIGHUP); await asyncio.sleep(0); assert not stop.is_set()"
    path = program(tmp_path, body)
    command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable]
    assert run(tmp_path, path, command=command).returncode == 3


def test_a_hanging_thread_does_not_delay_the_end(tmp_path):
    body = "import time; asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)"
    done = run(tmp_path, program(tmp_path, body), command=[sys.executable])
    assert done.returncode == 3


def test_work_in_threads_runs_one_at_a_time(tmp_path):
    """Each further thread would take the interpreter lock from the event loop."""
    body = """
    import threading, time
    busy, overlapping = threading.Lock(), []
    def work():
        overlapping.append(not busy.acquire(blocking=False))
        time.sleep(0.05)
        busy.release()
    await asyncio.gather(*(asyncio.to_thread(work) for _ in range(3)))
    assert overlapping == [False] * 3"""
    done = run(tmp_path, program(tmp_path, body.strip()), command=[sys.executable])
    assert done.returncode == 3, done.stderr


def test_a_process_that_gets_no_thread_says_what_to_do(tmp_path):
    path = program(tmp_path, "pass")
    name = "_start_joinable_thread" if sys.version_info >= (3, 13) else "_start_new_thread"
    refuse = "def refuse(*_, **__):\n    raise RuntimeError\n"
    code = f"{refuse}import threading\nthreading.{name} = refuse\n"
    done = run(tmp_path, path, command=[sys.executable], **injected(tmp_path, code))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "raise the limit of tasks" in done.stdout + done.stderr


def test_the_loop_is_kept_responsive():
    interval = sys.getswitchinterval()
    gc.disable()
    try:
        cli_process.keep_loop_responsive()
        cli_process.enable_collector()
        assert gc.get_freeze_count() > 10_000
        assert gc.isenabled()
        assert sys.getswitchinterval() < interval
    finally:
        gc.enable()
        gc.unfreeze()
        sys.setswitchinterval(interval)


def test_the_limit_of_open_files_is_raised_to_the_hard_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        cli_process.raise_open_files_limit()
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert (raised[0] > 512, raised[1]) == (True, hard)
        cli_process.raise_open_files_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == raised
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
