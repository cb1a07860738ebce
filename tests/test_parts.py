"""What the configuration says of a receiver's interests is what it is told."""

from exporter.config import load
from exporter.core.model import Event, FineTune
from exporter.parts import interest_of
from tests.config.test_load import KEY, written
from tests.receivers.told import AT

FILE = """
alerts: {events: [failed, completed]}
receivers:
  - {name: a, type: slack, url: "https://hooks.slack.com/services/x"}
  - {name: b, type: slack, url: "https://hooks.slack.com/services/x", events: [stuck]}
  - {name: c, type: slack, url: "https://hooks.slack.com/services/x", events: []}
  - {name: d, type: slack, url: "https://hooks.slack.com/services/x", match: {name: "A.*"}}
"""


def of(kind, name="Ada\nof the hotline") -> Event:
    return Event("evt", kind, "default", AT, FineTune("ft", name))


def told(tmp_path, event: Event) -> str:
    config = load(written(tmp_path, FILE), KEY)
    interests = [interest_of(section, config.alerts) for section in config.receivers]
    return "".join(interest.receiver for interest in interests if interest.wants(event))


def test_a_receiver_without_events_is_told_those_of_alerts_and_the_agents_own(tmp_path):
    assert told(tmp_path, of("fine_tune.failed")) == "ad"
    assert told(tmp_path, of("fine_tune.completed")) == "ad"
    assert told(tmp_path, Event("evt", "agent.baseline", "default", AT)) == "ad"


def test_its_own_events_take_their_place(tmp_path):
    assert told(tmp_path, of("fine_tune.stuck")) == "b"


def test_a_pattern_matches_the_whole_of_a_name_whatever_lines_it_has(tmp_path):
    assert told(tmp_path, of("fine_tune.failed", "Bob\nA")) == "a"
