"""Metric families of the accounts, built anew from the newest status of each account.

No family keeps state: a series whose source has gone upstream disappears by itself.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import Exemplar

from exporter.core.counters import DURATION_BOUNDS, EXPECTED, Example
from exporter.core.labels import MODEL
from exporter.core.model import STATUSES
from exporter.core.view import AccountStatus
from exporter.exposition.text_format import Block, Family, LabelValues, format_value


def data_families(statuses: Iterable[AccountStatus]) -> Iterator[Family]:
    """Yield the data series of accounts. The caller leaves out accounts with stale data."""
    statuses = [status for status in statuses if status.counts is not None]
    yield _gauge(
        "cartesia_fine_tunes",
        "Fine-tunes by status, as of the last complete poll.",
        [
            _data_block(status, (*status.options.names, "status"), status.counts or {})
            for status in statuses
        ],
    )
    yield _gauge(
        "cartesia_fine_tune_oldest_in_status_timestamp_seconds",
        "Unix time since when the first of the fine-tunes in a status is in it, as observed and as "
        "of the last complete poll; absent when nobody is in it.",
        [
            _data_block(status, ("status",), {(name,): at for name, at in status.oldest.items()})
            for status in statuses
        ],
    )
    with_series = [status for status in statuses if status.options.most_fine_tunes]
    if with_series:
        names = ("fine_tune_id", MODEL, "status")
        yield _gauge(
            "cartesia_fine_tune_status",
            "Always 1; the status of a fine-tune, as of the last complete poll. Not terminal and "
            "newest first, at most metrics.max_fine_tune_series for each account.",
            [_data_block(each, names, dict.fromkeys(each.series, 1.0)) for each in with_series],
        )


_POLL_GAUGES: Final[tuple[tuple[str, str, Callable[[AccountStatus], float]], ...]] = (
    ("cartesia_up", "Whether the last poll read every page.", lambda status: status.up),
    (
        "cartesia_poll_timestamp_seconds",
        "Unix time at which the last poll ended; 0 before the first.",
        lambda status: status.polled_at,
    ),
    (
        "cartesia_poll_success_timestamp_seconds",
        "Unix time at which the last complete poll ended; 0 before the first.",
        lambda status: status.succeeded_at,
    ),
    (
        "cartesia_poll_duration_seconds",
        "Time that the last poll took.",
        lambda status: status.duration,
    ),
    (
        "cartesia_poll_pages",
        "Pages of the list, as of the last complete poll.",
        lambda status: status.pages,
    ),
)


def poll_families(statuses: Sequence[AccountStatus], monotonic: float) -> Iterator[Family]:
    """Yield the results of the last polls. ``monotonic`` is the current time in seconds."""
    for name, help_text, value in _POLL_GAUGES:
        yield _gauge(name, help_text, [_one(status, value(status)) for status in statuses])
    yield _gauge(
        "cartesia_stale",
        "Whether nothing was read for longer than poll.stale_after: the data series are withheld.",
        [_one(status, status.is_stale(monotonic)) for status in statuses],
    )


def history_families(statuses: Sequence[AccountStatus]) -> Iterator[Family]:
    """Yield the stored counters of accounts, which survive restarts."""
    yield Family(
        "cartesia_fine_tune_transitions",
        "counter",
        "Confirmed changes of status; from_status is none for a fine-tune first seen.",
        [_transitions(status) for status in statuses],
    )
    yield Family(
        "cartesia_fine_tunes_removed",
        "counter",
        "Fine-tunes that left the list, by their last confirmed status.",
        [_removals(status) for status in statuses],
    )
    yield Family(
        "cartesia_fine_tune_status_duration_seconds",
        "histogram",
        "Time for which a fine-tune was in a status that it left, as observed; without those whose "
        "beginning was not seen.",
        [block for status in statuses for name in STATUSES for block in _durations(status, name)],
    )


def _gauge(name: str, help_text: str, blocks: list[Block]) -> Family:
    return Family(name, "gauge", help_text, blocks)


def _data_block(
    status: AccountStatus, names: tuple[str, ...], numbers: Mapping[LabelValues, float]
) -> Block:
    fixed = {**dict(status.options.constant), "account": status.account}
    return Block(fixed, names, sorted(numbers.items()))


def _one(status: AccountStatus, number: float) -> Block:
    return Block({"account": status.account}, (), [((), float(number))])


def _transitions(status: AccountStatus) -> Block:
    by_model = MODEL in status.options.names
    # The stored keys begin with the model: it is dropped where the account has no such label.
    start = 0 if by_model else 1
    names = (MODEL, "from_status", "to_status")[start:]
    counted: Counter[LabelValues] = Counter()
    for key, number in status.counters.transitions.items():
        counted[key[start:]] += number
    models: set[LabelValues] = {(model,) for model in _models(status)} if by_model else {()}
    expected = {(*model, *pair): 0 for model in models for pair in EXPECTED}
    rows: list[tuple[LabelValues, float]] = sorted({**expected, **counted}.items())
    latest: dict[LabelValues, Example] = {}
    for key, example in status.examples.items():
        values = key[start:]
        latest[values] = max(example, latest.get(values, example), key=lambda each: each.at)
    exemplars = {
        values: Exemplar({"fine_tune_id": example.fine_tune_id}, 1.0, example.at)
        for values, example in latest.items()
    }
    return Block({"account": status.account}, names, rows, "_total", exemplars)


def _models(status: AccountStatus) -> set[str]:
    # `other` is not among the labels: it exists once something was counted under it.
    index = status.options.names.index(MODEL)
    return {
        *status.labels.models,
        *(key[index] for key in status.counts or ()),
        *(key[0] for key in status.counters.transitions),
    }


def _removals(status: AccountStatus) -> Block:
    rows: list[tuple[LabelValues, float]] = [
        ((name,), status.counters.removed.get(name, 0)) for name in STATUSES
    ]
    return Block({"account": status.account}, ("status",), rows, "_total")


def _durations(status: AccountStatus, name: str) -> Iterator[Block]:
    """Yield the histogram of the time in the status ``name``."""
    fixed = {"account": status.account, "status": name}
    stored = {
        bound: bucket for (of, bound), bucket in status.counters.durations.items() if of == name
    }
    bounds = (*DURATION_BOUNDS, math.inf)
    totals = [0] * len(bounds)
    for stored_bound, bucket in stored.items():
        # A bound that an older version stored is counted in the next larger bound.
        totals[sum(bound < stored_bound for bound in bounds)] += bucket.total
    rows: list[tuple[LabelValues, float]] = [
        ((format_value(bound),), total)
        for bound, total in zip(bounds, accumulate(totals), strict=True)
    ]
    seconds = math.fsum(bucket.seconds for bucket in stored.values())
    yield Block(fixed, ("le",), rows, "_bucket")
    yield Block(fixed, (), [((), sum(totals))], "_count")
    yield Block(fixed, (), [((), seconds)], "_sum")
