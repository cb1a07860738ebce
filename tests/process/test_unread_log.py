"""A log whose reader stalls or is gone, and a log on a full disk: the agent does not notice."""

import contextlib
import fcntl
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.process.agent_process import (
    MODULE,
    NO_AUTHORITIES,
    NO_INPUT,
    Agent,
    environment,
    get,
    injected,
    start,
    until,
)
from tests.process.fake_api import agent_config, fake_api, webhook
from tests.process.forked import ForkedProcess

pytestmark = pytest.mark.usefixtures("unmeasured")

FEW_LINES_WAIT = "import exporter.logs; exporter.logs._MAX_WAITING_LINES = 20"
DROPPED = "cartesia_exporter_log_lines_dropped_total"


class Log:
    """A pipe with room for 4096 bytes as the standard error of a process."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)
        self.text = ""

    def wait_for(self, pattern: str, seconds: float = 20) -> re.Match[str]:
        """Read until the pattern matches."""
        os.set_blocking(self.reader, False)

        def found() -> re.Match[str] | None:
            with contextlib.suppress(BlockingIOError):
                self.text += os.read(self.reader, 65536).decode()
            return re.search(pattern, self.text)

        until(found, seconds)
        match = found()
        assert match is not None
        return match


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    yield log
    with contextlib.suppress(OSError):
        os.close(log.reader)


@contextlib.contextmanager
def logging_to(
    descriptor: int, folder: Path, agent: Agent, **env: str
) -> Iterator["subprocess.Popen[bytes] | ForkedProcess"]:
    flags = [f"--config.file={agent.file}", "--web.listen-address=127.0.0.1:0"]
    command = [*MODULE, *flags, "--web.enable-lifecycle"]
    with (folder / "output").open("wb") as output:
        process = start(
            command, folder, environment(folder, **env), (NO_INPUT, output.fileno(), descriptor)
        )
    os.close(descriptor)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def refuse_reloads(url: str, agent: Agent, times: int = 4) -> None:
    """Have the agent log 50 lines for each of several reloads, and wait for its answers."""
    agent.file.write_text("".join(f"unknown_{n}: 1\n" for n in range(50)), encoding="utf-8")
    for _ in range(times):
        answer = httpx.post(f"{url}/-/reload", verify=NO_AUTHORITIES, trust_env=False, timeout=10)
        assert answer.status_code == 500


def dropped_lines(url: str) -> float:
    [value] = re.findall(rf"^{DROPPED} (\S+)$", get(f"{url}/metrics").text, re.MULTILINE)
    return float(value)


def test_a_stalled_reader_stops_neither_the_agent_nor_its_end(tmp_path, log):
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        few = injected(tmp_path, FEW_LINES_WAIT)
        with logging_to(log.writer, tmp_path, agent, **few) as process:
            url = log.wait_for(r"msg=listening addresses=(\S+)")[1]
            log.wait_for("baseline taken")
            assert dropped_lines(url) == 0
            refuse_reloads(url, agent)
            assert get(f"{url}/-/healthy").status_code == 200
            until(lambda: dropped_lines(url) > 100)
            api.world.add(status="failed")
            inbox.wait_for(1)
            refuse_reloads(url, agent)
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
            assert time.monotonic() - begun < 8


def test_a_reader_that_returns_learns_how_many_lines_were_dropped(tmp_path, log):
    with fake_api() as (api, _):
        agent = Agent(tmp_path, **agent_config(api))
        few = injected(tmp_path, FEW_LINES_WAIT)
        with logging_to(log.writer, tmp_path, agent, **few) as process:
            url = log.wait_for(r"msg=listening addresses=(\S+)")[1]
            log.wait_for("baseline taken")
            refuse_reloads(url, agent)
            until(lambda: dropped_lines(url) > 0)
            log.wait_for(r"level=warning .*log lines were dropped.* lines=\d+\n")

            def all_are_reported() -> bool:
                log.wait_for("")
                reported = re.findall(r"log lines were dropped.* lines=(\d+)\n", log.text)
                return sum(map(int, reported)) == dropped_lines(url)

            until(all_are_reported)
            process.send_signal(signal.SIGTERM)
            log.wait_for("msg=stopped")
            assert process.wait(10) == 0


def test_a_reader_that_is_gone_stops_nothing(tmp_path, log):
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        with logging_to(log.writer, tmp_path, agent) as process:
            url = log.wait_for(r"msg=listening addresses=(\S+)")[1]
            log.wait_for("baseline taken")
            os.close(log.reader)
            refuse_reloads(url, agent)
            until(lambda: dropped_lines(url) >= 200)
            api.world.add(status="failed")
            inbox.wait_for(1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
def test_a_log_on_a_full_disk_stops_nothing(tmp_path):
    full = tmp_path / "full"
    os.mknod(full, 0o600 | stat.S_IFCHR, os.makedev(1, 7))
    with fake_api() as (api, inbox):
        api.world.add(status="completed")
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        try:
            descriptor = os.open(full, os.O_WRONLY)
        except PermissionError:
            pytest.skip("devices cannot be used here")
        with logging_to(descriptor, tmp_path, agent) as process:
            until(lambda: api.request_count > 2)
            api.world.add(status="failed")
            inbox.wait_for(1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


BUG = """
import exporter.polling.poller as poller

async def run(self, stop):
    raise ValueError("the bug" + "." * 9000)

poller.Poller.run = run
"""


def test_a_bug_ends_the_process_and_its_traceback_is_logged(tmp_path, log):
    with fake_api() as (api, _):
        agent = Agent(tmp_path, **agent_config(api))
        with logging_to(log.writer, tmp_path, agent, **injected(tmp_path, BUG)) as process:
            log.wait_for(r"a bug ends the process(.|\n)*ValueError: the bug\.{9000}\n")
            assert process.wait(10) == 1


def test_a_bug_ends_the_process_although_nobody_reads_its_traceback(tmp_path, log):
    with fake_api() as (api, _):
        agent = Agent(tmp_path, **agent_config(api))
        with logging_to(log.writer, tmp_path, agent, **injected(tmp_path, BUG)) as process:
            assert process.wait(20) == 1
