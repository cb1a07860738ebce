"""Notifications on a real socket, and passed sockets."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from exporter.agent import systemd
from exporter.agent.systemd import (
    Notifier,
    PassedError,
    notifier,
    passed_descriptors,
    passed_listeners,
)

PID = 4711


@contextlib.contextmanager
def notify_socket(address: str) -> Iterator[socket.socket]:
    """A service manager's socket at a path, or at an abstract name after an @."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        bound.settimeout(5)
        yield bound


def received(bound: socket.socket) -> list[str]:
    return bound.recv(4096).decode().split("\n")


@pytest.fixture(params=["path", "abstract"])
def address(request, tmp_path):
    return str(tmp_path / "notify") if request.param == "path" else f"@cartesia-{os.getpid()}"


def test_each_notification_is_one_datagram(address):
    with notify_socket(address) as bound:
        sender = Notifier(address, 30.0)
        sender.ready("polling 2 accounts")
        assert received(bound) == ["READY=1", "STATUS=polling 2 accounts"]
        sender.status("running")
        assert received(bound) == ["STATUS=running"]
        sender.alive()
        assert received(bound) == ["WATCHDOG=1"]
        sender.stopping()
        assert received(bound) == ["STOPPING=1", "STATUS=stopping"]


def test_a_reload_notification_has_the_monotonic_time(tmp_path):
    with notify_socket(str(tmp_path / "notify")) as bound:
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        Notifier(str(tmp_path / "notify")).reloading()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        state, at = received(bound)
        assert state == "RELOADING=1"
        assert before <= int(at.removeprefix("MONOTONIC_USEC=")) <= after


def test_a_status_cannot_contain_other_assignments(tmp_path):
    with notify_socket(str(tmp_path / "notify")) as bound:
        Notifier(str(tmp_path / "notify")).status("a\nREADY=1\r\x00" + "x" * 5000)
        [line] = received(bound)
        assert line.startswith("STATUS=a READY=1 x")
        assert len(line) < 300


def test_without_a_service_manager_nothing_is_sent():
    with capture_logs() as logs:
        sender = notifier({}, PID)
        sender.ready("x")
        sender.reloading()
        sender.status("x")
        sender.alive()
        sender.stopping()
    assert (logs, sender.watchdog_timeout) == ([], None)


def test_a_missing_socket_is_logged_once(tmp_path):
    with capture_logs() as logs:
        sender = Notifier(str(tmp_path / "none"), 30.0)
        for _ in range(3):
            sender.alive()
    [line] = logs
    assert line["log_level"] == "warning"
    assert "No such file" in line["error"]


def test_an_invalid_address_is_logged(tmp_path):
    with capture_logs() as logs:
        Notifier(f"/{'x' * 200}").ready("x")
    assert [each["log_level"] for each in logs] == ["warning"]


def test_a_service_manager_that_does_not_read_does_not_block(tmp_path):
    with notify_socket(str(tmp_path / "notify")), capture_logs() as logs:
        sender = Notifier(str(tmp_path / "notify"), 30.0)
        began = time.monotonic()
        while not logs:
            sender.alive()
            assert time.monotonic() - began < 10
        assert "timed out" in logs[0]["error"]


@pytest.mark.parametrize(
    ("watchdog", "timeout"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID)}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "9" * 10_000}, None),
        ({"WATCHDOG_USEC": "1"}, 0.1),
    ],
)
def test_the_watchdog_timeout_is_used_if_it_is_for_this_process(watchdog, timeout):
    environ = {"NOTIFY_SOCKET": "/run/x", **watchdog, "HOME": "/"}
    assert notifier(environ, PID).watchdog_timeout == timeout
    assert environ == {"HOME": "/"}
    assert notifier(dict(watchdog), PID).watchdog_timeout is None


def test_an_unsupported_address_is_ignored():
    with capture_logs() as logs:
        sender = notifier({"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "30000000"}, PID)
        sender.alive()
    assert sender.watchdog_timeout is None
    assert ["NOTIFY_SOCKET" in each["event"] for each in logs] == [True]


@pytest.mark.parametrize(
    ("passed", "descriptors"),
    [
        ({"LISTEN_PID": str(PID), "LISTEN_FDS": "1"}, [3]),
        ({"LISTEN_PID": str(PID), "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c"}, [3, 4, 5]),
        ({"LISTEN_PID": "1", "LISTEN_FDS": "1"}, []),
        ({"LISTEN_FDS": "1"}, []),
        ({"LISTEN_PID": str(PID)}, []),
        ({"LISTEN_PID": str(PID), "LISTEN_FDS": "0"}, []),
        ({"LISTEN_PID": str(PID), "LISTEN_FDS": "-1"}, []),
        ({"LISTEN_PID": str(PID), "LISTEN_FDS": "many"}, []),
        ({}, []),
    ],
)
def test_descriptors_passed_to_this_process_start_at_three(passed, descriptors):
    environ = {**passed, "HOME": "/"}
    assert list(passed_descriptors(environ, PID)) == descriptors
    assert environ == {"HOME": "/"}


def test_a_passed_socket_is_used_and_not_inherited():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.set_inheritable(listener.fileno(), True)
        number = os.dup(listener.fileno())
        os.set_inheritable(number, True)
        [passed] = passed_listeners(range(number, number + 1))
        with passed:
            assert passed.getsockname() == listener.getsockname()
            assert not passed.get_inheritable()
            # asyncio sets TCP_NODELAY only for a socket with a protocol.
            assert passed.proto == socket.IPPROTO_TCP


def test_a_unix_socket_is_used(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "web"))
        listener.listen()
        number = os.dup(listener.fileno())
        [passed] = passed_listeners(range(number, number + 1))
        passed.close()


@pytest.mark.parametrize("socket_type", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_that_does_not_listen_is_refused_and_stays_open(socket_type):
    with socket.socket(socket.AF_INET, socket_type) as listener:
        listener.bind(("127.0.0.1", 0))
        number = listener.fileno()
        with pytest.raises(PassedError, match=f"{number} is not a listening stream socket"):
            passed_listeners(range(number, number + 1))
        assert listener.getsockname()


def test_if_one_socket_is_refused_the_others_are_closed():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as other:
        first = os.dup2(listener.fileno(), 200)
        os.dup2(other.fileno(), 201)
        with pytest.raises(PassedError, match="201"):
            passed_listeners(range(first, 202))
        os.close(201)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.close(first)


def test_descriptors_that_are_no_sockets_are_refused(tmp_path):
    with (tmp_path / "file").open("w") as file, pytest.raises(PassedError, match="is not a socket"):
        passed_listeners(range(file.fileno(), file.fileno() + 1))
    with pytest.raises(PassedError, match="no socket was passed"):
        passed_listeners(range(3, 3))


def test_a_child_process_inherits_no_variables(monkeypatch):
    variables = {
        "NOTIFY_SOCKET": "/run/x",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "LISTEN_PID": "1",
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "x",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    systemd.notifier(os.environ, PID)
    systemd.passed_descriptors(os.environ, PID)
    code = "import os; print(*os.environ)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not re.search("NOTIFY|WATCHDOG|LISTEN", child.stdout)
