"""Content of the overview page: what failed, who was notified, and the last days."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from statistics import median
from typing import Any, Final

from markupsafe import Markup
from msgspec import Struct
from sqlalchemy import func, select

from exporter.core.model import COMPLETED, STATUSES
from exporter.core.records import (
    EventRecord,
    FineTuneRecord,
    at,
)
from exporter.store.event_lists import count_failures, failures_since
from exporter.store.fine_tunes import STUCK, FineTuneFilter
from exporter.store.overview import dataset_failures
from exporter.store.pages import PageRequest
from exporter.store.schema import events, trainings
from exporter.web.strip import DAY, HOUR, RANGES, strip
from exporter.web.times import time_element
from exporter.web.view import View

_SHOWN_FAILURES: Final = 10
"""Failures of the last hour, and of the day before it, with a row of their own."""

_MOST_ROWS: Final = 100
"""Rows of each when all are asked for."""

_MOST_FAILURES: Final = 500
"""Failures that are read: more have no mark in the strip."""

_SHOWN_ROWS: Final = 10
_SHOWN_COUNTS: Final = 30
_SHOWN_ACCOUNTS: Final = 4


class Failure(Struct, frozen=True):
    """A failure in the list: its event, the training that ended, and a remark."""

    event: EventRecord
    trained_seconds: float | None
    usual_seconds: float | None
    note: str
    stale: bool


def overview(view: View, range_key: str, *, every_failure: bool = False) -> dict[str, Any]:
    """Return the variables of the overview's template; with all failures of the day on request."""
    most = _MOST_ROWS if every_failure else _SHOWN_FAILURES
    trust = view.trust
    names = [each.name for each in view.settings.accounts]
    since = min(view.now - RANGES[range_key][1], view.now - DAY)
    failures = failures_since(view.connection, names, since.timestamp(), _MOST_FAILURES)
    hour_ago, day_ago = (view.now - HOUR).timestamp(), (view.now - DAY).timestamp()
    in_day = count_failures(view.connection, names, day_ago)
    in_hour = count_failures(view.connection, names, hour_ago)
    recent = [each.number for each in failures if each.observed_at >= hour_ago]
    earlier = [each.number for each in failures if day_ago <= each.observed_at < hour_ago]
    return {
        "trust": trust,
        "failures": in_day,
        "headline": _headline(view, in_day, in_hour),
        "totals": _totals(view),
        "failed": {
            "hour": _failures(view, recent[:most]),
            "day": _failures(view, earlier[:most]),
            "more_in_hour": max(in_hour - most, 0),
            "more_in_day": max(in_day - in_hour - most, 0),
            "are_all": every_failure,
        },
        "quiet": {} if in_day else _quiet(view),
        "strip": strip(view, range_key, failures),
        "stuck": _table(view, STUCK, "longer than expected in created or training"),
        "training": _table(view, "training", "dashed: median of the last 50 of the model"),
        "counts": _counts(view),
        "statuses": STATUSES,
        "interval": view.settings.interval,
    }


def _failures(view: View, numbers: Sequence[int]) -> list[Failure]:
    return [_failure(view, each) for each in view.events.numbered(numbers)]


def _failure(view: View, event: EventRecord) -> Failure:
    fine_tune_id = event.fine_tune or ""
    ended = view.fine_tunes.trainings(event.account, fine_tune_id)
    at_failure = [
        each for each in ended if abs(each.ended_at - event.observed_at) < timedelta(1e-5)
    ]
    trained = at_failure[0].seconds if at_failure else None
    usual = view.fine_tunes.usual_seconds(event.model_id)
    stale = event.account in view.trust.stale_names
    return Failure(event, trained, usual, _note(view, event), stale)


def _note(view: View, event: EventRecord) -> str:
    """Return the remark on a failure: what became of it, or how often the dataset failed."""
    now = view.fine_tunes.find(event.account, event.fine_tune or "")
    if now is not None and now.removed:
        return "removed since"
    if now is not None and now.since > event.observed_at:
        words = {"failed": "trained again, failed again", "completed": "completed"}
        became = words.get(now.status_label, f"{now.status_label} again since")
        return Markup("{} {}").format(became, time_element(now.since, view.now))
    week = (event.observed_at - 7 * DAY).timestamp()
    number = dataset_failures(view.connection, event.account, event.dataset, week)
    return f"{_ordinal(number)} failure of this dataset in 7 days" if number > 1 else ""


def _ordinal(number: int) -> str:
    if number % 100 in {11, 12, 13}:
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


def _headline(view: View, in_day: int, in_hour: int) -> dict[str, Any]:
    stale = [each for each in view.accounts if each.state in {"stale", "waiting"}]
    unseen = ", ".join(each.id for each in stale[:2])
    if stale:
        more = len(stale) - 2
        seen = min((each.as_of for each in stale if each.as_of), default=None)
        unseen += f" and {more} more" if more > 0 else ""
        since = Markup(" since {}").format(time_element(seen, view.now)) if seen else ""
        unseen = Markup("{} not seen{}").format(unseen, since)
    if in_day:
        text = f"{in_day:,} failed in the last 24 hours"
        note = f"{in_hour:,} in the last hour" if in_hour else "none in the last hour"
        note = Markup("{}; {}").format(note, unseen) if unseen else note
        return {"text": f"At least {text}" if stale else text, "note": note, "since": None}
    baseline = max((s.baseline_at for s in view.stored.values()), default=0.0)
    if not baseline:
        return {"text": "Nothing read yet", "note": "", "since": None}
    if stale:
        return {"text": "No failure seen in the last 24 hours", "note": unseen, "since": None}
    if at(baseline) > view.now - DAY:
        return {"text": "Nothing failed since the baseline", "note": "", "since": at(baseline)}
    return {"text": "Nothing failed in the last 24 hours", "note": "", "since": None}


