"""What is known of the accounts as families of series, built afresh from the newest views.

What is gone upstream is gone here: nothing is a gauge that somebody must remember to clear.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import Exemplar

from exporter.core.counters import DURATION_BOUNDS, EXPECTED, DurationBucket, Example
from exporter.core.labels import MODEL
from exporter.core.model import STATUSES
from exporter.core.view import AccountStatus
from exporter.exposition.text_format import Block, Family, Values, shown


def data_families(views: Iterable[AccountStatus]) -> Iterator[Family]:
    """Yield the data series of these accounts: those that are dropped when they are too old."""
    views = [view for view in views if view.counts is not None]
    yield _gauge(
        "cartesia_fine_tunes",
        "Fine-tunes by status, as of the last complete poll.",
        [_block(view, (*view.options.names, "status"), view.counts or {}) for view in views],
    )
    yield _gauge(
        "cartesia_fine_tune_oldest_in_status_timestamp_seconds",
        "Unix time since when the first of the fine-tunes in a status is in it, as observed and as "
        "of the last complete poll; absent when nobody is in it.",
        [_block(view, ("status",), _keyed(view.oldest)) for view in views],
    )
    listed = [view for view in views if view.options.most_fine_tunes]
    if listed:
        names = ("fine_tune_id", MODEL, "status")
        yield _gauge(
            "cartesia_fine_tune_status",
            "Always 1; the status of a fine-tune, as of the last complete poll. Not terminal and "
            "newest first, at most metrics.max_fine_tune_series for each account.",
            [_block(view, names, dict.fromkeys(view.series, 1.0)) for view in listed],
        )


def poll_families(views: Sequence[AccountStatus], monotonic: float) -> Iterator[Family]:
    """Yield how the last polls of the accounts went; ``monotonic`` is the time in seconds."""
    for name, text, value in _GAUGES:
        yield _gauge(name, text, [_one(view, value(view)) for view in views])
    yield _gauge(
        "cartesia_stale",
        "Whether nothing was read for longer than poll.stale_after: the data series are withheld.",
        [_one(view, view.is_stale(monotonic)) for view in views],
    )


def history_families(views: Sequence[AccountStatus]) -> Iterator[Family]:
    """Yield what was ever counted of the accounts' fine-tunes."""
    yield Family(
        "cartesia_fine_tune_transitions",
        "counter",
        "Confirmed changes of status; from_status is none for a fine-tune first seen.",
        [_transitions(view) for view in views],
    )
    yield Family(
        "cartesia_fine_tunes_removed",
        "counter",
        "Fine-tunes that left the list, by their last confirmed status.",
        [_removals(view) for view in views],
    )
    yield Family(
        "cartesia_fine_tune_status_duration_seconds",
        "histogram",
        "Time for which a fine-tune was in a status that it left, as observed; without those whose "
        "beginning was not seen.",
        [block for view in views for status in STATUSES for block in _stays(view, status)],
    )


_GAUGES: Final[tuple[tuple[str, str, Callable[[AccountStatus], float]], ...]] = (
    ("cartesia_up", "Whether the last poll read every page.", lambda view: view.up),
    (
        "cartesia_poll_timestamp_seconds",
        "Unix time at which the last poll ended; 0 before the first.",
        lambda view: view.polled_at,
    ),
    (
        "cartesia_poll_success_timestamp_seconds",
        "Unix time at which the last complete poll ended; 0 before the first.",
        lambda view: view.succeeded_at,
    ),
    (
        "cartesia_poll_duration_seconds",
        "Time that the last poll took.",
        lambda view: view.duration,
    ),
    (
        "cartesia_poll_pages",
        "Pages of the list, as of the last complete poll.",
        lambda view: view.pages,
    ),
)


def _gauge(name: str, text: str, blocks: list[Block]) -> Family:
    return Family(name, "gauge", text, blocks)


def _block(view: AccountStatus, names: tuple[str, ...], numbers: Mapping[Values, float]) -> Block:
    fixed = {**dict(view.options.constant), "account": view.account}
    return Block(fixed, names, sorted(numbers.items()))


def _keyed(numbers: Mapping[str, float]) -> Mapping[Values, float]:
    return {(status,): number for status, number in numbers.items()}


def _one(view: AccountStatus, number: float) -> Block:
    return Block({"account": view.account}, (), [((), float(number))])


def _transitions(view: AccountStatus) -> Block:
    split = MODEL in view.options.names
    names = (*((MODEL,) if split else ()), "from_status", "to_status")
    counted: Counter[Values] = Counter()
    for key, number in view.counters.transitions.items():
        counted[key if split else key[1:]] += number
    known: set[Values] = {(model,) for model in _models(view)} if split else {()}
    expected = {(*value, *pair): 0 for value in known for pair in EXPECTED}
    rows: list[tuple[Values, float]] = sorted({**expected, **counted}.items())
    last: dict[Values, Example] = {}
    for key, example in view.examples.items():
        place = key if split else key[1:]
        last[place] = max(example, last.get(place, example), key=lambda each: each.at)
    exemplars = {place: _exemplar(example) for place, example in last.items()}
    return Block({"account": view.account}, names, rows, "_total", exemplars)


def _models(view: AccountStatus) -> set[str]:
    # `other` is no label of its own: it is there once something was counted under it.
    place = view.options.names.index(MODEL)
    counts, counted = view.counts or (), view.counters.transitions
    return {*view.labels.models, *(key[place] for key in counts), *(key[0] for key in counted)}


def _exemplar(example: Example) -> Exemplar:
    return Exemplar({"fine_tune_id": example.fine_tune_id}, 1.0, example.at)


def _removals(view: AccountStatus) -> Block:
    rows: list[tuple[Values, float]] = [
        ((status,), view.counters.removed.get(status, 0)) for status in STATUSES
    ]
    return Block({"account": view.account}, ("status",), rows, "_total")


def _stays(view: AccountStatus, status: str) -> Iterator[Block]:
    fixed = {"account": view.account, "status": status}
    # A bound of an older version falls into the next one that there is now.
    found = {bound: each for (of, bound), each in view.counters.durations.items() if of == status}
    bounds = (*DURATION_BOUNDS, math.inf)
    numbers = [0] * len(bounds)
    for bound, each in found.items():
        numbers[sum(other < bound for other in bounds)] += each.total
    rows: list[tuple[Values, float]] = [
        ((shown(bound),), number) for bound, number in zip(bounds, accumulate(numbers), strict=True)
    ]
    yield Block(fixed, ("le",), rows, "_bucket")
    yield Block(fixed, (), [((), sum(numbers))], "_count")
    yield Block(fixed, (), [((), _seconds(found.values()))], "_sum")


def _seconds(stays: Iterable[DurationBucket]) -> float:
    return math.fsum(each.seconds for each in stays)
