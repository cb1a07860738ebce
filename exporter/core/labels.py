"""Text from the API as label values: the first ever seen keep their name, the rest is folded."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from heapq import nsmallest
from operator import attrgetter
from typing import Final, Literal

from exporter.core.model import FineTune
from exporter.core.text import cut

LabelName = Literal["model_id", "language", "dataset"]
"""The attributes of a fine-tune that ``cartesia_fine_tunes`` can be split by."""

MODEL: Final[LabelName] = "model_id"

OTHER: Final = "other"
"""The label value that stands for all that came after the first ``max_models``."""

_LONGEST_LABEL: Final = 256


@dataclass(frozen=True, slots=True)
class Labels:
    """The values that have a name of their own, per label, in the order first seen."""

    models: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()

    def seeing(
        self, fine_tunes: Iterable[FineTune], most: int, names: Iterable[LabelName] = ()
    ) -> "Labels":
        """Return the values after another reading; the first ``most`` ever seen stay for good.

        Models are always remembered, the transitions are counted by them; ``names`` are the others.
        """
        fine_tunes = list(fine_tunes)
        after = self
        for name in dict.fromkeys((MODEL, *names)):
            known = self.values(name)
            # A value that is empty is no label at all and needs no name; a model never is.
            found = _values(fine_tunes, name).difference(known, () if name == MODEL else ("",))
            new = nsmallest(most - len(known), found)
            if new:
                after = replace(after, **{_FIELDS[name]: (*known, *new)})
        return after

    def values(self, name: LabelName) -> tuple[str, ...]:
        """Return the values that have a name, of one label."""
        found: tuple[str, ...] = getattr(self, _FIELDS[name])
        return found

    def naming(self, names: Iterable[LabelName]) -> "Naming":
        """Return what finds the label values of a fine-tune; to be made once for many."""
        return Naming(tuple((name, frozenset(self.values(name))) for name in names))


_FIELDS: Final[dict[LabelName, str]] = {
    "model_id": "models",
    "language": "languages",
    "dataset": "datasets",
}


@dataclass(frozen=True, slots=True)
class Naming:
    """The label values of fine-tunes: itself for a value that has a name, else ``other``."""

    named: tuple[tuple[LabelName, frozenset[str]], ...]

    def of(self, *texts: str) -> tuple[str, ...]:
        """Return the label values for texts of the API, given in the order of the labels."""
        return tuple(map(_named, self.named, texts))

    def folded(self, fine_tunes: Collection[FineTune]) -> frozenset[tuple[str, str]]:
        """Return label and value of what has no name of its own."""
        return frozenset(
            (label[0], value)
            for label in self.named
            for value in _values(fine_tunes, label[0])
            if _named(label, value) != value
        )


def _named(label: tuple[LabelName, frozenset[str]], text: str) -> str:
    name, named = label
    value = label_value(text)
    return value if value in named or not (value or name == MODEL) else OTHER


def _values(fine_tunes: Iterable[FineTune], name: LabelName) -> set[str]:
    # Equal texts first: most fine-tunes share theirs with others.
    return set(map(label_value, set(map(attrgetter(name), fine_tunes))))


def label_value(text: str) -> str:
    """Return a text as a label value: as it is, but no longer than 256 characters."""
    return cut(text, _LONGEST_LABEL)
