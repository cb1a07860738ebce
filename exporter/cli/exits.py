"""Exit statuses and one-line error messages of the commands."""

import sys
from io import TextIOWrapper
from typing import Final, NoReturn, TextIO

import click

from exporter.core.text import os_error_text

RUNTIME_ERROR: Final = 1
"""A failure that may pass, such as a dead network."""

CONFIGURATION_ERROR: Final = 2
"""Usage, configuration or state must be fixed first; click uses the same status."""


def fail(status: int, text: str) -> NoReturn:
    """End the process with ``status`` and one line on standard error."""
    click.echo(f"cartesia-exporter: {text}", err=True)
    sys.exit(status)


def standard_output(task: str) -> TextIO:
    """Return standard output, or end the process if it is closed, before ``task`` does any work."""
    # Python sets it to None when the descriptor is closed; typeshed does not know that.
    stream: TextIO | None = sys.stdout
    if stream is None:
        fail(RUNTIME_ERROR, f"cannot {task}: standard output is closed")
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # the locale may not be UTF-8
    return stream


def reason(error: Exception) -> str:
    """Return the text of an error, or of the first one of a group, without an errno."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, OSError):
        return str(error)
    text = os_error_text(error)
    return f"{error.filename}: {text}" if error.filename else text
