"""The terminal that the process was started on, and who is told of a Ctrl-C there."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress


@contextmanager
def kept_from_make(environ: Mapping[str, str]) -> Iterator[None]:
    """Have Ctrl-C reach this process alone where make started it on a terminal.

    A terminal sends SIGINT to the whole group in its foreground, and make, once its command has
    ended well, then ends itself by it with 130. Not so when make is in the background, or without
    a terminal: nobody types Ctrl-C there.
    """
    terminal = _foreground() if "MAKELEVEL" in environ else None
    if terminal is None:
        yield
        return
    group = os.getpgrp()
    # Ctrl-Z would stop this process, and not make, for which the shell waits.
    for number in (signal.SIGTSTP, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    try:
        os.setpgid(0, 0)
        os.tcsetpgrp(terminal, os.getpgrp())
        yield
    finally:
        with suppress(OSError):  # the terminal, or make, may be gone
            os.tcsetpgrp(terminal, group)
        os.close(terminal)


def _foreground() -> int | None:
    """Open the terminal in whose foreground this process is; None if there is none."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    with suppress(OSError):
        if os.tcgetpgrp(terminal) == os.getpgrp():
            return terminal
    os.close(terminal)
    return None
