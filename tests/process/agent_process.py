"""Runs the command as a process and reads its output."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import ssl
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.process.forked import AFTER_IMPORTS, ForkedProcess, is_forkable

ROOT = Path(__file__).parents[2]
API_KEY = "sk_car_test.Zq7wKeyThatMustNotLeak"
MODULE = (sys.executable, "-m", "exporter")
INSTALLED = (str(Path(sys.executable).with_name("cartesia-exporter")),)
NO_INPUT = os.open(os.devnull, os.O_RDONLY)

NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of HTTP only: to load the authorities of the system takes 40 ms for each client."""


class Agent:
    """The configuration and state of an agent, which a test can start several times."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder = folder
        self.state = folder / "state.db"
        self.file = folder / "config.yaml"
        content = {"storage": {"path": str(self.state)}, **config}
        self.file.write_text(json.dumps(content), encoding="utf-8")

    @contextlib.contextmanager
    def process(
        self, *arguments: str, command: Sequence[str] = MODULE, **env: str
    ) -> Iterator["Process"]:
        """Start the agent on any free port; kill it at the end if it still runs."""
        flags = (f"--config.file={self.file}", "--web.listen-address=127.0.0.1:0")
        with started(self.folder, *flags, *arguments, command=command, **env) as process:
            yield process


class Process:
    """A running command and the lines of its standard output and error."""

    def __init__(self, command: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        self.output_lines: list[str] = []
        self._changed = threading.Condition()
        readable, output = os.pipe()
        self._stdout = os.fdopen(readable, errors="surrogateescape", encoding="utf-8")
        try:
            self._process = start(command, folder, env, (NO_INPUT, output, output))
        finally:
            os.close(output)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._stdout:
            with self._changed:
                self.output_lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        with self._changed:
            return "\n".join(self.output_lines)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_for_line(self, pattern: str, seconds: float = 45, times: int = 1) -> re.Match[str]:
        """Return the match of the ``times``-th line that contains the pattern."""

        def matches() -> list[re.Match[str]]:
            return [m for m in (re.search(pattern, line) for line in self.output_lines) if m]

        with self._changed:
            if not self._changed.wait_for(lambda: len(matches()) >= times, seconds):
                raise AssertionError(
                    f"{pattern!r} was not printed {times} times within {seconds} s by a process "
                    f"that {'runs' if self.is_running else 'ended'} and printed:\n"
                    + "\n".join(self.output_lines)
                )
            return matches()[times - 1]

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float = 10) -> int:
        """Wait for the process to end, and return its exit status."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still runs after {seconds} s:\n{self.output}") from None
        self._reader.join(5)
        return status

    def stop(self, number: int = signal.SIGTERM, seconds: float = 10) -> int:
        """Send a signal, wait for the process to end, and return its exit status."""
        self.send_signal(number)
        return self.wait(seconds)

    def kill(self) -> None:
        """Send SIGKILL if the process still runs."""
        self._process.kill()
        self._process.wait(10)
        self._reader.join(5)
        self._stdout.close()


@contextlib.contextmanager
def started(
    folder: Path, *arguments: str, command: Sequence[str] = MODULE, **env: str
) -> Iterator[Process]:
    """Start the command in a folder; kill it at the end if it still runs."""
    process = Process([*command, *arguments], folder, environment(folder, **env))
    try:
        yield process
    finally:
        process.kill()


def run(
    folder: Path, *arguments: str, command: Sequence[str] = MODULE, **env: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command that ends by itself."""
    whole = [*command, *arguments]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        streams = NO_INPUT, output.fileno(), errors.fileno()
        process = start(whole, folder, environment(folder, **env), streams)
        try:
            status = process.wait(60)
        finally:
            process.kill()
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(whole, status, output.read(), errors.read())


def start(
    command: Sequence[str], folder: Path, env: Mapping[str, str], streams: Sequence[int]
) -> "subprocess.Popen[bytes] | ForkedProcess":
    """Start a command; fork it, if that makes no difference to it.

    ``streams`` are descriptors of standard input, output and error.
    """
    if is_forkable(command, env):
        return ForkedProcess(command, folder, env, streams)
    given, output, errors = streams
    return subprocess.Popen(command, cwd=folder, env=env, stdin=given, stdout=output, stderr=errors)


def run_in_terminal(folder: Path, columns: int, *arguments: str) -> str:
    """Run a command that ends by itself; return all that a terminal of this width gets."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = environment(folder, TERM="xterm-256color")
    process = start([*MODULE, *arguments], folder, env, [slave] * 3)
    os.close(slave)
    output = b""
    deadline = time.monotonic() + 30
    with contextlib.suppress(OSError):  # raised when the process has ended
        while time.monotonic() < deadline:
            if select.select([master], [], [], 1)[0]:
                output += os.read(master, 65536)
    os.close(master)
    assert process.wait(10) == 0
    return output.decode()


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a process: nothing of this machine, but coverage's variables.

    The process runs the code that the tests belong to, also from a second working tree.
    """
    path = [variables.pop("PYTHONPATH", ""), str(ROOT)]
    coverage = {name: text for name, text in os.environ.items() if name.startswith("COVERAGE_")}
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "PYTHONWARNINGS": "error",
        "CARTESIA_API_KEY": API_KEY,
        **coverage,
        **variables,
    }


def injected(folder: Path, code: str) -> dict[str, str]:
    """Return the environment of a process that runs ``code`` before its own.

    In a process that is forked, the command is imported already.
    """
    injected_folder = folder / "injected"
    injected_folder.mkdir(exist_ok=True)
    file = injected_folder / "sitecustomize.py"
    file.write_text(code, encoding="utf-8")
    return {"PYTHONPATH": str(injected_folder), AFTER_IMPORTS: str(file)}


def url_of(process: Process) -> str:
    return process.wait_for_line(r"msg=listening addresses=(\S+)").group(1)


def get(url: str, **headers: str) -> httpx.Response:
    with httpx.Client(verify=NO_AUTHORITIES, trust_env=False, timeout=10) as client:
        return client.get(url, headers=headers)


@contextlib.contextmanager
def repeated(work: Callable[[], object], seconds: float) -> Iterator[None]:
    """Call ``work`` with pauses of so many seconds, in a thread, until the context ends."""
    end = threading.Event()

    def call() -> None:
        while not end.wait(seconds):
            work()

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def until(condition: Callable[[], object], seconds: float = 45, pause: float = 0.02) -> None:
    """Wait until the condition holds; a transport error of httpx counts as false."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if condition():
                return
        time.sleep(pause)
    raise AssertionError(f"the condition did not hold within {seconds} s")
