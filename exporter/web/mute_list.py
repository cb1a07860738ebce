"""Content of the pages about mutes: the active ones, the one just added, and the form."""

from datetime import timedelta
from typing import Any, Final

from msgspec import Struct

from exporter.core.match import ACCOUNT, LABEL_PREFIX
from exporter.core.records import MuteRecord
from exporter.web.mutes import FORM_MATCHERS
from exporter.web.view import View

_SHOWN_MUTES: Final = 20
_SHOWN_LABELS: Final = 20

_NEW: Final = timedelta(minutes=1)
"""For how long the page says what a new mute matches: all names of an account take a second."""

DURATIONS: Final = (
    ("1h", "1 hour"),
    ("4h", "4 hours"),
    ("24h", "24 hours"),
    ("3d", "3 days"),
    ("7d", "7 days"),
    ("30d", "30 days"),
)


class ShownMute(Struct, frozen=True):
    """A mute, and the name of the one fine-tune that it covers; empty if it is not known."""

    mute: MuteRecord
    name: str


class AddedMute(Struct, frozen=True):
    """The mute that was added just now, and how many of the present fine-tunes it matches."""

    mute: MuteRecord
    matches: int


def mutes_section(view: View, added: str | None) -> dict[str, Any]:
    """Return the variables of the mutes on the page of notifications.

    ``added`` is the id of a mute that was added just now.
    """
    active = [each for each in view.mutes if each.active]
    names = sorted({name for each in view.settings.accounts for name, _ in each.labels})
    labels = (f"{LABEL_PREFIX}{name}" for name in names[:_SHOWN_LABELS])
    return {
        "mutes": [_shown(view, each) for each in active[:_SHOWN_MUTES]],
        "more_mutes": max(len(active) - _SHOWN_MUTES, 0),
        "added": _added(view, active, added),
        "matcher_keys": ("dataset", "model_id", ACCOUNT, "name", "language", "id", *labels),
        "matchers": range(1, FORM_MATCHERS + 1),
        "durations": DURATIONS,
    }


def _shown(view: View, mute: MuteRecord) -> ShownMute:
    if mute.account is None or mute.fine_tune is None:
        return ShownMute(mute, "")
    found = view.fine_tunes.find(mute.account, mute.fine_tune)
    return ShownMute(mute, found.name if found is not None else "")


def _added(view: View, active: list[MuteRecord], mute_id: str | None) -> AddedMute | None:
    mute = next((each for each in active if each.id == mute_id), None)
    if mute is None or view.now - mute.created_at > _NEW:
        return None
    return AddedMute(mute, view.fine_tunes.count_selected(mute, view.account_labels))
