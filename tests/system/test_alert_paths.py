"""Both paths of an alert from the API to a webhook, with real programs except for the API.

Simulator, agent, Prometheus, rules, Alertmanager, webhook; and agent, Alertmanager, webhook.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse

from exporter.simulator.world import Population, World
from tests.process.agent_process import Agent, until, url_of
from tests.process.fake_api import Api, Inbox, agent_config, fake_api
from tests.system.alertmanager import alertmanager, notified
from tests.system.prometheus import Prometheus, prometheus

pytestmark = pytest.mark.usefixtures("unmeasured")

RULES = (
    Path(__file__).parent.parent.parent / "deploy" / "prometheus" / "rules" / "cartesia.rules.yml"
)
MINUTE_MS = 200
_MINUTES = {"m": 1, "h": 60, "d": 24 * 60}
_DURATION = re.compile(r"(\[|for: |offset )(\d+)([mhd])\b")


def accelerated(rules: str) -> str:
    """The shipped rules, with 0.2 s in place of each minute."""

    def shorter(found: re.Match[str]) -> str:
        before, number, unit = found.groups()
        return f"{before}{int(number) * _MINUTES[unit] * MINUTE_MS}ms"

    return _DURATION.sub(shorter, rules)


@dataclass(frozen=True)
class AlertPaths:
    """The API, the webhook's inbox, and Prometheus between them."""

    api: Api
    inbox: Inbox
    prometheus: Prometheus

    def notified(self, status: str, alert: str, **labels: str) -> list[dict[str, str]]:
        """The labels of the alerts at the webhook that have these labels, without repetitions.

        Alertmanager sends a whole group whenever something in it has changed.
        """
        wanted = {"alertname": alert, "account": "main", **labels}
        found = {str(each["labels"]): each["labels"] for each in notified(self.inbox, status)}
        return [each for each in found.values() if wanted.items() <= each.items()]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AlertPaths]:
    folder = tmp_path_factory.mktemp("paths")
    rules = folder / "cartesia.rules.yml"
    rules.write_text(accelerated(RULES.read_text(encoding="utf-8")), encoding="utf-8")
    world = World(Population(fine_tunes=20, fail_rate=0))
    with fake_api(world=world) as (api, inbox), alertmanager(folder / "am", inbox.url) as receiver:
        direct = {"name": "direct", "type": "alertmanager", "urls": [receiver.url]}
        config = agent_config(api, direct)
        config["alerts"]["poll_failing_after"] = "2s"
        with Agent(folder, **config).process() as process:
            target, alertmanager_address = (
                url.removeprefix("http://") for url in (url_of(process), receiver.url)
            )
            with prometheus(folder, target, [rules], [alertmanager_address]) as prometheus_server:
                yield AlertPaths(api, inbox, prometheus_server)


def test_a_failure_is_notified_by_its_rule_and_by_the_agent(paths):
    scraped_twice = "count_over_time(cartesia_up[1m]) >= 2 and cartesia_up == 1"
    until(lambda: paths.prometheus.value(scraped_twice))
    failing = next(each for each in paths.api.world if each.status == "training")
    paths.api.world.set_status(failing.id, "failed")
    notified_of = partial(paths.notified, alert="CartesiaFineTuneFailed", model_id=failing.model_id)
    until(lambda: len(notified_of("firing")) >= 2)
    by_rule, direct = sorted(notified_of("firing"), key=lambda labels: "fine_tune_id" in labels)
    assert by_rule["job"] == "cartesia"
    assert direct["fine_tune_id"] == failing.id
    # The rule's alert has no fine-tune id; the exemplar has it.
    failures = 'cartesia_fine_tune_transitions_total{to_status="failed"}'
    until(lambda: paths.prometheus.exemplars(failures) == {failing.id})

    paths.api.world.set_status(failing.id, "training")
    until(lambda: notified_of("resolved", fine_tune_id=failing.id))


def test_an_outage_and_its_end_are_notified_by_the_rule_and_by_the_agent(paths):
    until(lambda: paths.prometheus.value("cartesia_up") == 1)
    rule = partial(
        paths.notified, alert="CartesiaPollFailing", job="cartesia", reason="server_error"
    )
    paths.api.answer = lambda _: PlainTextResponse("down", 500)
    try:
        until(lambda: rule("firing") and direct_outage(paths, "firing"))
        assert rule("resolved") == direct_outage(paths, "resolved") == []
    finally:
        paths.api.answer = lambda _: None
    until(lambda: rule("resolved") and direct_outage(paths, "resolved"))
    assert paths.prometheus.value("cartesia_up") == 1


def direct_outage(paths: AlertPaths, status: str) -> list[dict[str, str]]:
    return [each for each in paths.notified(status, "CartesiaPollFailing") if "job" not in each]
