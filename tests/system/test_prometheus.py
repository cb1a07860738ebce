"""A real Prometheus scrapes a real agent and answers the documented queries."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from exporter.simulator.world import Population, World
from tests.docs.test_documented import documented_metrics
from tests.process.agent_process import Agent, until, url_of
from tests.process.fake_api import Api, agent_config, fake_api, webhook
from tests.programs import required
from tests.system.prometheus import Prometheus, prometheus
from tests.web.authenticated_server import WebConfigFixture, ask, hash_of

pytestmark = pytest.mark.usefixtures("unmeasured")

ROOT = Path(__file__).parent.parent.parent

FAILURES = 'increase(cartesia_fine_tune_transitions_total{to_status="failed"}[1m])'
FAILED_TRAININGS = (
    "sum by (model_id) (increase(cartesia_fine_tune_transitions_total"
    '{from_status="training",to_status="failed"}[1m])) > 0'
)
USER, PASSWORD = "prometheus", "hunter2ThePassword"


@dataclass(frozen=True)
class ScrapedAgent:
    """An agent with all metrics, scraped over TLS with a password."""

    api: Api
    prometheus: Prometheus
    url: str
    web: WebConfigFixture

    def page(self) -> str:
        """The page in the text format."""
        return ask(self.url, auth=(USER, PASSWORD), tls=self.web.client()).text


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScrapedAgent]:
    folder = tmp_path_factory.mktemp("scraped")
    web = WebConfigFixture(folder)
    web.ca.cert_pem.write_to_path(folder / "ca.pem")
    web.write(tls_server_config=web.issue(), basic_auth_users={USER: hash_of(PASSWORD)})
    job: dict[str, Any] = {
        "scheme": "https",
        "tls_config": {"ca_file": str(folder / "ca.pem")},
        "basic_auth": {"username": USER, "password": PASSWORD},
    }
    world = World(Population(fine_tunes=30, fail_rate=0.2, reattempt_rate=0))
    with fake_api(world=world) as (api, inbox):
        config = agent_config(api, webhook(inbox), stale_after="6s")
        config["accounts"][0]["labels"] = {"team": "voices"}
        config["metrics"] = {"labels": ["model_id", "language", "dataset"], "per_fine_tune": True}
        with Agent(folder, **config).process(f"--web.config.file={web.path}") as process:
            url = url_of(process)
            with prometheus(folder, url.removeprefix("https://"), **job) as server:
                yield ScrapedAgent(api, server, f"{url}/metrics", web)


def test_prometheus_sees_the_counts_and_the_first_failure(scraped):
    world, value = scraped.api.world, scraped.prometheus.value
    until(lambda: value("cartesia_up") == 1, seconds=30)
    assert value("sum(cartesia_fine_tunes)") == 30
    for status in ("created", "training", "completed", "failed"):
        query = f'sum(cartesia_fine_tunes{{account="main",team="voices",status="{status}"}})'
        assert value(query) == sum(f.status == status for f in world)
    assert value(f"sum({FAILURES})") in {None, 0}

    until(lambda: value("count_over_time(cartesia_up[1m])") >= 2)
    failing = next(f for f in world if f.status == "training")
    world.set_status(failing.id, "failed")
    until(lambda: (value(f"sum({FAILURES})") or 0) > 0)
    until(lambda: (value(FAILED_TRAININGS) or 0) > 0)
    assert value(f'cartesia_fine_tune_status{{fine_tune_id="{failing.id}",status="failed"}}') == 1
    assert value('up{job="cartesia"}') == 1
    assert value("scrape_samples_post_metric_relabeling") > 50
    assert value('cartesia_exporter_poll_failures_total{reason="connect"}') == 0
    exemplars = scraped.prometheus.exemplars
    until(lambda: exemplars("cartesia_fine_tune_transitions_total") == {failing.id})
    for query in documented_queries():
        value(query)


def test_prometheus_sees_data_disappear_in_an_outage_and_return(scraped):
    value = scraped.prometheus.value
    until(lambda: value("cartesia_up") == 1, seconds=30)
    scraped.api.answer = lambda _: PlainTextResponse("down", 500)
    try:
        failing = "count(cartesia_fine_tunes) and on () (cartesia_up + cartesia_stale == 0)"
        until(lambda: value(failing))
        until(lambda: value("absent(cartesia_fine_tunes) and on () (cartesia_stale == 1)"))
        assert value("count(cartesia_fine_tune_status)") is None
        assert value("time() - cartesia_poll_success_timestamp_seconds") >= 6
        assert value("count(cartesia_fine_tune_transitions_total)") > 0
    finally:
        scraped.api.answer = lambda _: None
    until(lambda: value("sum(cartesia_fine_tunes) and on () (cartesia_stale == 0)") == 30)
    until(lambda: value("cartesia_up") == 1)


def test_promtool_accepts_the_page_with_all_metrics(scraped):
    until(lambda: 'cartesia_up{account="main"} 1.0' in scraped.page())
    page = scraped.page()
    for name in ("cartesia_fine_tune_status{", 'cartesia_fine_tunes{account="main",dataset='):
        assert name in page
    result = subprocess.run(
        [required("promtool", package="prometheus"), "check", "metrics"],
        input=page,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_served_metrics_are_the_documented_ones(scraped):
    types = re.findall(r"^# TYPE (cartesia_\w+) (\w+)$", scraped.page(), re.MULTILINE)
    rows = [(name.strip("`"), metric_type) for name, metric_type, *_ in documented_metrics()]
    assert sorted(types) == sorted(rows)


def documented_queries() -> list[str]:
    document = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    first = re.findall(r"^\| [^|]+\? \| `([^`]+)` \|$", document, re.MULTILINE)
    assert len(first) >= 5
    queries = re.findall(r"\| `([^`]+)` \| (?:stable|experimental) \|$", document, re.MULTILINE)
    queries += re.findall(r"^```promql\n(.+)\n```$", document, re.MULTILINE)
    assert len(queries) > 30
    return [*first, *queries]


def test_the_example_scrape_configuration_is_valid():
    program = required("promtool", package="prometheus")
    file = ROOT / "deploy" / "prometheus" / "prometheus.yml"
    result = subprocess.run(
        [program, "check", "config", str(file)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "localhost:10060" in file.read_text(encoding="utf-8")
