"""What is known of the accounts as metric families, built afresh at each reading.

What is gone upstream is gone here: nothing is a gauge that somebody must remember to clear.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from exporter.core.model import (
    COMPLETED,
    CREATED,
    FAILED,
    NONE,
    STATUSES,
    TRAINING,
    FineTune,
    Transition,
    status_label,
)
from exporter.core.text import cut

OTHER: Final = "other"
"""The label value that stands for all that came after the first ``max_models``."""

_LONGEST_LABEL: Final = 256

TransitionKey = tuple[str, str, str]
"""model_id, from_status and to_status, as label values."""

_EXPECTED: Final = (
    *((NONE, status) for status in (CREATED, TRAINING, COMPLETED, FAILED)),
    (CREATED, TRAINING),
    (CREATED, FAILED),
    (TRAINING, COMPLETED),
    (TRAINING, FAILED),
    *((FAILED, status) for status in (CREATED, TRAINING, COMPLETED)),
    *((COMPLETED, status) for status in (TRAINING, FAILED)),
)
"""Shown at zero for every known model: `increase()` never sees the birth of a series."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The model names that have a label value of their own, in the order first seen."""

    models: tuple[str, ...] = ()

    def seeing(self, fine_tunes: Iterable[FineTune], most: int) -> "Labels":
        """Return the names after another reading; the first ``most`` ever seen stay for good."""
        known = dict.fromkeys(self.models)
        for model in sorted({model_label(fine_tune.model_id) for fine_tune in fine_tunes}):
            if len(known) < most:
                known.setdefault(model)
        return self if len(known) == len(self.models) else Labels(tuple(known))

    def of(self, model_id: str, named: frozenset[str]) -> str:
        """Return the label value for a model, ``named`` being the set of ``models``."""
        label = model_label(model_id)
        return label if label in named else OTHER


def model_label(model_id: str) -> str:
    """Return a model's name as a label value: as it is, but no longer than 256 characters."""
    return cut(model_id, _LONGEST_LABEL)


Counts = Mapping[tuple[str, str], int]
"""How many fine-tunes, by label values model_id and status."""


@dataclass(frozen=True, slots=True)
class Tallies:
    """An account's counters; they outlive the process, as rows of the store."""

    transitions: Mapping[TransitionKey, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)

    def adding(self, transitions: Iterable[Transition], labels: Labels) -> "Tallies":
        """Return the counters after some confirmed transitions."""
        named = frozenset(labels.models)
        moved = Counter(self.transitions)
        removed = Counter(self.removed)
        for transition in transitions:
            status = status_label(transition.fine_tune.status)
            if transition.removed:
                removed[status] += 1
                continue
            previous = transition.previous_status
            origin = NONE if previous is None else status_label(previous)
            moved[labels.of(transition.fine_tune.model_id, named), origin, status] += 1
        return Tallies(dict(moved), dict(removed))


def count(fine_tunes: Iterable[FineTune], labels: Labels) -> Counts:
    """Return the number of fine-tunes per model and status, with zeros for every known model."""
    named = frozenset(labels.models)
    counts = Counter({(model, status): 0 for model in labels.models for status in STATUSES})
    for fine_tune in fine_tunes:
        model = labels.of(fine_tune.model_id, named)
        if (model, STATUSES[0]) not in counts:
            counts.update({(model, status): 0 for status in STATUSES})
        counts[model, status_label(fine_tune.status)] += 1
    return dict(counts)


@dataclass(frozen=True, slots=True)
class AccountView:
    """What the page shows of one account. Times are Unix seconds, 0 for never.

    ``counts`` is None before this process's first complete poll. ``failure`` is the reason why the
    last poll failed, empty when it did not.
    """

    account: str
    up: bool = False
    polled_at: float = 0.0
    succeeded_at: float = 0.0
    duration: float = 0.0
    pages: int = 0
    labels: Labels = field(default_factory=Labels)
    counts: Counts | None = None
    tallies: Tallies = field(default_factory=Tallies)
    failure: str = ""


def families(views: Iterable[AccountView]) -> Iterator[Metric]:
    """Yield the metric families of the data, for all accounts."""
    views = list(views)
    yield _fine_tunes(views)
    yield from _polls(views)
    yield _transitions(views)
    yield _removals(views)


def _fine_tunes(views: list[AccountView]) -> Metric:
    family = GaugeMetricFamily(
        "cartesia_fine_tunes",
        "Fine-tunes by model and status, as of the last complete poll.",
        labels=("account", "model_id", "status"),
    )
    for view in views:
        for (model, status), number in sorted((view.counts or {}).items()):
            family.add_metric((view.account, model, status), number)
    return family


def _polls(views: list[AccountView]) -> Iterator[Metric]:
    gauges = (
        ("cartesia_up", "Whether the last poll read every page.", "up"),
        (
            "cartesia_poll_timestamp_seconds",
            "Unix time at which the last poll ended; 0 before the first.",
            "polled_at",
        ),
        (
            "cartesia_poll_success_timestamp_seconds",
            "Unix time at which the last complete poll ended; 0 before the first.",
            "succeeded_at",
        ),
        ("cartesia_poll_duration_seconds", "Time that the last poll took.", "duration"),
        ("cartesia_poll_pages", "Pages of the list, as of the last complete poll.", "pages"),
    )
    for name, text, attribute in gauges:
        family = GaugeMetricFamily(name, text, labels=("account",))
        for view in views:
            family.add_metric((view.account,), float(getattr(view, attribute)))
        yield family


def _transitions(views: list[AccountView]) -> Metric:
    family = CounterMetricFamily(
        "cartesia_fine_tune_transitions",
        "Confirmed changes of status; from_status is none for a fine-tune first seen.",
        labels=("account", "model_id", "from_status", "to_status"),
    )
    for view in views:
        counted = view.tallies.transitions
        # `other` is no label of its own: it is there once something was counted under it.
        models = {*view.labels.models, *(key[0] for key in (*(view.counts or ()), *counted))}
        expected = ((model, *pair) for model in models for pair in _EXPECTED)
        for key in sorted({*expected, *counted}):
            family.add_metric((view.account, *key), counted.get(key, 0))
    return family


def _removals(views: list[AccountView]) -> Metric:
    family = CounterMetricFamily(
        "cartesia_fine_tunes_removed",
        "Fine-tunes that left the list, by their last confirmed status.",
        labels=("account", "status"),
    )
    for view in views:
        for status in STATUSES:
            family.add_metric((view.account, status), view.tallies.removed.get(status, 0))
    return family
