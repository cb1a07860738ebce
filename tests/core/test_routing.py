"""Which receivers get an event: subscribed types and patterns."""

import re

import pytest

from exporter.core.events import SUBSCRIPTIONS, Event
from exporter.core.model import FineTune
from exporter.core.routing import Route, receivers_of
from tests.receivers.sample_events import AT

VOICE = FineTune("ft_1", "Ada\nof the hotline", "", "en", "sonic-2", "ds", "failed")
FAILED = Event("evt", "fine_tune.failed", "prod", AT, VOICE, "training")
ALL = frozenset().union(*SUBSCRIPTIONS.values())


def of_agent(kind, account="", **facts) -> Event:
    return Event("evt", kind, account, AT, facts=facts)


BASELINE = of_agent("agent.baseline", "prod")
UNHEALTHY = of_agent("agent.receiver_unhealthy", receiver="ops")


def route(*words, **match) -> Route:
    types = frozenset().union(*(SUBSCRIPTIONS[word] for word in words)) if words else ALL
    patterns = {key: re.compile(pattern, re.DOTALL) for key, pattern in match.items()}
    return Route("slack", types, patterns)


def test_every_event_type_but_changed_and_test_has_one_subscription():
    asked = [kind for kinds in SUBSCRIPTIONS.values() for kind in kinds]
    assert len(asked) == len(set(asked))
    assert "fine_tune.changed" not in asked
    assert "agent.test" not in asked


@pytest.mark.parametrize(
    ("case", "configured", "event", "expected"),
    [
        ("a subscribed type matches", route("failed"), FAILED, True),
        ("what was not is not", route("completed", "agent"), FAILED, False),
        ("without subscriptions nothing matches", Route("slack", frozenset()), FAILED, False),
        ("a pattern matches the whole value", route(account="pro"), FAILED, False),
        ("or does not match", route(account="prod|test"), FAILED, True),
        ("all patterns must match", route(account="prod", model_id="x"), FAILED, False),
        ("and do", route(account="p.*", model_id="sonic.*", language="en"), FAILED, True),
        ("a name of two lines matches .*", route(name="Ada.*"), FAILED, True),
        ("an agent's event has an account", route(account="test"), BASELINE, False),
        ("and no name to compare", route(account="prod", name="x"), BASELINE, True),
        ("a receiver's trouble has no account", route(account="test"), UNHEALTHY, True),
    ],
)
def test_route_matches(case, configured, event, expected):
    assert configured.matches(event) is expected, case


def test_route_excludes_events_about_its_own_receiver():
    named = Route("ops", ALL)
    assert not named.matches(UNHEALTHY)
    namesake = FineTune("ops", status="failed")
    assert named.matches(Event("evt", "fine_tune.failed", "prod", AT, namesake))


def test_matching_is_fast_for_hostile_texts():
    named = Route("slack", ALL, {"name": re.compile("x*x*y")})
    slow = Event("evt", "fine_tune.failed", "prod", AT, FineTune("f", "x" * 10**6))
    assert not named.matches(slow)


def test_receivers_are_in_configuration_order():
    routes = [Route("b", ALL), Route("a", frozenset()), Route("c", ALL)]
    assert receivers_of(FAILED, routes) == ["b", "c"]
