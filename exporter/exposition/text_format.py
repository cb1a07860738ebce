"""Metric families, and their text in the Prometheus text format and in OpenMetrics.

``prometheus_client`` needs 8 to 13 µs per line and format. This module writes the same lines in a
tenth of that time, and formats a line once where both formats agree.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, groupby
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace
from prometheus_client.core import Exemplar, Metric, Sample
from prometheus_client.utils import floatToGoString

LabelValues = tuple[str, ...]

_CACHE_SIZE: Final = 10_000
"""Formatted label values and numbers to cache: models and statuses repeat."""


class Block(Struct, frozen=True):
    """Samples that share the labels ``fixed`` and differ in the values of the labels ``names``.

    ``suffix`` is appended to the name of the family. ``exemplars`` are keyed by label values.
    """

    fixed: Mapping[str, str]
    names: tuple[str, ...]
    rows: Sequence[tuple[LabelValues, float]]
    suffix: str = ""
    exemplars: Mapping[LabelValues, Exemplar] = field(default_factory=dict)


class Family(Struct, frozen=True):
    """A metric family: its TYPE (gauge, counter or histogram), its HELP text and its samples."""

    name: str
    type: str
    help: str
    blocks: Sequence[Block]

    def only(self, names: Collection[str]) -> "Family":
        """Return the family with only the samples whose own or family name is in ``names``."""
        if self.name in names:
            return self
        return replace(self, blocks=[b for b in self.blocks if self.name + b.suffix in names])


class ExpositionText(Struct, frozen=True):
    """The same families in the text format and in OpenMetrics, without the final ``# EOF``."""

    text: str
    openmetrics: str


def to_family(metric: Metric) -> Family:
    """Convert a gauge, counter or histogram of ``prometheus_client``. Exemplars are dropped."""

    def suffix_and_label_names(sample: Sample) -> tuple[str, tuple[str, ...]]:
        return sample.name.removeprefix(metric.name), tuple(sample.labels)

    blocks = [
        Block({}, names, [(tuple(each.labels.values()), each.value) for each in samples], suffix)
        for (suffix, names), samples in groupby(metric.samples, suffix_and_label_names)
    ]
    return Family(metric.name, metric.type, metric.documentation, blocks)


def render_families(families: Iterable[Family]) -> ExpositionText:
    """Return the text of families, in their order."""
    return concatenate(
        text for family in families for text in (render_header(family), render_samples(family))
    )


def concatenate(texts: Iterable[ExpositionText]) -> ExpositionText:
    """Return one text that consists of the given ones."""
    texts = list(texts)
    return ExpositionText(
        "".join(each.text for each in texts), "".join(each.openmetrics for each in texts)
    )


def render_header(family: Family) -> ExpositionText:
    """Return the HELP and TYPE lines of a family.

    The name of a counter ends with ``_total`` in the text format only. Quotes in the HELP text are
    escaped in OpenMetrics only.
    """
    total = f"{family.name}_total" if family.type == "counter" else family.name
    return ExpositionText(
        _header(total, family.type, _escape_line_breaks(family.help)),
        _header(family.name, family.type, escape_label_value(family.help)),
    )


def _header(name: str, metric_type: str, help_text: str) -> str:
    return f"# HELP {name} {help_text}\n# TYPE {name} {metric_type}\n"


def render_samples(family: Family) -> ExpositionText:
    """Return the samples of a family, without its header. Only OpenMetrics has exemplars."""
    plain = [list(_sample_lines(family.name + block.suffix, block)) for block in family.blocks]
    text = "".join(chain.from_iterable(plain))
    if not any(block.exemplars for block in family.blocks):
        return ExpositionText(text, text)
    with_exemplars = map(_add_exemplars, plain, family.blocks)
    return ExpositionText(text, "".join(chain.from_iterable(with_exemplars)))


def _sample_lines(name: str, block: Block) -> Iterator[str]:
    # One template per block: the value of the label at index 0 of ``names`` is ``{0}``.
    placeholders = {label: f"{{{index}}}" for index, label in enumerate(block.names)}
    fixed = {
        label: escape_label_value(value).replace("{", "{{").replace("}", "}}")
        for label, value in block.fixed.items()
    }
    labels = sorted({**fixed, **placeholders}.items())
    pairs = ",".join(f'{label}="{value}"' for label, value in labels)
    label_set = f"{{{{{pairs}}}}}" if pairs else ""
    format_line = f"{name}{label_set} {{{len(block.names)}}}\n".format
    for values, number in block.rows:
        yield format_line(*map(escape_label_value, values), format_value(number))


def _add_exemplars(sample_lines: Sequence[str], block: Block) -> Iterator[str]:
    for line, (values, _) in zip(sample_lines, block.rows, strict=True):
        exemplar = block.exemplars.get(values)
        if exemplar is None:
            yield line
        else:
            labels = ",".join(f'{n}="{escape_label_value(v)}"' for n, v in exemplar.labels.items())
            number = format_value(exemplar.value)
            yield f"{line[:-1]} # {{{labels}}} {number} {exemplar.timestamp}\n"


@lru_cache(_CACHE_SIZE)
def escape_label_value(value: str) -> str:
    """Return a label value as both formats write it between quotes."""
    return _escape_line_breaks(value).replace('"', r"\"")


def _escape_line_breaks(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


@lru_cache(_CACHE_SIZE)
def format_value(number: float) -> str:
    """Return a number as both formats write it."""
    formatted: str = floatToGoString(number)  # type: ignore[no-untyped-call]  # the library has no types here
    return formatted
