"""Who is mentioned for which events."""

import pytest

from exporter.core.events import EVENT_TYPES, SUBSCRIPTIONS, TROUBLES, Event
from exporter.core.match import Match
from exporter.core.mentions import LONGEST_MENTION, Mentions, mentioning_types
from exporter.core.model import FineTune
from exporter.core.pattern import MAX_TEXT
from tests.receivers.sample_events import AT

DEFAULT_TYPES = mentioning_types(["failed", "stuck", "agent"])
RULES = (
    (Match.of({"label.team": "research"}), "<!subteam^S1>"),
    (Match.of({"dataset": "calls-.*"}), "<!subteam^S2>"),
    (Match.of({"account": "prod"}), "<!subteam^S3>"),
)
LABELS = {"lab": {"team": "research"}}


def of_fine_tune(kind="fine_tune.failed", account="other", dataset="", name="") -> Event:
    return Event("evt", kind, account, AT, FineTune("ft", name, dataset=dataset))


def of_agent(kind, account="") -> Event:
    return Event("evt", kind, account, AT)


def mention_of(*events: Event, types=DEFAULT_TYPES, default="<!here>", rules=()) -> str:
    return Mentions(types, default, rules, LABELS).of(events)


@pytest.mark.parametrize("kind", sorted(EVENT_TYPES))
def test_by_default_failures_and_troubles_of_the_agent_mention_someone(kind):
    mentions = {
        "fine_tune.failed",
        "fine_tune.stuck",
        "agent.poll_failing",
        "agent.receiver_unhealthy",
    }
    event = of_fine_tune(kind) if kind.startswith("fine_tune.") else of_agent(kind, "prod")
    assert mention_of(event) == ("<!here>" if kind in mentions else "")


def test_the_word_of_another_event_adds_it():
    types = mentioning_types(["completed"])
    assert mention_of(of_fine_tune("fine_tune.completed"), types=types) == "<!here>"
    assert mention_of(of_fine_tune(), types=types) == ""


@pytest.mark.parametrize("word", sorted(set(SUBSCRIPTIONS) - {"agent"}))
def test_each_word_of_a_fine_tune_mentions_for_its_types(word):
    assert mentioning_types([word]) == SUBSCRIPTIONS[word]


@pytest.mark.parametrize(
    ("case", "event", "expected"),
    [
        ("by the label of the account", of_fine_tune(account="lab"), "<!subteam^S1>"),
        ("the first", of_fine_tune(account="lab", dataset="calls-1"), "<!subteam^S1>"),
        ("by the dataset", of_fine_tune(dataset="calls-1"), "<!subteam^S2>"),
        ("by the account", of_fine_tune(account="prod"), "<!subteam^S3>"),
        ("by none", of_fine_tune(), "<!here>"),
        ("of the agent by account", of_agent("agent.poll_failing", "prod"), "<!subteam^S3>"),
        ("and by label", of_agent("agent.poll_failing", "lab"), "<!subteam^S1>"),
        ("but no other", of_agent("agent.poll_failing", "other"), "<!here>"),
        ("of a receiver", of_agent("agent.receiver_unhealthy"), "<!here>"),
        ("a value that is too long", of_fine_tune(dataset="x" * (MAX_TEXT + 1)), "<!subteam^S2>"),
    ],
)
def test_the_first_rule_that_matches_has_priority(case, event, expected):
    assert mention_of(event, rules=RULES) == expected, case


def test_a_digest_has_each_mention_once_and_in_order():
    events = [
        of_fine_tune(dataset="calls-1"),
        of_fine_tune("fine_tune.completed", account="lab"),
        of_fine_tune(),
        of_fine_tune(dataset="calls-2"),
        of_fine_tune(account="prod"),
    ]
    assert mention_of(*events, rules=RULES) == "<!subteam^S2> <!here> <!subteam^S3>"
    assert mention_of(*events, rules=RULES, default="") == "<!subteam^S2> <!subteam^S3>"


def test_a_message_has_at_most_five_mentions():
    rules = [(Match.of({"dataset": str(n)}), f"<@U{n}>") for n in range(9)]
    events = [of_fine_tune(dataset=str(n)) for n in range(9)]
    assert mention_of(*events, rules=rules) == "<@U0> <@U1> <@U2> <@U3> <@U4>"


def test_the_mentions_of_a_message_are_no_longer_than_one_may_be():
    texts = ["a" * 300, "b" * 200, "c" * 199, "d"]
    rules = [(Match.of({"dataset": str(n)}), text) for n, text in enumerate(texts)]
    events = [of_fine_tune(dataset=str(n)) for n in range(4)]
    found = mention_of(*events, rules=rules)
    assert found == f"{texts[0]} {texts[2]}"
    assert len(found) == LONGEST_MENTION


def test_troubles_are_what_agent_means():
    assert mentioning_types(["agent"]) == {each for each in TROUBLES if each.startswith("agent.")}
