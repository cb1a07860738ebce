"""Starts of the command by a server that has imported it and forks."""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

AFTER_IMPORTS = "TESTS_INJECTED_AFTER_IMPORTS"
"""The variable with the path of code that a process runs before it runs the command."""

_COVERAGE = "COVERAGE_"
_LONGEST_ANSWER = 20


class ForkedProcess:
    """A process of a command `python -m …`; it has the methods of Popen that tests use.

    ``streams`` are descriptors of standard input, output and error, which the caller may close.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        env: Mapping[str, str],
        streams: Sequence[int],
    ) -> None:
        _, _, module, *arguments = command
        request = {
            "module": module,
            "arguments": arguments,
            "folder": str(folder),
            "environment": dict(env),
        }
        self._watched, watcher = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with watcher:
            socket.send_fds(_server(), [json.dumps(request).encode()], [*streams, watcher.fileno()])
        self.pid = self._answer()
        self._status: int | None = None
        self._lock = threading.Lock()

    def _answer(self) -> int:
        answer = self._watched.recv(_LONGEST_ANSWER)
        assert answer, "the server of processes has ended"
        return int(answer)

    def wait(self, timeout: float) -> int:
        """Return the exit status; negative for a signal. Raises subprocess.TimeoutExpired."""
        with self._lock:
            if self._status is None:
                self._watched.settimeout(timeout)
                try:
                    self._status = self._answer()
                except (TimeoutError, BlockingIOError):
                    raise subprocess.TimeoutExpired("cartesia-exporter", timeout) from None
                self._watched.close()
            return self._status

    def poll(self) -> int | None:
        """Return the exit status, None while the process runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, unless the process has ended."""
        self.send_signal(signal.SIGKILL)


def is_forkable(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """Return whether a command needs no interpreter that starts with ``env``."""
    expected = _environment()
    names = {name for name in env if name.startswith(("PYTHON", "LD_", "LANG", _COVERAGE))}
    if AFTER_IMPORTS in env:
        names -= {"PYTHONPATH"}
    same = all(env[name] == expected.get(name) for name in names)
    return same and list(command[:2]) == [sys.executable, "-m"]


def _environment() -> dict[str, str]:
    """Return the environment of the server.

    Without coverage, which begins with an interpreter: a process to be measured is not forked.
    """
    from tests.process.agent_process import ROOT, environment

    whole = environment(ROOT).items()
    return {name: text for name, text in whole if not name.startswith(_COVERAGE)}


_starting = threading.Lock()


def _server() -> socket.socket:
    with _starting:  # tests start processes in several threads
        return _connection()


@cache
def _connection() -> socket.socket:
    """Return a connection to the server, which this or another worker of the tests has started.

    It ends when the last worker has.
    """
    from tests.process.agent_process import until

    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", os.getpid())
    address = f"\0tests of cartesia-exporter {run}"  # an abstract one, which is no file
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        try:
            listener.bind(address)
        except OSError:  # another worker was first, and may not listen yet
            until(lambda: connection.connect_ex(address) == 0)
        else:
            listener.listen()
            connection.connect(address)  # the server ends without a client
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.process.fork_server", str(listener.fileno())],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
            )
            atexit.register(process.wait)
    atexit.register(connection.close)  # what is registered last runs first: before the wait
    return connection
