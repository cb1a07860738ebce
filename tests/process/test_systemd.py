"""A real agent under systemd: notifications, watchdog and passed sockets."""

import contextlib
import signal
import socket
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.process.agent_process import INSTALLED, MODULE, Agent, environment, get, run, started
from tests.process.fake_api import agent_config, fake_api, webhook
from tests.programs import required
from tests.web.authenticated_server import WebConfigFixture

# Passes sockets as systemd does: descriptors from 3 on, and variables with the process id.
LAUNCHER = """
import os, socket, sys
count = int(sys.argv[1])
tcp = socket.create_server(("127.0.0.1", 0))
unix = socket.socket(socket.AF_UNIX)
unix.bind(sys.argv[2])
unix.listen()
copies = [os.dup2(each.fileno(), 20 + number) for number, each in enumerate((tcp, unix))]
for number, each in enumerate(copies):
    os.dup2(each, 3 + number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": "a:b"}
os.execv(sys.argv[3], sys.argv[3:])
"""


class ServiceManager:
    """Receives the notifications of a service."""

    def __init__(self, bound: socket.socket) -> None:
        self._bound = bound
        self.received: list[str] = []

    def wait_for(self, message: str, seconds: float = 20) -> None:
        """Wait for a message; those received before do not count."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                messages = self._bound.recv(4096).decode().split("\n")
                self.received += messages
                if message in messages:
                    return
        raise AssertionError(
            f"{message} was not received within {seconds} s, only {self.received[-9:]}"
        )

    def assert_silent(self, seconds: float) -> None:
        """Drop what is queued, and expect no message for so long."""
        self._bound.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._bound.recv(4096)
        self._bound.settimeout(seconds)
        with pytest.raises(TimeoutError):
            self._bound.recv(4096)


@pytest.fixture
def manager(tmp_path) -> Iterator[ServiceManager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(0.5)
        yield ServiceManager(bound)


def test_systemd_is_notified_and_its_sockets_are_served(tmp_path, manager):
    notify = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
    path = tmp_path / "web.sock"
    launcher = (sys.executable, "-c", LAUNCHER, "2", str(path), *INSTALLED)
    with fake_api() as (api, inbox):
        # With a receiver: without one the agent warns that nobody is notified.
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        flags = (f"--config.file={agent.file}", "--web.systemd-socket")
        with started(tmp_path, *flags, command=launcher, **notify) as process:
            manager.wait_for("READY=1")
            assert "STATUS=running" in manager.received
            url, unix = process.wait_for_line(r'msg=listening addresses="(\S+) (\S+)"').groups()
            assert unix == f"unix:{path}"
            for _ in range(3):
                manager.wait_for("WATCHDOG=1")
            assert get(f"{url}/-/healthy").status_code == 200
            transport = httpx.HTTPTransport(uds=str(path))
            with httpx.Client(transport=transport, base_url="http://agent") as client:
                assert client.get("/metrics").status_code == 200
                assert "8 of 8 parts are on time" in client.get("/-/healthy").text
            done = run(tmp_path, "health", f"--url={url}/-/healthy", command=INSTALLED)
            assert done.returncode == 0
            assert done.stdout == "cartesia-exporter is healthy: 8 of 8 parts are on time.\n"
            process.send_signal(signal.SIGHUP)
            manager.wait_for("RELOADING=1")
            assert manager.received[-1].startswith("MONOTONIC_USEC=")
            manager.wait_for("READY=1")
            assert manager.received[-1] == "STATUS=reloaded"
            process.send_signal(signal.SIGSTOP)  # as if the event loop hung
            manager.assert_silent(1.5)
            process.send_signal(signal.SIGCONT)
            manager.wait_for("WATCHDOG=1")
            assert process.stop() == 0
            manager.wait_for("STOPPING=1")
            assert process.output_lines[-1].endswith("msg=stopped")
            assert "warning" not in process.output


def test_a_missing_or_wrong_socket_is_refused(tmp_path):
    with fake_api() as (api, _):
        agent = Agent(tmp_path, **agent_config(api))
        flags = (f"--config.file={agent.file}", "--web.systemd-socket")
        done = run(tmp_path, *flags)
        assert done.returncode == 2
        assert done.stderr == (
            "cartesia-exporter: --web.systemd-socket cannot be used: no socket was passed "
            "(LISTEN_FDS); start the service with a systemd socket unit\n"
        )
        launcher = (sys.executable, "-c", LAUNCHER, "3", str(tmp_path / "web.sock"), *MODULE)
        done = run(tmp_path, *flags, command=launcher)
        assert done.returncode == 2
        assert "file descriptor 5 is no" in done.stderr
        assert "Traceback" not in done.stderr
        assert not agent.state.exists()


def test_unused_passed_sockets_are_a_warning(tmp_path):
    with fake_api() as (api, _):
        agent = Agent(tmp_path, **agent_config(api))
        launcher = (sys.executable, "-c", LAUNCHER, "1", str(tmp_path / "web.sock"), *MODULE)
        flags = (f"--config.file={agent.file}", "--web.listen-address=127.0.0.1:0")
        with started(tmp_path, *flags, command=launcher) as process:
            process.wait_for_line("level=warning .*passed sockets are ignored.*number=1")
            process.wait_for_line("msg=listening addresses=http://127")
            assert process.stop() == 0


@pytest.mark.usefixtures("unmeasured")
def test_systemd_socket_activate_starts_the_agent_at_the_first_request_over_tls(tmp_path):
    program = required("systemd-socket-activate", package="systemd")
    file = WebConfigFixture(tmp_path)
    file.write(tls_server_config=file.issue("agent.example"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with fake_api() as (api, _):
        agent = Agent(tmp_path, **agent_config(api))
        flags = (f"--config.file={agent.file}", f"--web.config.file={file.path}")
        passed = [f"--setenv={name}" for name in environment(tmp_path)]
        command = (program, f"--listen=127.0.0.1:{port}", *passed, *INSTALLED)
        with started(tmp_path, *flags, "--web.systemd-socket", command=command) as process:
            process.wait_for_line("Listening on")
            url = f"https://127.0.0.1:{port}/-/healthy"
            done = run(tmp_path, "health", f"--url={url}", "--insecure")
            assert (done.returncode, done.stderr) == (0, "")
            done = run(tmp_path, "health", f"--url={url}")
            assert done.returncode == 1
            assert "certificate is not trusted" in done.stderr
            process.wait_for_line(f"msg=listening addresses=https://127.0.0.1:{port}")
            assert process.stop() == 0
