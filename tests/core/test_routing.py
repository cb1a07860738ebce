"""Which receivers get an event: subscribed types and patterns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from exporter.core.events import SUBSCRIPTIONS, Event
from exporter.core.match import Match
from exporter.core.model import FineTune
from exporter.core.pattern import MAX_TEXT
from exporter.core.routing import Route, receivers_of
from tests.receivers.sample_events import AT

VOICE = FineTune("ft_1", "Ada\nof the hotline", "", "en", "sonic-2", "ds", "failed")
FAILED = Event("evt", "fine_tune.failed", "prod", AT, VOICE, "training")
LABELS = {"prod": {"team": "voices"}, "test": {}}
ALL = frozenset().union(*SUBSCRIPTIONS.values())


def of_agent(kind, account="", **facts) -> Event:
    return Event("evt", kind, account, AT, facts=facts)


BASELINE = of_agent("agent.baseline", "prod")
UNHEALTHY = of_agent("agent.receiver_unhealthy", receiver="ops")


def never(*error) -> None:
    pytest.fail(f"a pattern cannot be evaluated: {error}")


def route(*words, **match) -> Route:
    types = frozenset().union(*(SUBSCRIPTIONS[word] for word in words)) if words else ALL
    patterns = {key.replace("label_", "label."): pattern for key, pattern in match.items()}
    return Route("slack", types, Match.of(patterns), LABELS)


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
        ("the dataset is compared", route(dataset="d."), FAILED, True),
        ("with the whole value", route(dataset="d"), FAILED, False),
        ("a label of the account matches", route(label_team="voices|x"), FAILED, True),
        ("or does not", route(label_team="x"), FAILED, False),
        ("a label that the account lacks is empty", route(label_tier="gold"), FAILED, False),
        ("and matches like an empty text", route(label_tier="(gold)?"), FAILED, True),
        ("an agent's event has the labels", route(label_team="x"), BASELINE, False),
        ("and no dataset", route(label_team="voices", dataset="x"), BASELINE, True),
        ("a name of two lines matches .*", route(name="Ada.*"), FAILED, True),
        ("an agent's event has an account", route(account="test"), BASELINE, False),
        ("and no name to compare", route(account="prod", name="x"), BASELINE, True),
        ("a receiver's trouble has no account", route(account="test"), UNHEALTHY, True),
        ("and no labels", route(label_team="x"), UNHEALTHY, True),
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


@pytest.mark.parametrize("name", ["\ud800", "x" * (MAX_TEXT + 1)])
def test_a_name_that_cannot_be_compared_counts_as_a_match_and_is_reported(name):
    errors = []
    reported = receivers_of(
        failure_named(name),
        [route(name="nothing like it"), route(name="nothing", account="other")],
        lambda *error: errors.append(error),
    )
    assert reported == ["slack"]
    assert [(receiver, key) for receiver, key, _ in errors] == [
        ("slack", "name"),
        ("slack", "name"),
    ]
    assert isinstance(errors[0][2], ValueError)


def test_receivers_are_in_configuration_order():
    routes = [Route("b", ALL), Route("a", frozenset()), Route("c", ALL)]
    assert receivers_of(FAILED, routes, never) == ["b", "c"]


OTHERWISE = Route("rest", ALL, otherwise=True)


def test_otherwise_gets_what_no_other_receiver_gets():
    for first in (route("completed"), route(account="test"), route("agent", dataset="ds")):
        assert receivers_of(FAILED, [OTHERWISE, first], never) == ["rest"]
    assert receivers_of(FAILED, [OTHERWISE, route("failed")], never) == ["slack"]


def test_otherwise_gets_only_the_types_that_it_subscribes_to():
    rest = Route("rest", SUBSCRIPTIONS["failed"], otherwise=True)
    assert receivers_of(BASELINE, [rest, route("failed")], never) == []


def test_an_event_of_the_agent_that_others_get_is_not_for_otherwise():
    subscribed = [OTHERWISE, route("agent", dataset="ds")]
    assert receivers_of(BASELINE, subscribed, never) == ["slack"]
    assert receivers_of(UNHEALTHY, subscribed, never) == ["slack"]
    assert receivers_of(BASELINE, [OTHERWISE, route("failed")], never) == ["rest"]


def test_otherwise_gets_the_trouble_of_the_only_other_receiver():
    assert receivers_of(UNHEALTHY, [Route("ops", ALL), OTHERWISE], never) == ["rest"]


def test_each_of_several_receivers_with_otherwise_gets_the_event():
    routes = [Route("more", ALL, otherwise=True), route("agent"), OTHERWISE]
    assert receivers_of(FAILED, routes, never) == ["more", "rest"]


texts = st.sampled_from(["", "a", "b", "ab"])
patterns = st.sampled_from(["a", "b", ".*", "a|b", "[^a]*"])
fine_tunes = st.builds(FineTune, texts, name=texts, model_id=texts, language=texts, dataset=texts)
of_fine_tunes = st.builds(
    lambda kind, account, fine_tune: Event("evt", kind, account, AT, fine_tune),
    st.sampled_from(sorted(kind for kind in ALL if kind.startswith("fine_tune."))),
    st.sampled_from("ab"),
    fine_tunes,
)
of_agents = st.builds(
    of_agent,
    st.sampled_from(sorted(kind for kind in ALL if kind.startswith("agent."))),
    st.sampled_from(["", "a", "b"]),
    receiver=st.sampled_from(["r0", "r1", "other"]),
)
routings = st.lists(
    st.builds(
        Route,
        st.just("name"),
        st.frozensets(st.sampled_from(sorted(ALL)), min_size=1),
        st.dictionaries(
            st.sampled_from(["account", "dataset", "name", "label.team", "label.tier"]),
            patterns,
            max_size=2,
        ).map(Match.of),
        st.just({"a": {"team": "a", "tier": "b"}, "b": {"team": "b"}}),
        st.booleans(),
    ),
    max_size=6,
).map(lambda routes: [replace(each, receiver=f"r{n}") for n, each in enumerate(routes)])


@given(of_fine_tunes | of_agents, routings)
def test_otherwise_adds_receivers_and_leaves_no_event_of_its_types_to_nobody(event, routes):
    found = receivers_of(event, routes, never)
    usual = [each for each in routes if not each.otherwise]
    before = receivers_of(event, usual, never)
    assert [each for each in found if each in before] == before
    rest = [each.receiver for each in routes if each.otherwise and each.matches(event, never)]
    assert set(found) <= {*before, *rest}
    if not event.traits.resolves:
        assert found == (before or rest)


ENDED = {
    "agent.poll_recovered": "agent.poll_failing",
    "agent.receiver_recovered": "agent.receiver_unhealthy",
    "fine_tune.recovered": "fine_tune.failed",
}


@given(of_fine_tunes | of_agents, st.sampled_from(sorted(ENDED)), routings)
def test_otherwise_gets_the_end_of_a_trouble_if_it_got_the_trouble(event, end, routes):
    trouble, end = replace(event, type=ENDED[end]), replace(event, type=end)
    routes = [replace(each, types=each.types | {trouble.type, end.type}) for each in routes]
    assert receivers_of(end, routes, never) == receivers_of(trouble, routes, never)
    # As an Alertmanager, which resolves its alert without this event.
    routes = [
        each if each.otherwise else replace(each, types=each.types - {end.type}) for each in routes
    ]
    rest = {each.receiver for each in routes if each.otherwise}
    notified = receivers_of(trouble, routes, never)
    assert receivers_of(end, routes, never) == [each for each in notified if each in rest]
