"""Runs a real Prometheus that scrapes every second."""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.process.agent_process import NO_AUTHORITIES
from tests.programs import required
from tests.system.listening import listening


@dataclass(frozen=True)
class Series:
    """A series: its labels, and its values by Unix time."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


def _points(values: list[tuple[float, str]]) -> list[tuple[float, float]]:
    return [(float(at), float(value)) for at, value in values]


class Prometheus:
    """The query API of a running Prometheus."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def value(self, query: str) -> float | None:
        """The value of a query's first series, None if there is no series."""
        found = self._data("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else None

    def values(self, query: str, seconds: float = 60) -> list[float]:
        """All values of a query in the last seconds, one per second."""
        now = time.time()
        times = {"start": str(now - seconds), "end": str(now), "step": "1"}
        series = self._data("query_range", query=query, **times)["result"]
        return [float(value) for each in series for _, value in each["values"]]

    def series(self, query: str, start: float, end: float, step: float) -> list[Series]:
        """All series of a query between two times, with a value for each step."""
        times = {"start": str(start), "end": str(end), "step": str(step)}
        found = self._data("query_range", query=query, **times)["result"]
        return [Series(each["metric"], _points(each["values"])) for each in found]

    def now(self, query: str, at: float) -> list[Series]:
        """All series of a query at one time."""
        found = self._data("query", query=query, time=str(at))["result"]
        return [Series(each["metric"], _points([each["value"]])) for each in found]

    def examples(self, query: str, start: float, end: float) -> list[tuple[float, float]]:
        """Times and values of the exemplars of a query."""
        found = self._data("query_exemplars", query=query, start=str(start), end=str(end))
        return [(e["timestamp"], float(e["value"])) for each in found for e in each["exemplars"]]

    def label_values(self, label: str, selector: str) -> set[str]:
        """The values of a label in the series of a selector."""
        return set(self._data(f"label/{label}/values", **{"match[]": selector}))

    def rules(self) -> list[dict[str, Any]]:
        """All rules with their state."""
        return [rule for group in self._data("rules")["groups"] for rule in group["rules"]]

    def exemplars(self, query: str) -> set[str]:
        """The ids of fine-tunes in the exemplars of a query."""
        series = self._data("query_exemplars", query=query, start="0", end="4102444800")
        return {e["labels"]["fine_tune_id"] for each in series for e in each["exemplars"]}

    def _data(self, path: str, **parameters: str) -> Any:
        answer = self._client.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]


@contextlib.contextmanager
def prometheus(
    folder: Path,
    target: str | Sequence[str],
    rules: Sequence[Path] = (),
    alertmanagers: Sequence[str] = (),
    **job: Any,
) -> Iterator[Prometheus]:
    """Run Prometheus: scrape one or more targets with the keys of ``job``, evaluate rules, alert.

    Targets and Alertmanagers are given as host and port.
    """
    targets = [target] if isinstance(target, str) else [*target]
    scrape_config = {"job_name": "cartesia", "static_configs": [{"targets": targets}], **job}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in rules],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": list(alertmanagers)}]}]},
        "scrape_configs": [scrape_config],
    }
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(config), encoding="utf-8")
    command = (
        required("prometheus", package="prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        "--enable-feature=exemplar-storage",
    )
    # One client for all queries: creating one takes ten times as long as a query.
    with (
        listening(folder, *command) as url,
        httpx.Client(base_url=url, verify=NO_AUTHORITIES, trust_env=False, timeout=10) as client,
    ):
        yield Prometheus(client)
