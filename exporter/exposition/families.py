"""Metric families of the accounts, built anew from the newest status of each account.

No family keeps state: a series whose source has gone upstream disappears by itself.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import Exemplar

from exporter.core.counters import DURATION_BOUNDS, EXPECTED
from exporter.core.labels import MODEL
from exporter.core.model import STATUSES
from exporter.core.view import AccountStatus
from exporter.exposition.text_format import Block, Family, LabelValues, format_value


def data_families(statuses: Sequence[AccountStatus], monotonic: float) -> Iterator[Family]:
    """Yield the data series of the accounts that are fresh at this monotonic time in seconds."""
    statuses = [status for status in statuses if status.is_fresh(monotonic)]
    yield _gauge(
        "cartesia_fine_tunes",
        "Number of fine-tunes by status, as of the last complete poll.",
        [
            _data_block(status, (*status.options.names, "status"), status.counts or {})
            for status in statuses
        ],
    )
    yield _gauge(
        "cartesia_fine_tune_oldest_in_status_timestamp_seconds",
        "Unix time at which the oldest fine-tune in a status entered it, as observed and as of the "
        "last complete poll; absent if there is none.",
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
            "Status of a fine-tune, as of the last complete poll; the value is always 1. At most "
            "metrics.max_fine_tune_series per account: first those that have not ended, then those "
            "that changed last.",
            [_data_block(each, names, dict.fromkeys(each.series, 1.0)) for each in with_series],
        )


_POLL_GAUGES: Final[tuple[tuple[str, str, Callable[[AccountStatus, float], float]], ...]] = (
    (
        "cartesia_up",
        "Whether the last poll read every page (1) or failed (0).",
        lambda status, _: status.up,
    ),
    (
        "cartesia_poll_timestamp_seconds",
        "Unix time at the end of the last poll; 0 before the first.",
        lambda status, _: status.polled_at,
    ),
    (
        "cartesia_poll_success_timestamp_seconds",
        "Unix time at the end of the last complete poll; 0 before the first.",
        lambda status, _: status.succeeded_at,
    ),
    (
        "cartesia_poll_duration_seconds",
        "Duration of the last poll in seconds.",
        lambda status, _: status.duration,
    ),
    (
        "cartesia_poll_pages",
        "Number of pages of the list, as of the last complete poll.",
        lambda status, _: status.pages,
    ),
    (
        "cartesia_stale",
        "Whether the data is older than poll.stale_after (1); the data series are withheld then.",
        lambda status, monotonic: status.is_stale(monotonic),
    ),
)


def poll_families(statuses: Sequence[AccountStatus], monotonic: float) -> Iterator[Family]:
    """Yield the results of the last polls. ``monotonic`` is the current time in seconds."""
    for name, help_text, value in _POLL_GAUGES:
        blocks = [Block({"account": s.account}, (), [((), value(s, monotonic))]) for s in statuses]
        yield _gauge(name, help_text, blocks)


def history_families(statuses: Sequence[AccountStatus]) -> Iterator[Family]:
    """Yield the stored counters of accounts, which survive restarts.

    After a takeover from another replica they are new series. A replica that had the account before
    would otherwise continue its own, and `increase()` would add what another one counted meanwhile.
    """
    yield Family(
        "cartesia_fine_tune_transitions",
        "counter",
        "Confirmed status changes of fine-tunes; from_status is none for a fine-tune seen for the "
        "first time.",
        [_transitions(status) for status in statuses],
    )
    yield Family(
        "cartesia_fine_tunes_removed",
        "counter",
        "Fine-tunes that were removed from the list, by their last confirmed status.",
        [
            Block(
                _counted_of(status),
                ("status",),
                [((name,), status.counters.removed.get(name, 0)) for name in STATUSES],
                "_total",
            )
            for status in statuses
        ],
    )
    yield Family(
        "cartesia_fine_tune_status_duration_seconds",
        "histogram",
        "Time in seconds that fine-tunes spent in a status before they left it, as observed; "
        "without those whose start was not observed.",
        [block for status in statuses for name in STATUSES for block in _durations(status, name)],
    )


def _counted_of(status: AccountStatus) -> dict[str, str]:
    takeover = {"takeover": str(status.moves)} if status.moves else {}
    return {"account": status.account, **takeover}


def _gauge(name: str, help_text: str, blocks: list[Block]) -> Family:
    return Family(name, "gauge", help_text, blocks)


def _data_block(
    status: AccountStatus, names: tuple[str, ...], numbers: Mapping[LabelValues, float]
) -> Block:
    fixed = {**dict(status.options.constant), "account": status.account}
    return Block(fixed, names, sorted(numbers.items()))


def _transitions(status: AccountStatus) -> Block:
    by_model = MODEL in status.options.names
    # The stored keys begin with the model: it is dropped where the account has no such label.
    start = 0 if by_model else 1
    names = (MODEL, "from_status", "to_status")[start:]
    counted: Counter[LabelValues] = Counter()
    for key, number in status.counters.transitions.items():
        counted[key[start:]] += number
    models: set[LabelValues] = {()}
    if by_model:
        # `other` is not among the labels: it exists once something was counted under it.
        index = status.options.names.index(MODEL)
        models = {
            *((model,) for model in status.labels.models),
            *((key[index],) for key in status.counts or ()),
            *((key[0],) for key in counted),
        }
    expected = {(*model, *pair): 0 for model in models for pair in EXPECTED}
    rows = sorted({**expected, **counted}.items())
    # Oldest first: the newest example of a series replaces the others.
    examples = sorted(status.examples.items(), key=lambda item: item[1].at)
    exemplars = {
        key[start:]: Exemplar({"fine_tune_id": example.fine_tune_id}, 1.0, example.at)
        for key, example in examples
    }
    return Block(_counted_of(status), names, rows, "_total", exemplars)


def _durations(status: AccountStatus, name: str) -> Iterator[Block]:
    """Yield the histogram of the time in the status ``name``."""
    fixed = {**_counted_of(status), "status": name}
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
