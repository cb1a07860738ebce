"""What is said on a real notification socket, and which passed sockets are taken."""

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
def manager(address: str) -> Iterator[socket.socket]:
    """A service manager's socket at a path, or at an abstract name behind an @."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        bound.settimeout(5)
        yield bound


def heard(bound: socket.socket) -> list[str]:
    return bound.recv(4096).decode().split("\n")


@pytest.fixture(params=["path", "abstract"])
def address(request, tmp_path):
    return str(tmp_path / "notify") if request.param == "path" else f"@cartesia-{os.getpid()}"


def test_each_word_is_one_datagram_as_sd_notify_has_it(address):
    with manager(address) as bound:
        told = Notifier(address, 30.0)
        told.ready("polling 2 accounts")
        assert heard(bound) == ["READY=1", "STATUS=polling 2 accounts"]
        told.status("well")
        assert heard(bound) == ["STATUS=well"]
        told.alive()
        assert heard(bound) == ["WATCHDOG=1"]
        told.stopping()
        assert heard(bound) == ["STOPPING=1", "STATUS=stopping"]


def test_a_reload_says_when_it_began_by_the_managers_clock(tmp_path):
    with manager(str(tmp_path / "notify")) as bound:
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        Notifier(str(tmp_path / "notify")).reloading()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        word, at = heard(bound)
        assert word == "RELOADING=1"
        assert before <= int(at.removeprefix("MONOTONIC_USEC=")) <= after


def test_a_status_is_one_line_and_no_other_word(tmp_path):
    with manager(str(tmp_path / "notify")) as bound:
        Notifier(str(tmp_path / "notify")).status("a\nREADY=1\r\x00" + "x" * 5000)
        [line] = heard(bound)
        assert line.startswith("STATUS=a READY=1 x")
        assert len(line) < 300


def test_without_a_manager_nothing_is_said_and_nothing_fails():
    with capture_logs() as logs:
        told = notifier({}, PID)
        told.ready("x")
        told.reloading()
        told.status("x")
        told.alive()
        told.stopping()
    assert (logs, told.patience) == ([], None)


def test_a_manager_that_is_gone_is_logged_once(tmp_path):
    with capture_logs() as logs:
        told = Notifier(str(tmp_path / "none"), 30.0)
        for _ in range(3):
            told.alive()
    [said] = logs
    assert said["log_level"] == "warning"
    assert "No such file" in said["error"]


def test_an_address_that_no_socket_can_have_ends_nothing(tmp_path):
    with capture_logs() as logs:
        Notifier(f"/{'x' * 200}").ready("x")
    assert [each["log_level"] for each in logs] == ["warning"]


def test_a_manager_that_does_not_read_holds_nobody_up(tmp_path):
    with manager(str(tmp_path / "notify")), capture_logs() as logs:
        told = Notifier(str(tmp_path / "notify"), 30.0)
        began = time.monotonic()
        while not logs:
            told.alive()
            assert time.monotonic() - began < 10
        assert "timed out" in logs[0]["error"]


@pytest.mark.parametrize(
    ("watchdog", "patience"),
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
def test_the_watchdog_is_fed_if_it_waits_for_this_process(watchdog, patience):
    environ = {"NOTIFY_SOCKET": "/run/x", **watchdog, "HOME": "/"}
    assert notifier(environ, PID).patience == patience
    assert environ == {"HOME": "/"}
    assert notifier(dict(watchdog), PID).patience is None


def test_nobody_is_told_where_the_address_is_of_another_kind():
    with capture_logs() as logs:
        told = notifier({"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "30000000"}, PID)
        told.alive()
    assert told.patience is None
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
def test_what_was_passed_to_this_process_is_counted_from_three(passed, descriptors):
    environ = {**passed, "HOME": "/"}
    assert list(passed_descriptors(environ, PID)) == descriptors
    assert environ == {"HOME": "/"}


def test_a_passed_socket_is_taken_as_it_is_and_not_inherited():
    with socket.create_server(("127.0.0.1", 0)) as made:
        os.set_inheritable(made.fileno(), True)
        number = os.dup(made.fileno())
        os.set_inheritable(number, True)
        [taken] = passed_listeners(range(number, number + 1))
        with taken:
            assert taken.getsockname() == made.getsockname()
            assert not taken.get_inheritable()
            # asyncio switches Nagle's delay off only for a socket that knows its protocol.
            assert taken.proto == socket.IPPROTO_TCP


def test_a_socket_of_the_file_system_is_taken(tmp_path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "web"))
        made.listen()
        number = os.dup(made.fileno())
        [taken] = passed_listeners(range(number, number + 1))
        taken.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_that_does_not_listen_is_refused_and_left_open(kind):
    with socket.socket(socket.AF_INET, kind) as made:
        made.bind(("127.0.0.1", 0))
        number = made.fileno()
        with pytest.raises(PassedError, match=f"{number} is no stream socket that listens"):
            passed_listeners(range(number, number + 1))
        assert made.getsockname()


def test_beside_one_that_is_refused_none_is_kept():
    with socket.create_server(("127.0.0.1", 0)) as made, socket.socket() as other:
        first = os.dup2(made.fileno(), 200)
        os.dup2(other.fileno(), 201)
        with pytest.raises(PassedError, match="201"):
            passed_listeners(range(first, 202))
        os.close(201)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.close(first)


def test_what_is_no_socket_is_named(tmp_path):
    with (tmp_path / "file").open("w") as file, pytest.raises(PassedError, match="is no socket"):
        passed_listeners(range(file.fileno(), file.fileno() + 1))
    with pytest.raises(PassedError, match="no socket was passed"):
        passed_listeners(range(3, 3))


def test_a_child_process_inherits_nothing_of_it(monkeypatch):
    given = {
        "NOTIFY_SOCKET": "/run/x",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "LISTEN_PID": "1",
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "x",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    systemd.notifier(os.environ, PID)
    systemd.passed_descriptors(os.environ, PID)
    code = "import os; print(*os.environ)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not re.search("NOTIFY|WATCHDOG|LISTEN", child.stdout)
