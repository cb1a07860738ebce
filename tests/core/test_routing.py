"""Who is told of what: the types that a receiver asks for, and the patterns that must match."""

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


def interest(*words, **match) -> Route:
    types = frozenset().union(*(SUBSCRIPTIONS[word] for word in words)) if words else ALL
    patterns = {key: re.compile(pattern, re.DOTALL) for key, pattern in match.items()}
    return Route("slack", types, patterns)


def test_each_event_that_happens_has_a_word_that_asks_for_it_but_one_that_nobody_asks_for():
    asked = [kind for kinds in SUBSCRIPTIONS.values() for kind in kinds]
    assert len(asked) == len(set(asked))
    assert "fine_tune.changed" not in asked
    assert "agent.test" not in asked


@pytest.mark.parametrize(
    ("truth", "wanted", "event", "told"),
    [
        ("what was asked for is told", interest("failed"), FAILED, True),
        ("what was not is not", interest("completed", "agent"), FAILED, False),
        ("nothing asked for is nothing told", Route("slack", frozenset()), FAILED, False),
        ("a pattern matches the whole value", interest(account="pro"), FAILED, False),
        ("or does not match", interest(account="prod|test"), FAILED, True),
        ("all patterns must match", interest(account="prod", model_id="x"), FAILED, False),
        ("and do", interest(account="p.*", model_id="sonic.*", language="en"), FAILED, True),
        ("a name of two lines matches .*", interest(name="Ada.*"), FAILED, True),
        ("an agent's event has an account", interest(account="test"), BASELINE, False),
        ("and no name to compare", interest(account="prod", name="x"), BASELINE, True),
        ("a receiver's trouble has no account", interest(account="test"), UNHEALTHY, True),
    ],
)
def test_who_is_told(truth, wanted, event, told):
    assert wanted.matches(event) is told, truth


def test_a_receiver_is_not_told_of_its_own_trouble_but_of_a_fine_tune_called_like_it():
    named = Route("ops", ALL)
    assert not named.matches(UNHEALTHY)
    namesake = FineTune("ops", status="failed")
    assert named.matches(Event("evt", "fine_tune.failed", "prod", AT, namesake))


def test_a_text_that_is_long_and_made_for_a_pattern_takes_no_time():
    named = Route("slack", ALL, {"name": re.compile("x*x*y")})
    slow = Event("evt", "fine_tune.failed", "prod", AT, FineTune("f", "x" * 10**6))
    assert not named.matches(slow)


def test_receivers_are_named_in_the_order_of_the_configuration():
    routes = [Route("b", ALL), Route("a", frozenset()), Route("c", ALL)]
    assert receivers_of(FAILED, routes) == ["b", "c"]
