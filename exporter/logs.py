"""Logging to standard error: one line per event, logfmt or JSON, without secrets.

Lines are written by a thread. When their reader stops reading, lines are lost and counted, and
nothing else in the process waits.
"""

import atexit
import logging
import os
import re
import select
import sys
import textwrap
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# A second defence: our own events hold no secrets, but the text of a library might.
_SECRETS: Final = re.compile(
    r"sk_car_[\w.\-]+|whsec_[\w+/=]+|hooks\.slack(?:-gov)?\.com/[^\s\"']+|[Bb]earer [^\s\"']+"
)
_CONTROL: Final = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

_MAX_VALUE: Final = 16_384
"""Longest value of an event, in characters. Of a longer one the beginning and the end are kept."""

_MAX_WAITING_LINES: Final = 10_000
_MAX_WAITING_BYTES: Final = 4 * 1024 * 1024

_STANDARD_ERROR: Final = 2

_FLUSH_SECONDS: Final = 0.8
"""Limit for writing the remaining lines when the process ends."""

_render_line = structlog.processors.LogfmtRenderer(
    key_order=["time", "level", "msg"], drop_missing=True, bool_as_flag=False
)
_add_time = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")


class LineWriter:
    """Writes lines to a file descriptor in a thread: `write` never waits.

    A line is dropped while 10,000 lines or 4 MiB wait, and when writing it fails. ``notice``
    returns a line about a number of dropped ones, which is written in their place once that is
    possible.

    Attributes:
        dropped: the number of dropped lines.
        error: why the last line could not be written; None if it was.
    """

    def __init__(self, descriptor: int, notice: Callable[[int], str]) -> None:
        self.dropped = 0
        self.error: OSError | None = None
        self._descriptor = descriptor
        self._notice = notice
        self._lines: deque[tuple[int, bytes]] = deque()  # each with the number dropped before it
        self._size = 0
        self._lost = 0  # dropped since the last line in the queue
        self._is_writing = False
        # Reentrant: a warning may be logged by the garbage collector at any allocation.
        self._changed = threading.Condition(threading.RLock())
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def write(self, line: str) -> None:
        """Queue a line, without its line break, or drop it."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        with self._changed:
            full = len(self._lines) >= _MAX_WAITING_LINES
            if full or self._size + len(data) > _MAX_WAITING_BYTES:
                self.dropped += 1
                self._lost += 1
                return
            self._lines.append((self._lost, data))
            self._size += len(data)
            self._lost = 0
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until all lines are written, at most so long. Return whether they are."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not (self._lines or self._lost or self._is_writing), seconds
            )

    def _run(self) -> None:
        lost, torn = 0, False
        while True:
            dropped_before, line = self._next()
            lost += dropped_before
            notice = f"{self._notice(lost)}\n".encode() if lost else b""
            data = memoryview(b"\n" * torn + notice + line)
            try:
                while data:
                    data = data[self._write(data) :]
                self.error, lost, torn = None, 0, False
            except OSError as error:
                # For example no reader, or no space left: a later line may succeed.
                self.error, torn = error, torn or len(data) < len(notice + line)
                with self._changed:
                    self.dropped += bool(line)
                lost += bool(line)

    def _next(self) -> tuple[int, bytes]:
        """Wait for a line; return it with the number of lines dropped before it.

        The line is empty if lines were dropped after the last one.
        """
        with self._changed:
            self._is_writing = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._lines or self._lost)
            self._is_writing = True
            if self._lines:
                lost, line = self._lines.popleft()
                self._size -= len(line)
            else:
                lost, line, self._lost = self._lost, b"", 0
            return lost, line

    def _write(self, data: memoryview) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            # Another process shares the descriptor and made it non-blocking.
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll()
            return 0


class _Handler(logging.Handler):
    """Formats events and queues them to be written to standard error."""

    def __init__(self, formatter: logging.Formatter, renderer: Processor) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._renderer = renderer
        # A descriptor that was closed before the start may belong to a file or socket by now.
        is_open = sys.__stderr__ is not None
        descriptor = _STANDARD_ERROR if is_open else os.open(os.devnull, os.O_WRONLY)
        self.writer = LineWriter(descriptor, lambda number: self._warning(_LOST, lines=number))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - would be printed, which may block
            line = self._warning(_INVALID, logger=record.name, error=type(error).__name__)
        self.writer.write(line)

    def _warning(self, event: str, **values: object) -> str:
        fields = _add_time(None, "", {"level": "warning", "msg": event, **values})
        return str(self._renderer(None, "", fields))


_LOST: Final = "log lines were dropped, they could not be written"
_INVALID: Final = "a log event could not be formatted"

_writer: LineWriter | None = None


def set_up(level: str, style: Literal["logfmt", "json"]) -> None:
    """Send the logs of this program and its libraries to standard error, from ``level`` on.

    Exceptions that Python would print to standard error are logged too: printing may block.
    """
    global _writer
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        _add_time,
        structlog.processors.format_exc_info,
        _sanitize_event,
        structlog.processors.EventRenamer("msg"),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer = structlog.processors.JSONRenderer() if style == "json" else _render_logfmt
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    root = logging.getLogger()
    try:
        handler = _Handler(formatter, renderer)
        root.handlers, _writer = [handler], handler.writer
    except RuntimeError:
        # No thread can be started. What needs the next one logs that and ends the process.
        root.handlers = [logging.StreamHandler()]
        root.handlers[0].setFormatter(formatter)
    atexit.register(flush)
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
    sys.unraisablehook = threading.excepthook = _log_unhandled
    for library in ("asyncio", "sqlalchemy", "uvicorn"):
        logging.getLogger(library).setLevel(logging.WARNING)


def dropped_lines() -> int:
    """Return the number of log lines that were dropped since the start."""
    return 0 if _writer is None else _writer.dropped


def flush() -> None:
    """Wait until the log is written, for 0.8 s at most."""
    if _writer is not None:
        _writer.flush(_FLUSH_SECONDS)


def _log_unhandled(arguments: Any) -> None:
    error = (arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
    structlog.get_logger().error("exception was not handled", exc_info=error)


def _render_logfmt(logger: WrappedLogger, method: str, event: EventDict) -> str:
    # The traceback stays on several lines to be readable. It is indented, so that text in it
    # cannot pass for an event.
    traceback = event.pop("exception", None)
    line = _render_line(logger, method, event)
    return line if traceback is None else f"{line}\n{textwrap.indent(traceback, '    ')}"


def _sanitize_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace text that looks like a secret, and escape control characters."""
    # Keys with an underscore are not logged: structlog passes them between processors.
    return {
        key: value
        if isinstance(value, int | float | None) or key.startswith("_")
        else _sanitize(str(value))
        for key, value in event.items()
    }


def _sanitize(text: str) -> str:
    # Secrets first: half of one would not be recognised.
    shown = _SECRETS.sub("<secret>", text)
    if len(shown) > _MAX_VALUE:
        shown = f"{shown[: _MAX_VALUE // 2]}…{shown[-_MAX_VALUE // 2 :]}"
    return _CONTROL.sub(lambda match: ascii(match.group())[1:-1], shown)
