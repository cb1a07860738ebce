"""Geometry of the charts: x in percent of the width, y in pixels."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct, field

from exporter.core.records import (
    DeliveryRecord,
    HourRecord,
    OutageRecord,
    StatusCounts,
    StatusSpan,
)
from exporter.core.text import cut
from exporter.web.times import duration, short_time

AREA_HEIGHT: Final = 26
"""Height of the areas of the hourly counts, in pixels."""

_HOUR: Final = timedelta(hours=1)
_LEAST_LABELLED: Final = 8.0
"""Least width of a segment with text inside, in percent."""

_DAY_SECONDS: Final = 86_400
_STEPS: Final = (
    *(1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 10_800, 21_600, 43_200),
    *(days * _DAY_SECONDS for days in (1, 2, 3, 7, 14, 30, 60, 120, 360)),
)
"""Possible distances of ticks, in seconds."""

_MOST_TICKS: Final = 8


class Mark(Struct, frozen=True):
    """A mark at ``x`` with a title in words."""

    x: float
    title: str
    kind: str = ""


class Box(Struct, frozen=True):
    """A box from ``x`` on; ``text`` is shown inside if there is room."""

    x: float
    width: float
    title: str
    kind: str = ""
    text: str = ""

    @property
    def middle(self) -> float:
        """The x of its middle."""
        return self.x + self.width / 2


class Tick(Struct, frozen=True):
    """A line at ``x`` with its text."""

    x: float
    text: str


class StripRow(Struct, frozen=True):
    """One account's row of the strip: areas, failures, outages and the time before its baseline.

    ``training`` and ``created`` are SVG paths in a box of one unit per hour and AREA_HEIGHT.
    """

    name: str
    note: str
    label: str
    hours: int
    training: str
    created: str
    failures: Sequence[Mark]
    outages: Sequence[Box]
    unknown_width: float


class TimeRange(Struct, frozen=True):
    """The times of a chart, from ``begin`` to ``end``."""

    begin: datetime
    end: datetime

    def x(self, time: datetime) -> float:
        """Return the position of a time in percent, within 0 and 100."""
        share = (time - self.begin) / (self.end - self.begin)
        return round(min(max(share, 0.0), 1.0) * 100, 2)

    def ticks(self) -> list[Tick]:
        """Return at most eight ticks at whole seconds, minutes, hours or midnights."""
        length = (self.end - self.begin).total_seconds()
        step = next((s for s in _STEPS if length / s <= _MOST_TICKS), _STEPS[-1])
        first = self.begin.replace(hour=0, minute=0, second=0, microsecond=0)
        skipped = int((self.begin - first).total_seconds() // step) + 1
        time = first + timedelta(seconds=skipped * step)
        ticks = []
        while time < self.end:
            ticks.append(Tick(self.x(time), _tick_text(time, step)))
            time += timedelta(seconds=step)
        return ticks


def _tick_text(time: datetime, step: int) -> str:
    if step >= _DAY_SECONDS:
        return f"{time:%a} {time.day}"
    if (time.hour, time.minute, time.second) == (0, 0, 0):
        return f"{time.day} {time:%b}"
    return f"{time:%H:%M}" if step % 60 == 0 else f"{time:%H:%M:%S}"


class AccountHistory(Struct, frozen=True):
    """What a row of the strip shows of one account; failures are pairs of time and name."""

    name: str
    watched_since: datetime | None
    hours: Sequence[HourRecord] = ()
    outages: Sequence[OutageRecord] = ()
    failures: Sequence[tuple[datetime, str]] = field(default_factory=tuple)


def strip_row(history: AccountHistory, shown: TimeRange) -> StripRow:
    """Return the row of one account."""
    number = int((shown.end - shown.begin) / _HOUR)
    per_hour = _per_hour(history.hours, shown.begin, number)
    most = max((c.training + c.created for c in per_hour), default=0) or 1
    training = [c.training * AREA_HEIGHT / most for c in per_hour]
    stacked = [(c.training + c.created) * AREA_HEIGHT / most for c in per_hour]
    failures = [
        Mark(shown.x(time), f"{name}, failed {short_time(time, shown.end)}")
        for time, name in history.failures
    ]
    outages = [_outage_box(each, shown) for each in history.outages]
    since = history.watched_since
    before = 100.0 if since is None else shown.x(since)
    return StripRow(
        history.name,
        "not read yet" if since is None else _note(len(failures)),
        _row_label(history, len(failures)),
        number,
        _area(training, [0.0] * number),
        _area(stacked, training),
        failures,
        outages,
        before,
    )


def _note(failures: int) -> str:
    return f"{failures} failed" if failures else "none failed"


def _row_label(history: AccountHistory, failures: int) -> str:
    outages = len(history.outages)
    times = "once" if outages == 1 else f"{outages} times"
    unreadable = f"; not readable {times}" if outages else ""
    plural = "failure" if failures == 1 else "failures"
    return f"{history.name}: {failures or 'no'} {plural}{unreadable}"


def _outage_box(outage: OutageRecord, shown: TimeRange) -> Box:
    x, end = shown.x(outage.since), shown.x(outage.until or shown.end)
    until = "now" if outage.until is None else short_time(outage.until, shown.end)
    title = f"Not readable {short_time(outage.since, shown.end)} to {until}: {outage.reason}"
    return Box(x, round(max(end - x, 0.3), 2), title)


def _per_hour(hours: Iterable[HourRecord], begin: datetime, number: int) -> list[StatusCounts]:
    """Return the counts in force in each hour: those of the hour, or of the last one before."""
    changes = {int((each.hour - begin) / _HOUR): each.counts for each in hours}
    current = changes.get(min(changes, default=0), StatusCounts())
    if min(changes, default=0) > 0:
        current = StatusCounts()
    found = []
    for hour in range(number):
        current = changes.get(hour, current)
        found.append(current)
    return found


def _area(tops: Sequence[float], bottoms: Sequence[float]) -> str:
    """Return the path of an area between two step lines; empty if it has no height."""
    if not any(top > bottom for top, bottom in zip(tops, bottoms, strict=True)):
        return ""
    up = "".join(f"V{_y(top)}h1" for top in tops)
    back = "".join(f"V{_y(bottom)}h-1" for bottom in reversed(bottoms))
    return f"M0 {AREA_HEIGHT}{up}{back}Z"


def _y(height: float) -> str:
    return f"{AREA_HEIGHT - height:.4g}"


class ReceiverRow(Struct, frozen=True):
    """One receiver's row of a timeline."""

    name: str
    label: str
    marks: Sequence[Mark]


