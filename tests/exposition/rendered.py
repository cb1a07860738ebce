"""The page that follows from views of accounts, as Prometheus and a person read it."""

from collections.abc import Sequence

from prometheus_client.core import Metric

from exporter.core.view import AccountStatus
from exporter.exposition.families import data_families, history_families, poll_families
from exporter.exposition.text_format import Family, lines


def families_of(views: Sequence[AccountStatus], monotonic: float = 0.0) -> list[Family]:
    fresh = [view for view in views if view.is_fresh(monotonic)]
    return [
        *data_families(fresh),
        *poll_families(views, monotonic),
        *history_families(views),
    ]


def metric_of(family: Family) -> Metric:
    """The family as the library knows it."""
    metric = Metric(family.name, family.text, family.kind)
    for block in family.blocks:
        for values, number in block.rows:
            labels = {**block.fixed, **dict(zip(block.names, values, strict=True))}
            exemplar = block.exemplars.get(values)
            metric.add_sample(family.name + block.suffix, labels, number, exemplar=exemplar)
    return metric


def metrics_of(views: Sequence[AccountStatus], monotonic: float = 0.0) -> list[Metric]:
    return [metric_of(family) for family in families_of(views, monotonic)]


def text(*views: AccountStatus, monotonic: float = 0.0) -> str:
    return lines(families_of(views, monotonic)).text


def openmetrics(*views: AccountStatus, monotonic: float = 0.0) -> str:
    return lines(families_of(views, monotonic)).openmetrics + "# EOF\n"
