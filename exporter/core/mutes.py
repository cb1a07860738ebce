"""Mutes: which events a mute covers, and when it ends."""

from collections.abc import Mapping
from typing import Final, Protocol

from msgspec import Struct, field

from exporter.core.events import Event
from exporter.core.match import (
    ACCOUNT,
    FINE_TUNE_KEYS,
    LABEL_KEY,
    LABEL_PREFIX,
    AccountLabels,
    Match,
    match_values,
)
from exporter.core.model import FineTune
from exporter.core.pattern import PatternError, compile_pattern
from exporter.core.text import one_line, storable_text, timestamp

LONGEST_SECONDS: Final = 30 * 86_400.0
"""Longest mute. One that lasts until its fine-tune recovers ends then, too."""

SHORTEST_SECONDS: Final = 60.0

TIME: Final = "time"
RECOVERY: Final = "recovery"
"""What ends a mute, beside a person."""

_UNNAMED: Final = "anonymous"

LONGEST_REASON: Final = 500
LONGEST_AUTHOR: Final = 100
MAX_MATCHERS: Final = 10

_KEYS: Final = (ACCOUNT, *FINE_TUNE_KEYS)


class InvalidMuteError(ValueError):
    """A mute cannot be added; the text says why."""


class FineTuneSelection(Protocol):
    """One fine-tune, or every one whose values match, as a mute or a request to add one has it."""

    @property
    def match(self) -> Mapping[str, str]:
        """Patterns, each of which must match the whole value; empty for one fine-tune."""
        ...

    @property
    def account(self) -> str | None:
        """The account of the one fine-tune."""
        ...

    @property
    def fine_tune(self) -> str | None:
        """The id of the one fine-tune."""
        ...


def selects(
    selection: FineTuneSelection, account: str, fine_tune: FineTune, labels: AccountLabels
) -> bool:
    """Return whether a selection has a fine-tune of an account.

    A pattern that cannot be evaluated does not match: a needless notification is better than a
    lost one.
    """
    if selection.fine_tune:
        return (account, fine_tune.id) == (selection.account, selection.fine_tune)
    values = match_values(account, labels, fine_tune)
    return Match.of(selection.match).matches(values, lambda *_: False)


class MuteRequest(Struct, frozen=True):
    """A mute to add.

    It covers one fine-tune, given by ``account`` and ``fine_tune``, or every fine-tune whose values
    match: ``match`` has patterns, and each must match the whole value. It lasts for ``seconds``;
    None for one that lasts until its fine-tune recovers.
    """

    seconds: float | None
    author: str
    reason: str
    match: Mapping[str, str] = field(default_factory=dict)
    account: str = ""
    fine_tune: str = ""

    def check(self) -> None:
        """Raise InvalidMuteError if the mute must not be added."""
        if self.seconds is None and not self.fine_tune:
            raise InvalidMuteError("only a mute of one fine-tune can last until it recovers")
        if self.seconds is not None and not SHORTEST_SECONDS <= self.seconds <= LONGEST_SECONDS:
            raise InvalidMuteError("the duration must be 1m to 30d")
        for name, longest in (("reason", LONGEST_REASON), ("author", LONGEST_AUTHOR)):
            if len(getattr(self, name)) > longest:
                raise InvalidMuteError(f"the {name} must have at most {longest} characters")
        if not one_line(self.author):
            raise InvalidMuteError("give the name of the author")
        self._check_selection()

    def _check_selection(self) -> None:
        if bool(self.match) == bool(self.fine_tune):
            raise InvalidMuteError("give matchers, or the account and the id of one fine-tune")
        if self.fine_tune and not self.account:
            raise InvalidMuteError("give the account of the fine-tune")
        if self.account and not self.fine_tune:
            raise InvalidMuteError("an account needs a fine-tune; as a matcher, write account=NAME")
        if len(self.match) > MAX_MATCHERS:
            raise InvalidMuteError(f"at most {MAX_MATCHERS} matchers are possible")
        for text in (self.account, self.fine_tune):
            if storable_text(text) != text:
                raise InvalidMuteError("no account and no fine-tune has such a name or id")
        for key, pattern in self.match.items():
            _check_matcher(key, pattern)


def _check_matcher(key: str, pattern: str) -> None:
    if key not in _KEYS and LABEL_KEY.fullmatch(key) is None:
        known = ", ".join((*_KEYS, f"{LABEL_PREFIX}NAME"))
        raise InvalidMuteError(f"unknown matcher {one_line(key, 50)}; it must be one of {known}")
    try:
        compile_pattern(pattern)
    except PatternError as error:
        raise InvalidMuteError(f"{key}: {error}") from None


class Mute(Struct, frozen=True):
    """A mute as stored; times are Unix seconds.

    ``until_awake`` is its end on the awake clock, in seconds, so that a wall clock that is set back
    does not prolong it; None before the agent saw the mute. ``until_recovered``: it lasts until its
    fine-tune leaves the status in which it was muted, as it has if ``recovered``. ``ended_by`` is
    the name of a person, time or recovery; empty while ``ended_at`` is None.
    """

    number: int
    id: str
    match: Mapping[str, str]
    account: str
    fine_tune: str
    author: str
    reason: str
    created_at: float
    until_at: float
    until_awake: float | None = None
    until_recovered: bool = False
    recovered: bool = False
    ended_at: float | None = None
    ended_by: str = ""

    def end(self, now: float, awake: float) -> str:
        """Return what has ended the mute by ``now`` (Unix seconds); empty if nothing has.

        ``awake`` is the same on the awake clock, in seconds.
        """
        if self.ended_at is not None:
            return self.ended_by or _UNNAMED
        if self.recovered:
            return RECOVERY
        return TIME if now >= self.until_at or awake >= self.last_awake(now, awake) else ""

    def last_awake(self, now: float, awake: float) -> float:
        """Return the end on the awake clock, for a mute that may be seen for the first time."""
        if self.until_awake is not None:
            return self.until_awake
        return awake + max(self.until_at - max(now, self.created_at), 0.0)

    def seconds_left(self, now: float, awake: float) -> float:
        """Return the seconds until the mute ends by time."""
        return min(self.until_at - now, self.last_awake(now, awake) - awake)

    def note(self) -> str:
        """Return a sentence for the message with what is still in force at the mute's end."""
        reason = f" ({self.reason})" if self.reason else ""
        until = f"until {timestamp(self.until_at)}"
        if self.ended_by not in {"", TIME, RECOVERY}:
            until = f"until {self.ended_by} ended the mute"
        return f"Muted by {self.author or _UNNAMED} {until}{reason}; not recovered since."

    def covers(self, event: Event, labels: AccountLabels) -> bool:
        """Return whether the mute covers an event; only events of fine-tunes are covered."""
        fine_tune = event.fine_tune
        return fine_tune is not None and selects(self, event.account, fine_tune, labels)
