"""Status and series of an account as published after each poll."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop
from operator import attrgetter

from msgspec import Struct, field

from exporter.core.counters import Counters, Examples
from exporter.core.diff import Tracked
from exporter.core.labels import MODEL, LabelName, Labels, label_value
from exporter.core.model import (
    STATUSES,
    TERMINAL,
    FineTune,
    Snapshot,
    status_label,
)
from exporter.core.status import Canonical, canonical_status, confirmed_status

Counts = Mapping[tuple[str, ...], int]
"""Number of fine-tunes by the values of the labels and, last, the status."""

Series = tuple[str, str, str]
"""Label values of a fine-tune with its own series: id, model_id and status."""


class SeriesOptions(Struct, frozen=True):
    """Series that an account exports.

    ``names`` are the labels of ``cartesia_fine_tunes``, ``constant`` the account's own labels on
    all data series. ``most_fine_tunes`` fine-tunes have their own series; 0 for none.
    """

    names: tuple[LabelName, ...] = (MODEL,)
    constant: tuple[tuple[str, str], ...] = ()
    most_fine_tunes: int = 0


class AccountStatus(Struct, frozen=True):
    """Published status of one account. Times are Unix seconds, 0 for never.

    ``counts`` is None before this process's first complete poll. ``oldest`` is the time since when
    the first fine-tune in a status is in it, as observed. ``failure`` is the reason of the last
    poll's failure, empty if it succeeded. From ``stale_at`` on, in monotonic seconds, the data is
    too old to be exported: a change of the wall clock does not make it older. ``failing_since`` is
    the first of the polls that failed in a row. ``moves`` counts the takeovers of the account from
    a replica at another address.
    """

    account: str
    up: bool = False
    polled_at: float = 0.0
    succeeded_at: float = 0.0
    duration: float = 0.0
    pages: int = 0
    labels: Labels = field(default_factory=Labels)
    counts: Counts | None = None
    counters: Counters = field(default_factory=Counters)
    failure: str = ""
    options: SeriesOptions = field(default_factory=SeriesOptions)
    oldest: Mapping[str, float] = field(default_factory=dict)
    series: tuple[Series, ...] = ()
    examples: Examples = field(default_factory=dict)
    stale_at: float = math.inf
    next_poll_at: float = 0.0
    failing_since: float = 0.0
    moves: int = 0

    def is_stale(self, monotonic: float) -> bool:
        """Whether the data is too old at this monotonic time in seconds."""
        return monotonic >= self.stale_at

    def is_fresh(self, monotonic: float) -> bool:
        """Whether there is a snapshot that is not too old."""
        return self.counts is not None and not self.is_stale(monotonic)


def count(
    fine_tunes: Iterable[FineTune],
    labels: Labels,
    names: tuple[LabelName, ...] = (MODEL,),
    canonical: Canonical = canonical_status,
) -> Counts:
    """Return the number of fine-tunes per label values and status.

    Every status has a value, 0 if no fine-tune has it; with at most one label this holds for every
    value seen: all combinations of several labels would be too many.
    """
    naming = labels.naming(names)
    seen: list[tuple[str, ...]] = [] if names else [()]
    if len(names) == 1:
        seen = [(value,) for value in labels.values(names[0])]
    counts = Counter({(*values, status): 0 for values in seen for status in STATUSES})
    # Distinct texts first: one lookup of labels and status per combination.
    for (read, *texts), number in Counter(map(_texts(names), fine_tunes)).items():
        values = naming.of(*texts)
        if (*values, STATUSES[0]) not in counts:
            counts.update({(*values, status): 0 for status in STATUSES})
        counts[*values, status_label(canonical(read))] += number
    return dict(counts)


def by_status(counts: Counts) -> dict[str, int]:
    """Return the number of fine-tunes per status, 0 for a status without any."""
    totals = dict.fromkeys(STATUSES, 0)
    for (*_, status), number in counts.items():
        totals[status] += number
    return totals


def _texts(names: tuple[LabelName, ...]) -> Callable[[FineTune], tuple[str, ...]]:
    if names:
        return attrgetter("status", *names)
    return lambda fine_tune: (fine_tune.status,)


def oldest(
    snapshot: Snapshot, tracked: Tracked, canonical: Canonical = canonical_status
) -> Mapping[str, float]:
    """Return the time since when the first fine-tune in a status is in it, per status in use.

    The status is the one read, as in the counts; a status that is not confirmed begins now.
    """
    first: dict[str, float] = {}
    for fine_tune_id, read in snapshot.fine_tunes.items():
        each = tracked[fine_tune_id]
        same = each.fine_tune.status == read.status or confirmed_status(each) == canonical(
            read.status
        )
        since = each.since if same else snapshot.read_at
        if since < first.get(read.status, math.inf):
            first[read.status] = since
    found: dict[str, float] = {}
    for status, since in first.items():
        label = status_label(canonical(status))
        found[label] = min(since, found.get(label, since))
    return found


def series(
    snapshot: Snapshot,
    tracked: Tracked,
    labels: Labels,
    most: int,
    canonical: Canonical = canonical_status,
) -> tuple[Series, ...]:
    """Return the ``most`` fine-tunes with their own series: not terminal and newest first."""
    if not most:
        return ()
    naming = labels.naming((MODEL,))
    # A heap instead of sorting: only the first few of 100,000 are used.
    ranked = [
        (canonical(read.status) in TERMINAL, -tracked[read.id].since, index, read)
        for index, read in enumerate(snapshot.fine_tunes.values())
    ]
    heapify(ranked)
    # Keyed by label value: two ids that are equal once cut would fail the whole scrape.
    chosen: dict[str, Series] = {}
    while ranked and len(chosen) < most:
        *_, read = heappop(ranked)
        label = label_value(read.id)
        (model,) = naming.of(read.model_id)
        chosen.setdefault(label, (label, model, status_label(canonical(read.status))))
    return tuple(chosen.values())
