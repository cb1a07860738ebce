"""The keys ``match`` and ``mentions``: patterns for events, and who is mentioned for which."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from exporter.config.section import Section
from exporter.config.types import full_match, passes
from exporter.core.match import LABEL_KEY, LABEL_PREFIX
from exporter.core.mentions import LONGEST_MENTION
from exporter.core.pattern import compile_pattern

Regex = Annotated[str, passes(compile_pattern)]
Mention = Annotated[
    str,
    full_match(
        rf"[^\x00-\x1f\x7f]{{1,{LONGEST_MENTION}}}",
        f"must be one line of at most {LONGEST_MENTION} characters",
    ),
]


class Match(Section):
    """Regular expressions for a fine-tune's values; each given one must match the whole value."""

    model_config = ConfigDict(extra="allow")
    EXTRA_KEYS: ClassVar = {f"{LABEL_PREFIX}NAME": LABEL_KEY}

    account: Regex | None = None
    model_id: Regex | None = None
    language: Regex | None = None
    dataset: Regex | None = None
    name: Regex | None = None
    __pydantic_extra__: dict[str, Regex] = Field(init=False)

    @property
    def patterns(self) -> Mapping[str, str]:
        """The patterns that are given, by key."""
        return self.model_dump(exclude_none=True)


class MentionRule(Section):
    """Who is mentioned for the events that match."""

    match: Match
    mention: Mention
