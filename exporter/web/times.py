"""Times, ages and durations as text for the pages."""

from datetime import UTC, datetime, timedelta
from typing import Final

from markupsafe import Markup

from exporter.core.text import rounded_duration

_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def short_time(time: datetime, now: datetime) -> str:
    """Return a time as short as its day allows: 09:41:07, 28 Nov 17:20 or 3 Nov 2025."""
    if time.date() == now.date():
        return f"{time:%H:%M:%S}"
    if time.year == now.year or abs(now - time) < timedelta(days=180):
        return f"{time.day} {time:%b %H:%M}"
    return f"{time.day} {time:%b %Y}"


def full_time(time: datetime) -> str:
    """Return a time with date, time of day and zone."""
    return f"{time.day} {time:%b %Y %H:%M:%S} UTC"


def iso_time(time: datetime) -> str:
    """Return a time for the attribute ``datetime``."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def time_element(time: datetime, now: datetime) -> Markup:
    """Return a time as an element that the script of the pages shows in the reader's zone."""
    element = Markup('<time datetime="{}" title="{}">{}</time>')
    return element.format(iso_time(time), full_time(time), short_time(time, now))


def age(seconds: float) -> str:
    """Return an age in its largest unit: 18 s, 3 min, 5 h, 4 d."""
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"


def duration(seconds: float | None) -> str:
    """Return a duration in at most two units; a dash for None."""
    return "\u2013" if seconds is None else rounded_duration(seconds)
