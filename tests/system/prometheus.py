"""A real Prometheus: it scrapes each second, and answers queries."""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.programs import required
from tests.system.listening import listening


@dataclass(frozen=True)
class Series:
    """A series of a query: its labels, and its values by Unix time."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


def _points(values: list[tuple[float, str]]) -> list[tuple[float, float]]:
    return [(float(at), float(value)) for at, value in values]


class Prometheus:
    """What answers queries."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def value(self, query: str) -> float | None:
        """The one value of a query, None where there is no series."""
        found = self._data("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else None

    def values(self, query: str, seconds: float = 60) -> list[float]:
        """Every value that a query has had since so many seconds, one for each second."""
        now = time.time()
        asked = {"start": str(now - seconds), "end": str(now), "step": "1"}
        series = self._data("query_range", query=query, **asked)["result"]
        return [float(value) for each in series for _, value in each["values"]]

    def series(self, query: str, start: float, end: float, step: float) -> list[Series]:
        """Every series of a query between two times, a value for each step where there is one."""
        asked = {"start": str(start), "end": str(end), "step": str(step)}
        found = self._data("query_range", query=query, **asked)["result"]
        return [Series(each["metric"], _points(each["values"])) for each in found]

    def now(self, query: str, at: float) -> list[Series]:
        """Every series of a query at a time, with that one value."""
        found = self._data("query", query=query, time=str(at))["result"]
        return [Series(each["metric"], _points([each["value"]])) for each in found]

    def examples(self, query: str, start: float, end: float) -> list[tuple[float, float]]:
        """When the exemplars of a query were, and the values that they have."""
        found = self._data("query_exemplars", query=query, start=str(start), end=str(end))
        return [(e["timestamp"], float(e["value"])) for each in found for e in each["exemplars"]]

    def label_values(self, label: str, selector: str) -> set[str]:
        """The values of a label that the series of a selector have."""
        return set(self._data(f"label/{label}/values", **{"match[]": selector}))

    def rules(self) -> list[dict[str, Any]]:
        """Every rule, with what came of it."""
        return [rule for group in self._data("rules")["groups"] for rule in group["rules"]]

    def exemplars(self, query: str) -> set[str]:
        """The fine-tunes that series point to."""
        series = self._data("query_exemplars", query=query, start="0", end="4102444800")
        return {e["labels"]["fine_tune_id"] for each in series for e in each["exemplars"]}

    def _data(self, what: str, **asked: str) -> Any:
        answer = self._client.get(f"/api/v1/{what}", params=asked).json()
        assert answer["status"] == "success", answer
        return answer["data"]


@contextlib.contextmanager
def prometheus(
    folder: Path, target: str, rules: Sequence[Path] = (), alerted: Sequence[str] = (), **job: Any
) -> Iterator[Prometheus]:
    """Scrape a target, as the keys of its job say, and evaluate the rules of these files.

    What fires is told to the Alertmanagers ``alerted``; each is a host and a port, as the target.
    """
    scraped = {"job_name": "cartesia", "static_configs": [{"targets": [target]}], **job}
    whole = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in rules],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": list(alerted)}]}]},
        "scrape_configs": [scraped],
    }
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(whole), encoding="utf-8")
    command = (
        required("prometheus", package="prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        "--enable-feature=exemplar-storage",
    )
    # One client for all queries: making one takes ten times as long as asking.
    with (
        listening(folder, *command) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=10) as client,
    ):
        yield Prometheus(client)
