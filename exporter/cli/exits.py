"""What a command ends with when it fails: a status, and one line that says why."""

import sys
from typing import Final, NoReturn, TextIO

import click

from exporter.core.text import os_error_text

RUNTIME: Final = 1
"""Something failed that may pass."""

CONFIGURATION: Final = 2
"""Usage, configuration or state have to be mended first; click ends with it too."""


def fail(status: int, text: str) -> NoReturn:
    """End the process with ``status`` and a line on standard error."""
    click.echo(f"cartesia-exporter: {text}", err=True)
    sys.exit(status)


def standard_output(task: str) -> TextIO:
    """Return where a task's result goes, or end at once when it would go nowhere."""
    # None where the descriptor was closed; typeshed knows nothing of that.
    stream: TextIO | None = sys.stdout
    if stream is None:
        fail(RUNTIME, f"cannot {task}: standard output is closed")
    return stream


def reason(error: Exception) -> str:
    """Return what an error, or the first of a group, says.

    The number of a system's error is left out: it says nothing to people.
    """
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, OSError):
        return str(error)
    text = os_error_text(error)
    return f"{error.filename}: {text}" if error.filename else text
