"""Label values: of API texts a bounded number keep their name, the others become ``other``."""

from collections.abc import Collection, Iterable
from heapq import nsmallest
from operator import attrgetter
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from exporter.core.model import FineTune
from exporter.core.text import cut_bytes

LabelName = Literal["model_id", "language", "dataset"]
"""Attributes of a fine-tune that ``cartesia_fine_tunes`` can have as labels."""

MODEL: Final[LabelName] = "model_id"

OTHER: Final = "other"
"""Label value for everything after the first ``max_models`` values."""

_MAX_BYTES: Final = 200


class Labels(Struct, frozen=True):
    """The values that have series, per label, in the order first seen.

    These are the values that keep their name and, once a value was folded, ``other``.
    """

    models: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()

    def extended(
        self, fine_tunes: Iterable[FineTune], most: int, names: Iterable[LabelName] = ()
    ) -> "Labels":
        """Return the values after another snapshot; the first ``most`` ever seen stay for good.

        ``other`` is added to them when the first value is folded, and stays, too: its series fall
        to 0 and do not disappear. Models are always included, because transitions have the label;
        ``names`` are the others.
        """
        fine_tunes = list(fine_tunes)
        labels = self
        for name in dict.fromkeys((MODEL, *names)):
            named = self.values(name)
            # An empty value is the absence of the label; a model is never empty.
            found = _values(fine_tunes, name).difference(named, () if name == MODEL else ("",))
            kept = len(named) - (OTHER in named)
            new = nsmallest(most - kept, found - {OTHER})
            if OTHER not in named and len(found) > len(new):
                new.append(OTHER)
            if new:
                labels = replace(labels, **{_FIELDS[name]: (*named, *new)})
        return labels

    def values(self, name: LabelName) -> tuple[str, ...]:
        """Return the values of one label that have series."""
        found: tuple[str, ...] = getattr(self, _FIELDS[name])
        return found

    def naming(self, names: Iterable[LabelName]) -> "Naming":
        """Return the lookup of label values; create it once for many fine-tunes."""
        return Naming(tuple((name, frozenset(self.values(name))) for name in names))


_FIELDS: Final[dict[LabelName, str]] = {
    "model_id": "models",
    "language": "languages",
    "dataset": "datasets",
}


class Naming(Struct, frozen=True):
    """Lookup of label values: the value itself if it has series, else ``other``."""

    named: tuple[tuple[LabelName, frozenset[str]], ...]

    def of(self, *texts: str) -> tuple[str, ...]:
        """Return the label values of API texts, given in the order of the labels."""
        return tuple(map(_named, self.named, texts))

    def folded(self, fine_tunes: Collection[FineTune]) -> frozenset[tuple[str, str]]:
        """Return the labels and values that become ``other``."""
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
    # Distinct texts first: most fine-tunes have texts that others have too.
    return set(map(label_value, set(map(attrgetter(name), fine_tunes))))


def label_value(text: str) -> str:
    """Return a text as a label value of at most 200 bytes.

    Prometheus drops a whole scrape over one value above its label_value_length_limit, which counts
    bytes and is often set to 200.
    """
    return cut_bytes(text, _MAX_BYTES)
