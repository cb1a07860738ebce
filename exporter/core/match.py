"""Patterns for the values of a fine-tune and of its account."""

import re
from collections.abc import Callable, Mapping
from typing import Final, Self

from msgspec import Struct, field

from exporter.core.model import FineTune
from exporter.core.pattern import Pattern, compile_pattern

ACCOUNT: Final = "account"
FINE_TUNE_KEYS: Final = ("model_id", "language", "dataset", "name", "id")
LABEL_PREFIX: Final = "label."
LABEL_KEY: Final = re.compile(rf"{re.escape(LABEL_PREFIX)}[a-zA-Z_][a-zA-Z0-9_]*")

AccountLabels = Mapping[str, Mapping[str, str]]
"""The labels of each account, by its name."""

OnError = Callable[[str, Exception], bool]
"""Called with a key and the exception if its value cannot be compared; returns whether it counts as
a match."""


def match_values(
    account: str, labels: AccountLabels, fine_tune: FineTune | None = None
) -> dict[str, str]:
    """Return the values that patterns are compared with, by key."""
    values = {ACCOUNT: account}
    for name, text in labels.get(account, {}).items():
        values[f"{LABEL_PREFIX}{name}"] = text
    if fine_tune is not None:
        values |= {key: getattr(fine_tune, key) for key in FINE_TUNE_KEYS}
    return values


class Match(Struct, frozen=True):
    """Patterns by key, each of which must match the whole value.

    The keys are ACCOUNT, FINE_TUNE_KEYS and those of labels, LABEL_KEY.
    """

    patterns: Mapping[str, Pattern] = field(default_factory=dict)

    @classmethod
    def of(cls, patterns: Mapping[str, str]) -> Self:
        """Return the match of patterns as text; raise PatternError if one is refused."""
        return cls({key: compile_pattern(pattern) for key, pattern in patterns.items()})

    def of_account(self) -> "Match":
        """Return the patterns for the account and its labels alone."""
        kept = {key: each for key, each in self.patterns.items() if key not in FINE_TUNE_KEYS}
        return Match(kept)

    def matches(self, values: Mapping[str, str], on_error: OnError) -> bool:
        """Return whether all patterns match; a key that has no value is compared as empty text."""
        return all(
            _matches(key, pattern, values.get(key, ""), on_error)
            for key, pattern in self.patterns.items()
        )


def _matches(key: str, pattern: Pattern, text: str, on_error: OnError) -> bool:
    try:
        return pattern.matches(text)
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller decides
        return on_error(key, error)
