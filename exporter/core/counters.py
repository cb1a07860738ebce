"""Counters of confirmed transitions; they are stored and survive restarts."""

import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from msgspec import Struct, field

from exporter.core.labels import MODEL, Labels, Naming
from exporter.core.model import (
    COMPLETED,
    CREATED,
    FAILED,
    NONE,
    TRAINING,
    UNKNOWN,
    Transition,
)

_Key = TypeVar("_Key")
_Total = TypeVar("_Total", int, "DurationBucket")

TransitionKey = tuple[str, str, str]
"""model_id, from_status and to_status, as label values."""

EXPECTED: Final = (
    *((NONE, status) for status in (CREATED, TRAINING, COMPLETED, FAILED)),
    (CREATED, TRAINING),
    (CREATED, FAILED),
    (TRAINING, COMPLETED),
    (TRAINING, FAILED),
    *((FAILED, status) for status in (CREATED, TRAINING, COMPLETED)),
    *((COMPLETED, status) for status in (TRAINING, FAILED)),
    (UNKNOWN, FAILED),
)
"""Transitions exported at zero for each model: `increase()` misses a series' first value."""

DURATION_BOUNDS: Final = (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 86400.0)
"""Upper bounds in seconds of the histogram of time in status: training takes minutes to hours."""

DurationKey = tuple[str, float]
"""A status as a label value, and the upper bound of the bucket in seconds; the last is infinite."""


class DurationBucket(Struct, frozen=True, order=True):
    """Number of observations in one bucket, and the sum of their seconds."""

    total: int = 0
    seconds: float = 0.0


class Counters(Struct, frozen=True):
    """An account's counters, and its histogram of the time in a status."""

    transitions: Mapping[TransitionKey, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)
    durations: Mapping[DurationKey, DurationBucket] = field(default_factory=dict)

    def larger(self, other: "Counters") -> "Counters":
        """Return the larger of each counter in these and in ``other``."""
        if self == other:
            return self
        return Counters(
            _larger(self.transitions, other.transitions),
            _larger(self.removed, other.removed),
            _larger(self.durations, other.durations),
        )

    def after(self, transitions: Iterable[Transition], labels: Labels) -> "Counters":
        """Return the counters after confirmed transitions."""
        naming = labels.naming((MODEL,))
        moved = Counter(self.transitions)
        removed = Counter(self.removed)
        durations = dict(self.durations)
        for transition in transitions:
            if transition.removed:
                removed[transition.to_status] += 1
                continue
            moved[transition_key(transition, naming)] += 1
            if transition.time_in_status is not None:
                _add_duration(durations, transition.from_status, transition.time_in_status)
        return Counters(dict(moved), dict(removed), durations)


def _larger(first: Mapping[_Key, _Total], second: Mapping[_Key, _Total]) -> dict[_Key, _Total]:
    return {**second, **{key: max(value, second.get(key, value)) for key, value in first.items()}}


def transition_key(transition: Transition, naming: Naming) -> TransitionKey:
    """Return the label values of a transition; ``naming`` is for models."""
    (model,) = naming.of(transition.fine_tune.model_id)
    return model, transition.from_status, transition.to_status


def _add_duration(
    durations: dict[DurationKey, DurationBucket], status: str, seconds: float
) -> None:
    bucket = bisect_left(DURATION_BOUNDS, seconds)
    key = status, (*DURATION_BOUNDS, math.inf)[bucket]
    before = durations.get(key, DurationBucket())
    durations[key] = DurationBucket(before.total + 1, before.seconds + seconds)


class Example(Struct, frozen=True):
    """Fine-tune of the last transition that a series counted, and its time (Unix seconds)."""

    fine_tune_id: str
    at: float


Examples = Mapping[TransitionKey, Example]

# OpenMetrics 1.0: the label names and values of an exemplar have at most 128 characters in total.
# Many parsers, prometheus_client's among them, misread quotes, braces and # in an exemplar.
_EXAMPLE: Final = re.compile(rf"[\w.:/@+-]{{1,{128 - len('fine_tune_id')}}}")


def examples(transitions: Iterable[Transition], labels: Labels, now: float) -> Examples:
    """Return the last fine-tune of each series of transitions, for exemplars.

    A fine-tune whose id does not fit into an exemplar is left out.
    """
    naming = labels.naming((MODEL,))
    found = {}
    for transition in transitions:
        fine_tune_id = transition.fine_tune.id
        if not transition.removed and _EXAMPLE.fullmatch(fine_tune_id):
            found[transition_key(transition, naming)] = Example(fine_tune_id, now)
    return found
