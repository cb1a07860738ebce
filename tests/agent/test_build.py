"""What the configuration says of a receiver's interests is what it is told."""

from exporter.agent.build import limits_of, retention_of, route_of
from exporter.cartesia.rate_limit import RateLimits
from exporter.config import load
from exporter.core.events import Event
from exporter.core.model import FineTune
from tests.config.config_file import KEY, write_config
from tests.receivers.sample_events import AT

FILE = """
alerts: {events: [failed, completed]}
receivers:
  - {name: a, type: slack, url: "https://hooks.slack.com/services/x"}
  - {name: b, type: slack, url: "https://hooks.slack.com/services/x", events: [stuck]}
  - {name: c, type: slack, url: "https://hooks.slack.com/services/x", events: []}
  - {name: d, type: slack, url: "https://hooks.slack.com/services/x", match: {name: "A.*"}}
  - {name: e, type: alertmanager, urls: ["http://am:9093"]}
  - {name: f, type: alertmanager, urls: ["http://am:9093"], events: [agent, stuck]}
"""


def of(kind, name="Ada\nof the hotline") -> Event:
    return Event("evt", kind, "default", AT, FineTune("ft", name))


def told(tmp_path, event: Event) -> str:
    config = load(write_config(tmp_path, FILE), KEY)
    routes = [route_of(section, config.alerts) for section in config.receivers]
    return "".join(interest.receiver for interest in routes if interest.matches(event))


def test_a_receiver_without_events_is_told_those_of_alerts_and_the_agents_own(tmp_path):
    assert told(tmp_path, of("fine_tune.failed")) == "ade"
    assert told(tmp_path, of("fine_tune.completed")) == "ad"
    assert told(tmp_path, Event("evt", "agent.baseline", "default", AT)) == "ad"


def test_its_own_events_take_their_place(tmp_path):
    assert told(tmp_path, of("fine_tune.stuck")) == "bf"


def test_a_pattern_matches_the_whole_of_a_name_whatever_lines_it_has(tmp_path):
    assert told(tmp_path, of("fine_tune.failed", "Bob\nA")) == "ae"


def test_an_alertmanager_is_told_what_is_wrong_and_not_what_is_well_again(tmp_path):
    for kind, expected in {
        "fine_tune.removed": "",
        "agent.poll_failing": "adef",
        "agent.poll_recovered": "ad",
    }.items():
        assert told(tmp_path, Event("evt", kind, "default", AT)) == expected  # type: ignore[arg-type]


def test_events_are_kept_for_as_long_as_they_are_posted_to_an_alertmanager(tmp_path):
    receiver = '{name: am, type: alertmanager, urls: ["http://am:9093"], hold: HOLD}'
    text = f"storage: {{retention: 1d}}\nreceivers:\n  - {receiver}\n"
    for hold, expected in {"1h": 86400, "5d": 5 * 86400 + 900}.items():
        config = load(write_config(tmp_path, text.replace("HOLD", hold)), KEY)
        assert retention_of(config) == expected


def test_the_api_is_asked_as_gently_as_the_configuration_says(tmp_path):
    text = "poll: {concurrency: 3, requests_per_second: 0.5}"
    config = load(write_config(tmp_path, text), KEY)
    assert limits_of(config.poll) == RateLimits(concurrency=3, per_second=0.5)
