"""systemd's protocols for services: notifications, the watchdog timeout and passed sockets.

See sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3). The variables are removed from the
environment when they are read, so that no child process uses them.
"""

import re
import socket
import time
from collections.abc import MutableMapping
from contextlib import ExitStack
from typing import Final

import structlog

from exporter.core.text import one_line, os_error_text

_FIRST_DESCRIPTOR: Final = 3
_MAX_DESCRIPTORS: Final = 1024
_SEND_TIMEOUT_SECONDS: Final = 0.2
_MIN_WATCHDOG_SECONDS: Final = 0.1
_MAX_STATUS_LENGTH: Final = 200

log = structlog.get_logger()


class Notifier:
    """Sends the state of this process to the service manager; does nothing without an address.

    An error never reaches the caller and is logged once. ``watchdog_timeout`` is the number of
    seconds without `alive` after which the service manager kills the process; None for never.
    """

    def __init__(self, address: str = "", watchdog_timeout: float | None = None) -> None:
        self.watchdog_timeout = watchdog_timeout if address else None
        self._address = re.sub("^@", "\0", address)  # an abstract socket
        self._failed = False

    def ready(self, status: str) -> None:
        """Report that the start or a reload has finished."""
        self._send("READY=1", status=status)

    def reloading(self) -> None:
        """Report that a reload begins. Its end, successful or not, is reported by `ready`."""
        # Type=notify-reload requires CLOCK_MONOTONIC, to tell this reload from an earlier one.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Report that the shutdown begins."""
        self._send("STOPPING=1", status="stopping")

    def status(self, text: str) -> None:
        """Report the status in one line of text."""
        self._send(status=text)

    def alive(self) -> None:
        """Reset the watchdog, if there is one."""
        if self.watchdog_timeout is not None:
            self._send("WATCHDOG=1")

    def _send(self, *assignments: str, status: str = "") -> None:
        if not self._address:
            return
        if status:
            assignments += (f"STATUS={one_line(status, _MAX_STATUS_LENGTH)}",)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_SEND_TIMEOUT_SECONDS)
                sender.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            if not self._failed:
                log.warning("cannot notify the service manager", error=str(error))
            self._failed = True


def notifier(environ: MutableMapping[str, str], pid: int) -> Notifier:
    """Return the notifier that the environment describes, with the watchdog if it is for ``pid``.

    Removes the variables from ``environ``.
    """
    address, timeout = environ.pop("NOTIFY_SOCKET", ""), environ.pop("WATCHDOG_USEC", "")
    watched = environ.pop("WATCHDOG_PID", "") in {"", str(pid)}
    if address and address[0] not in "/@":
        log.warning("NOTIFY_SOCKET ignored: neither a path nor an abstract socket")
        return Notifier()
    if not (timeout and watched):
        return Notifier(address)
    microseconds = _number(timeout)
    if not microseconds:
        log.warning("WATCHDOG_USEC ignored: not a number of microseconds")
        return Notifier(address)
    return Notifier(address, max(microseconds / 1e6, _MIN_WATCHDOG_SECONDS))


def _number(text: str) -> int:
    """Return an unsigned 64-bit number; 0 for any other text."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < len(str(2**64)) else 0


def passed_descriptors(environ: MutableMapping[str, str], pid: int) -> range:
    """Return the file descriptors that were passed to process ``pid``.

    Removes the variables from ``environ``.
    """
    listen_pid, number = environ.pop("LISTEN_PID", ""), _number(environ.pop("LISTEN_FDS", ""))
    environ.pop("LISTEN_FDNAMES", None)
    if listen_pid != str(pid):
        number = 0
    return range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + min(number, _MAX_DESCRIPTORS))


class PassedError(Exception):
    """The passed file descriptors are not listening sockets."""


def passed_listeners(descriptors: range) -> list[socket.socket]:
    """Return the listening sockets behind ``descriptors``; child processes do not inherit them.

    Raises PassedError when there is none, or one that is not a listening stream socket.
    """
    if not descriptors:
        raise PassedError(
            "no socket was passed (LISTEN_FDS); start the service with a systemd socket unit"
        )
    with ExitStack() as opened:
        listeners = [opened.enter_context(_listener(descriptor)) for descriptor in descriptors]
        opened.pop_all()
        return listeners


def _listener(descriptor: int) -> socket.socket:
    try:
        # Without family and type, socket() reads them and the protocol from the descriptor, which
        # http_server.listen relies on.
        passed = socket.socket(fileno=descriptor)
        listens = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        text = os_error_text(error)
        raise PassedError(f"file descriptor {descriptor} is not a socket: {text}") from None
    families = {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}
    if passed.family not in families or passed.type != socket.SOCK_STREAM or not listens:
        passed.detach()  # another part of the process may own it: do not close it
        raise PassedError(f"file descriptor {descriptor} is not a listening stream socket")
    passed.set_inheritable(False)
    return passed
