"""Which receivers get an event: subscribed types and patterns."""

import pytest

from exporter.core.events import SUBSCRIPTIONS, Event
from exporter.core.model import FineTune
from exporter.core.pattern import MAX_TEXT, compile_pattern
from exporter.core.routing import Route, receivers_of
from tests.receivers.sample_events import AT

VOICE = FineTune("ft_1", "Ada\nof the hotline", "", "en", "sonic-2", "ds", "failed")
FAILED = Event("evt", "fine_tune.failed", "prod", AT, VOICE, "training")
ALL = frozenset().union(*SUBSCRIPTIONS.values())


def of_agent(kind, account="", **facts) -> Event:
    return Event("evt", kind, account, AT, facts=facts)


BASELINE = of_agent("agent.baseline", "prod")
UNHEALTHY = of_agent("agent.receiver_unhealthy", receiver="ops")


def never(*error) -> None:
    pytest.fail(f"a pattern cannot be evaluated: {error}")


def route(*words, **match) -> Route:
    types = frozenset().union(*(SUBSCRIPTIONS[word] for word in words)) if words else ALL
    patterns = {key: compile_pattern(pattern) for key, pattern in match.items()}
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
    assert configured.matches(event, never) is expected, case


def test_route_excludes_events_about_its_own_receiver():
    named = Route("ops", ALL)
    assert not named.matches(UNHEALTHY, never)
    namesake = FineTune("ops", status="failed")
    assert named.matches(Event("evt", "fine_tune.failed", "prod", AT, namesake), never)


def failure_named(name: str) -> Event:
    return Event("evt", "fine_tune.failed", "prod", AT, FineTune("ft_1", name, status="failed"))


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (r"(\w+\s?)*-prod", "narrator voices for the winter audiobook series"),
        (r"(\w+\s?)*-prod", "voice " * 1_600),
        ("(a*)*b", "a" * MAX_TEXT),
        ("(x|x)*y", "x" * MAX_TEXT),
        ("(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)z", "y" * MAX_TEXT),
        ("(?i)(straße ?)+!", "STRAßE " * 1_400),
    ],
)
def test_matching_ends_where_backtracking_would_not(pattern, name):
    """Python's re would take longer than the test's timeout for each of them."""
    assert not route(name=pattern).matches(failure_named(name), never)


def test_a_name_that_is_too_long_to_be_compared_matches():
    assert route(name="x*y").matches(failure_named("x" * (MAX_TEXT + 1)), never)
    assert not route(name="x*y").matches(failure_named("x" * MAX_TEXT), never)


def test_a_pattern_that_cannot_be_evaluated_counts_as_a_match_and_is_reported():
    errors = []
    reported = receivers_of(
        failure_named("\ud800"),
        [route(name="nothing like it"), route(name="nothing", account="other")],
        lambda *error: errors.append(error),
    )
    assert reported == ["slack"]
    assert [(receiver, key) for receiver, key, _ in errors] == [
        ("slack", "name"),
        ("slack", "name"),
    ]
    assert isinstance(errors[0][2], UnicodeEncodeError)


def test_receivers_are_in_configuration_order():
    routes = [Route("b", ALL), Route("a", frozenset()), Route("c", ALL)]
    assert receivers_of(FAILED, routes, never) == ["b", "c"]
