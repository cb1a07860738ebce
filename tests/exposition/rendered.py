"""Families and text of given account statuses."""

from collections.abc import Sequence

from prometheus_client.core import Metric

from exporter.core.view import AccountStatus
from exporter.exposition.families import data_families, history_families, poll_families
from exporter.exposition.text_format import Family, render_families


def families_of(statuses: Sequence[AccountStatus], monotonic: float = 0.0) -> list[Family]:
    fresh = [status for status in statuses if status.is_fresh(monotonic)]
    return [
        *data_families(fresh),
        *poll_families(statuses, monotonic),
        *history_families(statuses),
    ]


def metric_of(family: Family) -> Metric:
    """Convert a family to a metric of ``prometheus_client``."""
    metric = Metric(family.name, family.help, family.type)
    for block in family.blocks:
        for values, number in block.rows:
            labels = {**block.fixed, **dict(zip(block.names, values, strict=True))}
            exemplar = block.exemplars.get(values)
            metric.add_sample(family.name + block.suffix, labels, number, exemplar=exemplar)
    return metric


def metrics_of(statuses: Sequence[AccountStatus], monotonic: float = 0.0) -> list[Metric]:
    return [metric_of(family) for family in families_of(statuses, monotonic)]


def text(*statuses: AccountStatus, monotonic: float = 0.0) -> str:
    return render_families(families_of(statuses, monotonic)).text


def openmetrics(*statuses: AccountStatus, monotonic: float = 0.0) -> str:
    return render_families(families_of(statuses, monotonic)).openmetrics + "# EOF\n"
