"""The templates of the pages and their filters."""

from datetime import datetime
from functools import partial
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from exporter import __version__
from exporter.core.links import fine_tune_path
from exporter.core.text import capitalized, cut, one_line
from exporter.web.deliveries import most_urgent_first, shown_state
from exporter.web.times import age, duration, full_time, iso_time, short_time

_STATIC: Final = files("exporter.web") / "static"

ASSETS: Final = {
    "style.css": "text/css; charset=utf-8",
    "script.js": "text/javascript; charset=utf-8",
}
"""Names and content types of the static files."""

ICON: Final = "icon.svg"

_MOST_IN_ICON: Final = 99

_REASONS: Final = {
    "unauthorized": "the API key was refused",
    "forbidden": "the API key may not list the fine-tunes",
    "dns": "the host name of the API could not be resolved",
    "connect": "no connection to the API",
    "tls": "no trusted TLS connection to the API",
    "timeout": "the API did not answer in time",
    "rate_limited": "the API asked to wait",
    "server_error": "the API answered with a server error",
    "client_error": "the request was refused",
    "protocol": "the answer was not as expected",
    "too_large": "the list is too large",
    "storage": "the state could not be stored",
}
"""What the reasons of failed polls mean."""


def read_asset(name: str) -> bytes:
    """Return the content of a static file."""
    return (_STATIC / name).read_bytes()


def icon(failures: int) -> str:
    """Return the icon as SVG: with the number of failures if there are any."""
    if failures <= 0:
        return _ICON_QUIET
    text = str(failures) if failures <= _MOST_IN_ICON else "99+"
    size = {1: 20, 2: 18, 3: 13}[len(text)]
    return _ICON_FAILED.format(text=text, size=size)


_ICON_QUIET: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    '<rect width="32" height="32" rx="7" fill="#5d6672"/>'
    '<circle cx="16" cy="16" r="8" fill="none" stroke="#fff" stroke-width="3"/></svg>'
)
_ICON_FAILED: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    '<rect width="32" height="32" rx="7" fill="#b5123f"/>'
    '<text x="16" y="23" text-anchor="middle" font-family="system-ui, sans-serif" '
    'font-size="{size}" font-weight="700" fill="#fff">{text}</text></svg>'
)


def _answer(text: str) -> str:
    """Return a receiver's answer without the word that all of them begin with."""
    return cut(text.removeprefix("answered "), 200)


def _reason(failure: str) -> str:
    return _REASONS.get(failure, failure.replace("_", " "))


def _brief_seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _event_word(event_type: str) -> str:
    return event_type.rpartition(".")[2].replace("_", " ")


def _number(value: int) -> str:
    return f"{value:,}"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("exporter.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "age": age,
        "answer": _answer,
        "brief_seconds": _brief_seconds,
        "capitalize_first": capitalized,
        "cut": cut,
        "duration": duration,
        "event_word": _event_word,
        "full_time": full_time,
        "iso_time": iso_time,
        "most_urgent_first": most_urgent_first,
        "number": _number,
        "one_line": one_line,
        "reason": _reason,
        "short_time": short_time,
        "shown_state": shown_state,
        "urlencode": partial(quote, safe=""),
    }
    digest = sha256(b"".join(map(read_asset, sorted(ASSETS)))).hexdigest()[:12]
    environment.globals |= {
        "assets": digest,
        "fine_tune_url": fine_tune_path,
        "version": __version__,
    }
    return environment


TEMPLATES: Final = _environment()


def render(name: str, now: datetime, **context: Any) -> str:
    """Return a page. Everything in ``context`` is escaped."""
    return TEMPLATES.get_template(name).render(now=now, **context)