class Timeline(Struct, frozen=True):
    """The statuses of a fine-tune to scale, and its notifications."""

    shown: TimeRange
    label: str
    boxes: Sequence[Box]
    failures: Sequence[Mark]
    receivers: Sequence[ReceiverRow]

    @property
    def labelled(self) -> list[Box]:
        """The boxes that are wide enough for a text inside."""
        return [box for box in self.boxes if box.width >= _LEAST_LABELLED]


def timeline(
    spans: Sequence[StatusSpan], deliveries: Sequence[DeliveryRecord], now: datetime
) -> Timeline:
    """Return the timeline of a fine-tune; ``spans`` are oldest first and not empty."""
    shown = TimeRange(spans[0].since, max(now, spans[0].since + timedelta(seconds=1)))
    boxes, words = [], []
    for span in spans:
        end = span.until or shown.end
        lasted = duration((end - span.since).total_seconds())
        x = shown.x(span.since)
        begin, until = short_time(span.since, now), short_time(end, now)
        when = f"since {begin}" if span.until is None else f"{begin} to {until}"
        title = f"{cut(span.status, 40).capitalize()} {when}, {lasted}"
        text = lasted if span.status_label == "training" else f"{span.status_label}, {lasted}"
        boxes.append(Box(x, round(shown.x(end) - x, 2), title, span.status_label, text))
        still = f"{span.status_label} since {begin}"
        words.append(still if span.until is None else f"{span.status_label} for {lasted}")
    failures = [
        Mark(shown.x(span.since), f"Failed {short_time(span.since, now)}")
        for span in spans
        if span.status_label == "failed"
    ]
    label = f"Status over time: {', '.join(words)}"
    return Timeline(shown, label, boxes, failures, _receiver_rows(deliveries, shown))


def _receiver_rows(deliveries: Sequence[DeliveryRecord], shown: TimeRange) -> list[ReceiverRow]:
    by_receiver: dict[str, list[Mark]] = {}
    for each in deliveries:
        event, now = each.type.rpartition(".")[2], shown.end
        marks = by_receiver.setdefault(each.receiver, [])
        if each.state == "delivered" and each.settled_at is not None:
            title = f"{event}: delivered {short_time(each.settled_at, now)}"
            marks.append(Mark(shown.x(each.settled_at), title, "ok"))
        elif each.state in {"dead", "orphaned"} or each.attempts:
            time = each.last_attempt_at or each.settled_at or each.queued_at
            title = f"{event}: {each.state}, {each.answer} {short_time(time, now)}"
            marks.append(Mark(shown.x(time), title, "bad"))
    return [
        ReceiverRow(
            name, f"{name}: {'; '.join(mark.title for mark in marks) or 'nothing sent'}", marks
        )
        for name, marks in sorted(by_receiver.items())
    ]
