"""A real Prometheus scrapes a real agent, and answers what dashboards and alerts ask."""

import json
import re
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from exporter.simulator.world import Population, World
from tests.process.agent import Agent, get, until, url_of
from tests.process.cloud import cloud, watching, webhook
from tests.programs import required

ROOT = Path(__file__).parent.parent

FAILURES = 'increase(cartesia_fine_tune_transitions_total{to_status="failed"}[1m])'
FAILED_TRAININGS = (
    "sum by (model_id) (increase(cartesia_fine_tune_transitions_total"
    '{from_status="training",to_status="failed"}[1m])) > 0'
)


class Prometheus:
    def __init__(self, url: str) -> None:
        self._url = url

    def value(self, query: str) -> float | None:
        """The one value of a query, None where there is no series."""
        answer = httpx.get(
            f"{self._url}/api/v1/query", params={"query": query}, trust_env=False, timeout=10
        ).json()
        assert answer["status"] == "success", answer
        found = answer["data"]["result"]
        return float(found[0]["value"][1]) if found else None

    def exemplars(self, query: str) -> set[str]:
        """The fine-tunes that a series points to."""
        asked = {"query": query, "start": "0", "end": "4102444800"}
        answer = httpx.get(
            f"{self._url}/api/v1/query_exemplars", params=asked, trust_env=False, timeout=10
        ).json()
        assert answer["status"] == "success", answer
        found = [each for series in answer["data"] for each in series["exemplars"]]
        return {each["labels"]["fine_tune_id"] for each in found}


@pytest.fixture
def scraped(tmp_path):
    """An agent, the world it watches, and a Prometheus that scrapes it each second."""
    program = required("prometheus", package="prometheus")
    world = World(Population(fine_tunes=30, fail_rate=0.2, reattempt_rate=0))
    with cloud(world=world) as (api, _), Agent(tmp_path, **watching(api)).process() as process:
        target = url_of(process).removeprefix("http://")
        job = {"job_name": "cartesia", "static_configs": [{"targets": [target]}]}
        config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
        file = tmp_path / "prometheus.yml"
        file.write_text(json.dumps(config), encoding="utf-8")
        # Prometheus cannot be given port 0; it has this one as soon as we let it go.
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [
            program,
            f"--config.file={file}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
        ]
        with (tmp_path / "prometheus.log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: get(f"{url}/-/ready").status_code == 200, seconds=30)
            yield world, Prometheus(url)
        finally:
            server.terminate()
            server.wait(20)


def test_prometheus_sees_the_counts_and_the_first_failure(scraped):
    world, prometheus = scraped
    until(lambda: prometheus.value("cartesia_up") == 1, seconds=30)
    assert prometheus.value("sum(cartesia_fine_tunes)") == 30
    for status in ("created", "training", "completed", "failed"):
        query = f'sum(cartesia_fine_tunes{{account="main",status="{status}"}})'
        assert prometheus.value(query) == sum(f.status == status for f in world)
    assert prometheus.value(f"sum({FAILURES})") in {None, 0}

    until(lambda: prometheus.value("count_over_time(cartesia_up[1m])") >= 2)
    failing = next(f for f in world if f.status == "training")
    world.set_status(failing.id, "failed")
    until(lambda: (prometheus.value(f"sum({FAILURES})") or 0) > 0)
    until(lambda: (prometheus.value(FAILED_TRAININGS) or 0) > 0)
    assert prometheus.value('up{job="cartesia"}') == 1
    assert prometheus.value("scrape_samples_post_metric_relabeling") > 50
    assert prometheus.value('cartesia_exporter_poll_failures_total{reason="connect"}') == 0
    until(lambda: prometheus.exemplars("cartesia_fine_tune_transitions_total") == {failing.id})
    for query in (*queries_of_the_readme(), *queries_of_the_metrics()):
        prometheus.value(query)


def queries_of_the_readme() -> list[str]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    queries = re.findall(r"^\| [^|]+\? \| `([^`]+)` \|$", readme, re.MULTILINE)
    assert len(queries) >= 5
    return queries


def queries_of_the_metrics() -> list[str]:
    document = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    queries = re.findall(r"\| `([^`]+)` \| (?:stable|experimental) \|$", document, re.MULTILINE)
    queries += re.findall(r"^```\n(.+)\n```$", document, re.MULTILINE)
    assert len(queries) > 30
    return queries


def test_the_example_of_a_scrape_configuration_is_one():
    program = required("promtool", package="prometheus")
    file = ROOT / "deploy" / "prometheus" / "prometheus.yml"
    checked = subprocess.run(
        [program, "check", "config", str(file)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "localhost:10060" in file.read_text(encoding="utf-8")


def test_promtool_finds_nothing_to_complain_about_with_everything_switched_on(tmp_path):
    program = required("promtool", package="prometheus")
    metrics = {"labels": ["model_id", "language", "dataset"], "per_fine_tune": True}
    with (
        cloud(world=World(Population(fine_tunes=30))) as (api, inbox),
        Agent(tmp_path, **watching(api, webhook(inbox)), metrics=metrics).process() as process,
    ):
        page = f"{url_of(process)}/metrics"
        until(lambda: 'cartesia_up{account="main"} 1.0' in get(page).text)
        text = get(page).text
    for name in ("cartesia_fine_tune_status{", 'cartesia_fine_tunes{account="main",dataset='):
        assert name in text
    checked = subprocess.run(
        [program, "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
