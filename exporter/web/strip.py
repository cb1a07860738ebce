"""The strip of the last days: hourly counts, failures and outages of each account."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from sqlalchemy import func, select

from exporter.core.model import STATUSES
from exporter.core.records import HourRecord, OutageRecord, StatusCounts, at
from exporter.core.text import cut
from exporter.store.overview import hour_records, outage_records
from exporter.store.schema import events
from exporter.web.charts import AccountHistory, StripRow, TimeRange, strip_row
from exporter.web.view import View

_LONGEST_NAME: Final = 200

DAY: Final = timedelta(days=1)
HOUR: Final = timedelta(hours=1)
RANGES: Final[Mapping[str, tuple[str, timedelta]]] = {
    "24h": ("24 hours", DAY),
    "7d": ("7 days", 7 * DAY),
    "30d": ("30 days", 30 * DAY),
}
"""Names and lengths of the ranges of the strip."""


_SHOWN_ACCOUNTS: Final = 4
"""Accounts with a row of their own."""


def strip(view: View, range_key: str, failures: Sequence[Any]) -> dict[str, Any]:
    """Return the variables of the strip; ``failures`` are rows of failures_since."""
    title, length = RANGES[range_key]
    end = view.now.replace(minute=0, second=0, microsecond=0) + HOUR
    shown = TimeRange(end - length, end)
    since = shown.begin.timestamp()
    hours = hour_records(view.connection, view.account_names, since)
    keys = [(each.name, each.base_url) for each in view.settings.accounts]
    outages = [*outage_records(view.connection, keys, since), *_current_outages(view)]
    recent = [each for each in failures if each.observed_at >= since]
    rows = _strip_rows(view, shown, hours, outages, recent)
    ended = [each for each in outages if each.until is None]
    words = []
    if view.stored or recent:
        words.append(f"{len(recent):,} failure{'' if len(recent) == 1 else 's'}")
    if outages:
        words.append(f"{len(outages)} outage{'' if len(outages) == 1 else 's'}")
    note = ", ".join(words) + (f", {len(ended)} of them now" if ended else "")
    return {
        "key": range_key,
        "title": title,
        "note": note,
        "rows": rows,
        "ticks": shown.ticks(),
        "column": "Hour" if range_key == "24h" else "Day",
        "table": _strip_table(view, shown, outages, by_hour=range_key == "24h"),
    }


def _current_outages(view: View) -> list[OutageRecord]:
    return [
        OutageRecord(account=each.id, since=each.failing_since, until=None, reason=each.failure)
        for each in view.accounts
        if each.failing_since is not None
    ]


def _strip_rows(
    view: View,
    shown: TimeRange,
    hours: Sequence[HourRecord],
    outages: Sequence[OutageRecord],
    failures: Sequence[Any],
) -> list[StripRow]:
    """Return a row for each account; of many, one for all and one for each with an outage."""
    hours_of, outages_of, failures_of = map(_by_account, (hours, outages, failures))
    histories = []
    for name in (each.name for each in view.settings.accounts):
        stored = view.stored.get(name)
        marks = [(at(each.observed_at), _name(each)) for each in failures_of.get(name, ())]
        since = None if stored is None else at(stored.baseline_at)
        found = hours_of.get(name, ()), outages_of.get(name, ())
        histories.append(AccountHistory(name, since, *found, marks))
    if len(histories) > _SHOWN_ACCOUNTS:
        troubled = [each for each in histories if each.outages][:_SHOWN_ACCOUNTS]
        histories = [_all_accounts(histories, failures), *troubled]
    return [strip_row(each, shown) for each in histories]


def _by_account(items: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for each in items:
        found.setdefault(each.account, []).append(each)
    return found


def _name(failure: Any) -> str:
    return cut(failure.name or failure.subject, _LONGEST_NAME)


def _all_accounts(histories: Sequence[AccountHistory], failures: Sequence[Any]) -> AccountHistory:
    since = [each.watched_since for each in histories if each.watched_since is not None]
    marks = [
        (at(each.observed_at), f"{each.account}: {cut(each.name or each.subject, 200)}")
        for each in failures
    ]
    hours = _summed_hours(histories)
    return AccountHistory(
        f"all {len(histories)} accounts", min(since, default=None), hours, (), marks
    )


def _summed_hours(histories: Iterable[AccountHistory]) -> list[HourRecord]:
    """Return the sums over all accounts, at each hour in which one of them changed."""
    changes = sorted((each.hour, each.account, each.counts) for h in histories for each in h.hours)
    current: dict[str, StatusCounts] = {}
    summed: dict[datetime, HourRecord] = {}
    for hour, account, counts in changes:
        current[account] = counts
        total = {s: sum(getattr(each, s) for each in current.values()) for s in STATUSES}
        summed[hour] = HourRecord(account="", hour=hour, counts=StatusCounts(**total))
    return list(summed.values())


def _strip_table(
    view: View, shown: TimeRange, outages: Sequence[OutageRecord], *, by_hour: bool
) -> list[dict[str, Any]]:
    step = HOUR if by_hour else DAY
    begin = shown.begin if by_hour else shown.begin.replace(hour=0)
    number = int((view.now - begin) / step) + 1
    totals = _event_counts(view, [begin + n * step for n in range(number + 1)])
    rows = []
    for index in reversed(range(number)):
        first = begin + index * step
        within = [o for o in outages if o.since < first + step and (o.until or view.now) > first]
        created, completed, failed = totals[index]
        rows.append(
            {
                "name": f"{first:%H:%M}" if by_hour else f"{first:%a} {first.day}",
                "created": created,
                "completed": completed,
                "failed": failed,
                "outages": _outage_words(within),
            }
        )
    return rows


def _event_counts(view: View, bounds: Sequence[datetime]) -> list[tuple[int, int, int]]:
    """Return how many were created, completed and failed between each two bounds."""
    names = [each.name for each in view.settings.accounts]
    # One count for each: an index holds the times, and both engines find them in it.
    counts = [
        select(func.count())
        .where(events.c.type == f"fine_tune.{word}", events.c.account.in_(names))
        .where(events.c.observed_at >= since.timestamp())
        .where(events.c.observed_at < until.timestamp())
        .scalar_subquery()
        for since, until in pairwise(bounds)
        for word in ("created", "completed", "failed")
    ]
    row = view.connection.execute(select(*counts)).one()
    return [tuple(row[n : n + 3]) for n in range(0, len(row), 3)]


def _outage_words(outages: Sequence[OutageRecord]) -> str:
    words = [
        f"{each.account} {each.since:%H:%M} to {f'{each.until:%H:%M}' if each.until else 'now'}"
        for each in outages[:3]
    ]
    if len(outages) > len(words):
        words.append(f"{len(outages) - len(words)} more")
    return ", ".join(words)
