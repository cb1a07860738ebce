"""The command as a process: started, watched line by line, and always ended."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

KEY = "sk_car_test.Zq7wKeyThatMustNotLeak"
MODULE = (sys.executable, "-m", "exporter")
INSTALLED = (str(Path(sys.executable).with_name("cartesia-exporter")),)


def environment(folder: Path, **more: str) -> dict[str, str]:
    """What a test's process sees of the world: nothing of the machine that it runs on.

    Except for what coverage tells the processes that it measures.
    """
    measured = {name: text for name, text in os.environ.items() if name.startswith("COVERAGE_")}
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONWARNINGS": "error",
        "CARTESIA_API_KEY": KEY,
        **measured,
        **more,
    }


class Process:
    """A running command, and every line that it wrote to standard output and error."""

    def __init__(self, command: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        self.lines: list[str] = []
        self._said = threading.Condition()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="surrogateescape",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._said:
                self.lines.append(line.rstrip("\n"))
                self._said.notify_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def text(self) -> str:
        with self._said:
            return "\n".join(self.lines)

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def line(self, pattern: str, seconds: float = 20, times: int = 1) -> re.Match[str]:
        """Wait for the ``times``-th line that has the pattern."""

        def found() -> list[re.Match[str]]:
            return [m for m in (re.search(pattern, line) for line in self.lines) if m]

        with self._said:
            if not self._said.wait_for(lambda: len(found()) >= times, seconds):
                raise AssertionError(
                    f"{pattern!r} was not said {times} times within {seconds} s; the process "
                    f"{'runs' if self.runs else 'ended'} and said:\n" + "\n".join(self.lines)
                )
            return found()[times - 1]

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self, seconds: float = 10) -> int:
        """Wait until it has ended by itself, and return its status."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still runs after {seconds} s:\n{self.text}") from None
        self._reader.join(5)
        return status

    def stop(self, number: int = signal.SIGTERM, seconds: float = 10) -> int:
        self.send(number)
        return self.end(seconds)

    def kill(self) -> None:
        """End it as a power cut would, if it still runs."""
        self._process.kill()
        self._process.wait(10)
        self._reader.join(5)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def started(
    folder: Path, *arguments: str, command: Sequence[str] = MODULE, **env: str
) -> Iterator[Process]:
    """Start the command in a folder; it has ended when this ends."""
    process = Process([*command, *arguments], folder, environment(folder, **env))
    try:
        yield process
    finally:
        process.kill()


class Agent:
    """The agent of a configuration: started as often as a test needs."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder = folder
        self.state = folder / "state.db"
        self.file = folder / "config.yaml"
        whole = {"storage": {"path": str(self.state)}, **config}
        self.file.write_text(json.dumps(whole), encoding="utf-8")

    @contextlib.contextmanager
    def process(self, *arguments: str, **env: str) -> Iterator[Process]:
        flags = (f"--config.file={self.file}", "--web.listen-address=127.0.0.1:0")
        with started(self.folder, *flags, *arguments, **env) as process:
            yield process


def url_of(process: Process) -> str:
    return process.line(r"msg=listening addresses=(\S+)").group(1)


def get(url: str, **headers: str) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=10) as client:
        return client.get(url, headers=headers)


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until the condition holds; an answer that does not come is no answer yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if condition():
                return
        time.sleep(0.02)
    raise AssertionError(f"the condition did not hold within {seconds} s")


def run(folder: Path, *arguments: str, command: Sequence[str] = MODULE, **env: str) -> Any:
    """Run a command that ends by itself; return what `subprocess.run` returns, output as text."""
    return subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env=environment(folder, **env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
