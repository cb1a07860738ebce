"""Logging to standard error: one line per event, logfmt or JSON, without secrets."""

import logging
import re
import sys
import textwrap
from typing import Final, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["logfmt", "json"]
_UNCHANGED_TYPES: Final = (bool, int, float, type(None))

# A second defence: our own events hold no secrets, but the text of a library might.
_SECRETS: Final = re.compile(
    r"sk_car_[\w.\-]+|whsec_[\w+/=]+|hooks\.slack(?:-gov)?\.com/[^\s\"']+|[Bb]earer [^\s\"']+"
)
_CONTROL: Final = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def set_up(level: str, style: LogFormat) -> None:
    """Send the logs of this program and its libraries to standard error, from ``level`` on."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
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
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(style),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
    for library in ("asyncio", "sqlalchemy", "uvicorn"):
        logging.getLogger(library).setLevel(logging.WARNING)


def _renderer(style: LogFormat) -> Processor:
    if style == "json":
        return structlog.processors.JSONRenderer()
    line = structlog.processors.LogfmtRenderer(
        key_order=["time", "level", "msg"], drop_missing=True, bool_as_flag=False
    )

    def render(logger: WrappedLogger, method: str, event: EventDict) -> str:
        # The traceback stays on several lines to be readable. It is indented, so that text in it
        # cannot pass for an event.
        traceback = event.pop("exception", None)
        text = str(line(logger, method, event))
        return text if traceback is None else f"{text}\n{textwrap.indent(traceback, '    ')}"

    return render


def _sanitize_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace text that looks like a secret, and escape control characters."""
    # Keys with an underscore are not logged: structlog passes them between processors.
    return {
        key: value
        if isinstance(value, _UNCHANGED_TYPES) or key.startswith("_")
        else _sanitize(str(value))
        for key, value in event.items()
    }


def _sanitize(text: str) -> str:
    without_secrets = _SECRETS.sub("<secret>", text)
    return _CONTROL.sub(lambda match: ascii(match.group())[1:-1], without_secrets)
