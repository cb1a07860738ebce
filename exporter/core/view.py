"""Status and series of an account as published after each poll."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop
from operator import attrgetter

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

Counts = Mapping[tuple[str, ...], int]
"""How many fine-tunes, by the values of the labels and, last, the status."""

Series = tuple[str, str, str]
"""A fine-tune with a series of its own: its id, model_id and status, as label values."""


@dataclass(frozen=True, slots=True)
class SeriesOptions:
    """Which data series an account has.

    ``names`` are the labels that its fine-tunes are counted by, ``constant`` the ones that all of
    its data series carry. ``most_fine_tunes`` have a series of their own, none of them when 0.
    """

    names: tuple[LabelName, ...] = (MODEL,)
    constant: tuple[tuple[str, str], ...] = ()
    most_fine_tunes: int = 0


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """What the page shows of one account. Times are Unix seconds, 0 for never.

    ``counts`` is None before this process's first complete poll. ``oldest`` says since when the
    first of the fine-tunes in a status is in it, as observed. ``failure`` is the reason why the
    last poll failed, empty when it did not. From ``stale_at`` on, in monotonic seconds, what was
    read is too old to be shown: a wall clock that is set makes nothing older.
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

    def is_stale(self, monotonic: float) -> bool:
        """Whether nothing was read for too long, at this monotonic time in seconds."""
        return monotonic >= self.stale_at

    def is_fresh(self, monotonic: float) -> bool:
        """Whether it has a complete reading that is not too old."""
        return self.counts is not None and not self.is_stale(monotonic)


def count(
    fine_tunes: Iterable[FineTune], labels: Labels, names: tuple[LabelName, ...] = (MODEL,)
) -> Counts:
    """Return the number of fine-tunes per label values and status.

    There are zeros for every status, and where there is one label or none, for every known value:
    all combinations of several would be too many.
    """
    naming = labels.naming(names)
    known: list[tuple[str, ...]] = [] if names else [()]
    if len(names) == 1:
        known = [(value,) for value in labels.values(names[0])]
    counts = Counter({(*values, status): 0 for values in known for status in STATUSES})
    # Equal texts first: naming and status are looked up once for each combination.
    for (read, *texts), number in Counter(map(_texts(names), fine_tunes)).items():
        values = naming.of(*texts)
        if (*values, STATUSES[0]) not in counts:
            counts.update({(*values, status): 0 for status in STATUSES})
        counts[*values, status_label(read)] += number
    return dict(counts)


def _texts(names: tuple[LabelName, ...]) -> Callable[[FineTune], tuple[str, ...]]:
    if names:
        return attrgetter("status", *names)
    return lambda fine_tune: (fine_tune.status,)


def oldest(snapshot: Snapshot, tracked: Tracked) -> Mapping[str, float]:
    """Return since when the first of those in a status is in it, per status that somebody is in.

    The status is the one read, as in the counts; one that is not confirmed yet begins now.
    """
    first: dict[str, float] = {}
    for fine_tune_id, read in snapshot.fine_tunes.items():
        each = tracked[fine_tune_id]
        since = each.since if each.fine_tune.status == read.status else snapshot.read_at
        if since < first.get(read.status, math.inf):
            first[read.status] = since
    found: dict[str, float] = {}
    for status, since in first.items():
        label = status_label(status)
        found[label] = min(since, found.get(label, since))
    return found


def series(snapshot: Snapshot, tracked: Tracked, labels: Labels, most: int) -> tuple[Series, ...]:
    """Return the ``most`` fine-tunes to have a series: not terminal and newest first."""
    if not most:
        return ()
    naming = labels.naming((MODEL,))
    # A heap, not sorted: of a hundred thousand only the first few are asked for.
    ranked = [
        (read.status in TERMINAL, -tracked[read.id].since, place, read)
        for place, read in enumerate(snapshot.fine_tunes.values())
    ]
    heapify(ranked)
    # By label: two ids that are the same once they are cut would fail the whole scrape.
    chosen: dict[str, Series] = {}
    while ranked and len(chosen) < most:
        *_, read = heappop(ranked)
        label = label_value(read.id)
        (model,) = naming.of(read.model_id)
        chosen.setdefault(label, (label, model, status_label(read.status)))
    return tuple(chosen.values())
