"""From the API to whoever is on duty, by both ways, with every program real but the API.

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


def hurried(rules: str) -> str:
    """The rules as they are shipped, but for time: each minute of theirs is 0.2 s."""

    def shorter(found: re.Match[str]) -> str:
        before, number, unit = found.groups()
        return f"{before}{int(number) * _MINUTES[unit] * MINUTE_MS}ms"

    return _DURATION.sub(shorter, rules)


@dataclass(frozen=True)
class Chain:
    """Both ends of it, and Prometheus in its middle."""

    api: Api
    inbox: Inbox
    scraping: Prometheus

    def told(self, status: str, alert: str, **labels: str) -> list[dict[str, str]]:
        """The labels of the alerts that arrived at the webhook and have these, each once.

        A group arrives whole whenever something in it changed.
        """
        wanted = {"alertname": alert, "account": "main", **labels}
        found = {str(each["labels"]): each["labels"] for each in notified(self.inbox, status)}
        return [each for each in found.values() if wanted.items() <= each.items()]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("chain")
    rules = folder / "cartesia.rules.yml"
    rules.write_text(hurried(RULES.read_text(encoding="utf-8")), encoding="utf-8")
    world = World(Population(fine_tunes=20, fail_rate=0))
    with fake_api(world=world) as (api, inbox), alertmanager(folder / "am", inbox.url) as told:
        direct = {"name": "direct", "type": "alertmanager", "urls": [told.url]}
        config = agent_config(api, direct)
        config["alerts"]["poll_failing_after"] = "2s"
        with Agent(folder, **config).process() as process:
            target, alerted = (url.removeprefix("http://") for url in (url_of(process), told.url))
            with prometheus(folder, target, [rules], [alerted]) as scraping:
                yield Chain(api, inbox, scraping)


def test_a_failure_is_told_by_its_rule_and_by_the_agent_and_both_lead_to_the_fine_tune(chain):
    seen_twice = "count_over_time(cartesia_up[1m]) >= 2 and cartesia_up == 1"
    until(lambda: chain.scraping.value(seen_twice))
    failing = next(each for each in chain.api.world if each.status == "training")
    chain.api.world.set_status(failing.id, "failed")
    told = partial(chain.told, alert="CartesiaFineTuneFailed", model_id=failing.model_id)
    until(lambda: len(told("firing")) >= 2)
    by_rule, direct = sorted(told("firing"), key=lambda labels: "fine_tune_id" in labels)
    assert by_rule["job"] == "cartesia"
    assert direct["fine_tune_id"] == failing.id
    # The rule has no room for an id: that is what the exemplar is for.
    failures = 'cartesia_fine_tune_transitions_total{to_status="failed"}'
    until(lambda: chain.scraping.exemplars(failures) == {failing.id})

    chain.api.world.set_status(failing.id, "training")
    until(lambda: told("resolved", fine_tune_id=failing.id))


def test_an_outage_and_its_end_are_told_by_the_rule_with_the_reason_and_by_the_agent(chain):
    until(lambda: chain.scraping.value("cartesia_up") == 1)
    rule = partial(chain.told, alert="CartesiaPollFailing", job="cartesia", reason="server_error")
    chain.api.answer = lambda _: PlainTextResponse("down", 500)
    try:
        until(lambda: rule("firing") and direct_outage(chain, "firing"))
        assert rule("resolved") == direct_outage(chain, "resolved") == []
    finally:
        chain.api.answer = lambda _: None
    until(lambda: rule("resolved") and direct_outage(chain, "resolved"))
    assert chain.scraping.value("cartesia_up") == 1


def direct_outage(chain: Chain, status: str) -> list[dict[str, str]]:
    return [each for each in chain.told(status, "CartesiaPollFailing") if "job" not in each]
