"""Patterns for the values of a fine-tune and of its account."""

import pytest

from exporter.core.match import Match, match_values
from exporter.core.model import FineTune
from exporter.core.pattern import MAX_TEXT, PatternError

LABELS = {"prod": {"team": "voices", "tier": ""}, "test": {"team": "research"}}
VOICE = FineTune("ft_1", "Ada", "secret", "en", "sonic-2", "ds", "failed")


def never(key: str, error: Exception) -> bool:
    pytest.fail(f"{key} cannot be compared: {error}")


def test_the_values_of_a_fine_tune_and_of_its_account():
    assert match_values("prod", LABELS, VOICE) == {
        "account": "prod",
        "label.team": "voices",
        "label.tier": "",
        "model_id": "sonic-2",
        "language": "en",
        "dataset": "ds",
        "name": "Ada",
        "id": "ft_1",
    }
    assert match_values("other", LABELS) == {"account": "other"}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ({}, True),
        ({"id": "ft_1"}, True),
        ({"id": "ft_"}, False),
        ({"id": "ft_.*", "label.team": "voices", "account": "prod", "language": "en|de"}, True),
        ({"id": "ft_.*", "label.team": "research"}, False),
        ({"label.unknown": ".+"}, False),
        ({"label.unknown": ".*"}, True),
    ],
)
def test_every_pattern_must_match_the_whole_value(patterns, expected):
    assert Match.of(patterns).matches(match_values("prod", LABELS, VOICE), never) is expected


def test_the_patterns_of_the_account_are_those_of_its_name_and_labels():
    match = Match.of({"account": "a", "label.team": "b", "id": "c", "dataset": "d", "name": "e"})
    assert list(match.of_account().patterns) == ["account", "label.team"]


@pytest.mark.parametrize("name", ["\ud800", "x" * (MAX_TEXT + 1)])
def test_the_caller_decides_about_a_value_that_cannot_be_compared(name):
    match, values = Match.of({"name": ".*", "account": "prod"}), {"name": name, "account": "prod"}
    errors: list[tuple[str, Exception]] = []

    def is_match(key: str, error: Exception) -> bool:
        errors.append((key, error))
        return True

    assert match.matches(values, is_match)
    assert not match.matches(values, lambda *_: False)
    assert not match.matches({**values, "account": "test"}, is_match)
    assert {key for key, _ in errors} == {"name"}
    assert isinstance(errors[0][1], ValueError)


def test_an_invalid_pattern_is_refused():
    with pytest.raises(PatternError):
        Match.of({"name": "("})
