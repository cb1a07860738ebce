"""Signals that arrive while the agent starts, from the first statement of the process on.

Imports nothing that takes time.
"""

import os
import signal
from collections.abc import Sequence

_received: set[int] = set()


def runs_agent(arguments: Sequence[str]) -> bool:
    """Return whether a command line means the command `run`: by name, or by flags alone."""
    if not arguments:
        return True
    first = arguments[0]
    return first == "run" or (first.startswith("-") and first not in {"-h", "--help", "--version"})


def handle() -> None:
    """Let SIGTERM and SIGINT end the process with 0, and keep SIGHUP for `hangup_received`.

    By default SIGHUP would end the process, although a reload is meant. A signal that is ignored,
    as with `nohup`, stays so, except SIGHUP.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: os._exit(0))
    signal.signal(signal.SIGHUP, lambda number, _: _received.add(number))


def hangup_received() -> bool:
    """Return whether SIGHUP arrived since `handle`."""
    return signal.SIGHUP in _received
