"""What systemd, or who speaks as it does, hands to a service and is told by it.

The facts are those of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3). What is read is
taken out of the environment, so that no child process takes it for its own.
"""

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import ExitStack
from typing import Final

import structlog

from exporter.core.text import one_line, os_error_text

_FIRST_PASSED: Final = 3
_MOST_PASSED: Final = 1024
_SEND_SECONDS: Final = 0.2
_LEAST_PATIENCE: Final = 0.1
_STATUS_LENGTH: Final = 200

log = structlog.get_logger()


class Notifier:
    """Tells the service manager how the service is; without an address it tells nobody.

    That it cannot be told ends nothing, and is logged once. ``patience`` is after how many seconds
    without ``alive`` it ends the service, None for never.
    """

    def __init__(self, address: str = "", patience: float | None = None) -> None:
        self.patience = patience if address else None
        self._address = address
        self._failed = False

    def ready(self, status: str) -> None:
        """Say that the service has started, or that it has reloaded."""
        self._tell("READY=1", _status(status))

    def reloading(self) -> None:
        """Say that a reload begins; ``ready`` says that it is over, however it ended."""
        # By CLOCK_MONOTONIC, as Type=notify-reload asks for: it tells this reload from one before.
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._tell("STOPPING=1", _status("stopping"))

    def status(self, text: str) -> None:
        """Say in one line how it is."""
        self._tell(_status(text))

    def alive(self) -> None:
        """Say that all is well, if the watchdog is on."""
        if self.patience is not None:
            self._tell("WATCHDOG=1")

    def _tell(self, *assignments: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_SEND_SECONDS)
                sender.sendto("\n".join(assignments).encode(), _place(self._address))
        except OSError as error:
            if not self._failed:
                log.warning("the service manager cannot be told how it is", error=str(error))
            self._failed = True


def _status(text: str) -> str:
    return f"STATUS={one_line(text, _STATUS_LENGTH)}"


def _place(address: str) -> bytes:
    path = os.fsencode(address)
    return b"\0" + path[1:] if path.startswith(b"@") else path


def notifier(environ: MutableMapping[str, str], pid: int) -> Notifier:
    """Take out of the environment who is to be told, and whether the watchdog waits for ``pid``."""
    address = environ.pop("NOTIFY_SOCKET", "")
    span, whose = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if address and address[0] not in "/@":
        log.warning("NOTIFY_SOCKET is neither a path nor an abstract socket, it is not used")
        return Notifier()
    return Notifier(address, _patience(span) if whose in {"", str(pid)} else None)


def _patience(microseconds: str) -> float | None:
    if not microseconds:
        return None
    number = _count(microseconds)
    if not number:
        log.warning("WATCHDOG_USEC is no number of microseconds, the watchdog is not fed")
        return None
    return max(number / 1e6, _LEAST_PATIENCE)


def _count(text: str) -> int:
    """Return a number without a sign, 0 for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < len(str(2**64)) else 0


def passed_descriptors(environ: MutableMapping[str, str], pid: int) -> range:
    """Take out of the environment which file descriptors were passed to the process ``pid``."""
    whose, number = environ.pop("LISTEN_PID", ""), _count(environ.pop("LISTEN_FDS", ""))
    environ.pop("LISTEN_FDNAMES", None)
    if whose != str(pid):
        number = 0
    return range(_FIRST_PASSED, _FIRST_PASSED + min(number, _MOST_PASSED))


class PassedError(Exception):
    """What was passed in place of addresses to listen on cannot be listened on."""


def passed_listeners(descriptors: range) -> list[socket.socket]:
    """Return the sockets that were passed; they are not inherited any further.

    Raises PassedError when there is none, or one that is not a stream socket that listens.
    """
    if not descriptors:
        raise PassedError("no socket was passed; a systemd socket unit does (LISTEN_FDS)")
    with ExitStack() as taken:
        listeners = [taken.enter_context(_listener(descriptor)) for descriptor in descriptors]
        taken.pop_all()
        return listeners


def _listener(descriptor: int) -> socket.socket:
    try:
        # Opened by its number, the socket knows its protocol: see asgi.listen.
        passed = socket.socket(fileno=descriptor)
        listens = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        text = os_error_text(error)
        raise PassedError(f"file descriptor {descriptor} is no socket: {text}") from None
    families = {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}
    if passed.family not in families or passed.type != socket.SOCK_STREAM or not listens:
        passed.detach()  # it is not ours to close
        raise PassedError(f"file descriptor {descriptor} is no stream socket that listens")
    passed.set_inheritable(False)
    return passed
