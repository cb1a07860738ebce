"""Mutes that a client asks for: the body of the API's request, and the form of the pages."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from msgspec import Meta, Struct, field

from exporter.core.mutes import (
    LONGEST_AUTHOR,
    LONGEST_REASON,
    MAX_MATCHERS,
    InvalidMuteError,
    MuteRequest,
)
from exporter.core.pattern import MAX_PATTERN
from exporter.core.text import parse_duration
from exporter.web.actions import name_of
from exporter.web.query import LONGEST_ID, LONGEST_TEXT

FORM_MATCHERS: Final = 2
"""Number of matchers that the form takes."""

_Pattern = Annotated[str, Meta(max_length=MAX_PATTERN)]
Author = Annotated[str, Meta(max_length=LONGEST_AUTHOR)]


class NewMute(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mute to add: of one fine-tune, or of every fine-tune whose values match.

    ``match`` has patterns by key, as ``match`` of a receiver; each must match the whole value. For
    one fine-tune give ``account`` and ``fine_tune``. ``for`` is a duration, 1m to 30d;
    ``until_recovered`` is possible for one fine-tune only, and lasts 30d at most. ``author`` counts
    only if the agent's web configuration has no users.
    """

    match: Annotated[dict[str, _Pattern], Meta(max_length=MAX_MATCHERS)] = field(
        default_factory=dict
    )
    account: Annotated[str, Meta(max_length=LONGEST_TEXT)] = ""
    fine_tune: Annotated[str, Meta(max_length=LONGEST_ID)] = ""
    duration: Annotated[str, Meta(max_length=40)] = field(name="for", default="")
    until_recovered: bool = False
    reason: Annotated[str, Meta(max_length=LONGEST_REASON)] = ""
    author: Author = ""

    def request(self, user: str) -> MuteRequest:
        """Return the mute that ``user`` asks for. Raises InvalidMuteError."""
        if bool(self.duration) == self.until_recovered:
            raise InvalidMuteError("a mute must end: give either for or until_recovered")
        request = MuteRequest(
            _seconds(self.duration),
            name_of(user, self.author),
            self.reason,
            self.match,
            self.account,
            self.fine_tune,
        )
        request.check()
        return request


class MuteEnd(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The end of a mute. ``author`` counts only if the web configuration has no users."""

    author: Author = ""


def _seconds(duration: str) -> float | None:
    if not duration:
        return None
    try:
        return parse_duration(duration)
    except ValueError as error:
        raise InvalidMuteError(f"the duration {error}") from None


def read_form(form: Mapping[str, str]) -> NewMute:
    """Return the mute of a form: of one fine-tune, or with up to FORM_MATCHERS matchers.

    Raises InvalidMuteError.
    """
    match: dict[str, str] = {}
    for number in range(1, FORM_MATCHERS + 1):
        key, pattern = form.get(f"key{number}", ""), form.get(f"pattern{number}", "").strip()
        if pattern and key in match:
            raise InvalidMuteError(f"{key} is given twice")
        if pattern:
            match[key] = pattern
    fields: dict[str, Any] = {
        name: form.get(name, "") for name in ("account", "fine_tune", "reason", "author")
    }
    duration = form.get("for", "")
    is_open = duration == UNTIL_RECOVERED
    return NewMute(
        match=match,
        duration="" if is_open else duration,
        until_recovered=is_open,
        **fields,
    )


UNTIL_RECOVERED: Final = "recovery"
"""Value of the form's duration for a mute that lasts until its fine-tune recovers."""