def _totals(view: View) -> dict[str, Any]:
    current = [each for each in view.accounts if each.state not in {"stale", "waiting"}]
    totals = Counter[str]()
    for each in current:
        totals.update({status: getattr(each.counts, status) for status in STATUSES})
    label = "Now"
    if len(current) < len(view.accounts):
        names = [each.id for each in current]
        label = _only(names, len(view.accounts)) if current else "No current data"
    stuck = view.status_counts.get(STUCK, 0)
    order = ("failed", "training", "created", "completed", "unknown")
    notes = {"training": f", {stuck} stuck" if stuck else ""}
    return {
        "label": label,
        "statuses": [
            (each, totals[each] if current else None, notes.get(each, "")) for each in order
        ],
    }


def _only(names: Sequence[str], total: int) -> str:
    """Return which accounts are counted, of a total that includes others."""
    if len(names) < _SHOWN_ACCOUNTS:
        return f"{', '.join(names)} only"
    return f"{len(names)} of {total} accounts"


def _quiet(view: View) -> dict[str, Any]:
    """Return what the page says when nothing failed."""
    baseline = min((s.baseline_at for s in view.stored.values()), default=None)
    if baseline is None:
        return {"baseline_at": None}
    query = select(events.c.content).where(events.c.type == "agent.baseline")
    total = failed = 0
    for record in view.events.records(
        view.connection.execute(
            query.with_only_columns(events).where(events.c.account.in_(view.stored))
        ).all()
    ):
        total += _integer(record.facts.get("total"))
        failed += _integer(record.facts.get("failed"))
    seconds = view.connection.scalars(
        select(trainings.c.seconds)
        .where(trainings.c.account.in_(view.account_names), trainings.c.ended_as == COMPLETED)
        .order_by(trainings.c.ended_at.desc())
        .limit(_MOST_FAILURES)
    ).all()
    completed = view.connection.scalars(
        select(func.count()).where(
            events.c.type == "fine_tune.completed", events.c.account.in_(view.stored)
        )
    ).one()
    observed = [each for each in seconds if each is not None]
    return {
        "baseline_at": at(baseline),
        "baseline_total": total,
        "baseline_failed": failed,
        "completed": completed,
        "median": median(observed) if observed else None,
        "receivers": _receivers(view),
    }


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0


def _receivers(view: View) -> str:
    """Return the receivers of failures with the verb: "slack and ops are"."""
    names = [each.id for each in view.receivers if "failed" in each.events]
    if not names:
        return ""
    shown = names if len(names) <= _SHOWN_ACCOUNTS else [f"{len(names)} receivers"]
    listed = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
    return f"{listed} {'is' if len(names) == 1 else 'are'}"


def _table(view: View, status: str, hint: str) -> dict[str, Any]:
    criteria = FineTuneFilter(statuses=(status,))
    total = view.status_counts.get(status, 0)
    rows: list[FineTuneRecord] = []
    if total:  # finding none reads all
        rows = view.fine_tunes.page(criteria, PageRequest(_SHOWN_ROWS), "since").elements
    seconds = [(view.now - each.since).total_seconds() for each in rows]
    usual = [each.usual_seconds or 0.0 for each in rows]
    longest = max([*seconds, *(1.2 * each for each in usual), 1.0])
    return {"rows": rows, "total": total, "hint": hint, "longest": longest}


def _counts(view: View) -> dict[str, Any]:
    """Return the table of counts by status and model, as in the metrics."""
    rows = []
    totals = Counter[str]()
    current = []
    for account in view.accounts:
        status = view.status(account.id)
        stale = account.state in {"stale", "waiting"}
        if status is None or status.counts is None:
            continue
        by_model: dict[str, Counter[str]] = {}
        for key, number in status.counts.items():
            by_model.setdefault(key[0] if len(key) > 1 else "all", Counter())[key[-1]] += number
        if not stale:
            current.append(account.id)
        for model, numbers in sorted(by_model.items(), key=lambda item: -item[1].total()):
            rows.append(
                {
                    "model": model,
                    "account": account.id,
                    "stale": stale,
                    "numbers": [(each, numbers[each]) for each in STATUSES],
                    "total": numbers.total(),
                }
            )
            if not stale:
                totals.update(numbers)
    label = "All" if len(current) == len(view.accounts) else _only(current, len(view.accounts))
    return {
        "rows": rows[:_SHOWN_COUNTS],
        "more": max(len(rows) - _SHOWN_COUNTS, 0),
        "label": label,
        "totals": [(each, totals[each]) for each in STATUSES],
        "total": totals.total(),
    }
