"""Whether the data and the receivers can be trusted, in words."""

from datetime import datetime
from typing import Final

from msgspec import Struct

from exporter.core.records import AccountRecord, ReceiverRecord

_SHOWN_GOOD: Final = 4
_SHOWN_BAD: Final = 3
"""Accounts, and receivers, with a line of their own; the others share one."""


class Trust(Struct, frozen=True):
    """Whether the data and the receivers can be trusted, in words and by account and receiver.

    ``title`` is the trouble in a few words, empty without one. ``stale_at`` is the time from which
    on the data is too old if no poll succeeds until then.
    """

    accounts: tuple[AccountRecord, ...]
    receivers: tuple[ReceiverRecord, ...]
    stale_at: datetime | None

    @property
    def bad(self) -> list[AccountRecord]:
        """The accounts whose data is not current, the stale ones first."""
        bad = [each for each in self.accounts if each.state != "current"]
        return sorted(bad, key=lambda each: each.state != "stale")

    @property
    def bad_accounts(self) -> list[AccountRecord]:
        """Those of ``bad`` with a line of their own."""
        return self.bad[:_SHOWN_BAD]

    @property
    def more_bad_accounts(self) -> int:
        """The number of the others."""
        return max(len(self.bad) - _SHOWN_BAD, 0)

    @property
    def _good(self) -> list[AccountRecord]:
        return [each for each in self.accounts if each.state == "current"]

    @property
    def good_accounts(self) -> list[AccountRecord]:
        """The accounts with current data, if all fit."""
        return self._good if len(self._good) <= _SHOWN_GOOD else []

    @property
    def folded_accounts(self) -> int:
        """The number of accounts with current data if they share a line, else 0."""
        return len(self._good) if len(self._good) > _SHOWN_GOOD else 0

    @property
    def oldest_read(self) -> datetime | None:
        """The oldest time of the current data."""
        return min((each.as_of for each in self._good if each.as_of is not None), default=None)

    @property
    def no_accounts(self) -> bool:
        """Whether no account is configured."""
        return not self.accounts

    @property
    def stale_names(self) -> frozenset[str]:
        """The names of the accounts whose data is not current."""
        return frozenset(each.id for each in self.accounts if each.state in {"stale", "waiting"})

    @property
    def data_class(self) -> str:
        """The class of the verdict on the data."""
        return "warn" if self.bad or self.no_accounts else "completed"

    @property
    def data_verdict(self) -> str:
        """The verdict on the data, in words."""
        total = len(self.accounts)
        if not total:
            return "No data"
        if not self.bad:
            return "Data is complete and current"
        states = {each.state for each in self.bad}
        word = "is" if len(self.bad) == 1 else "are"
        of = f"{len(self.bad)} of {total} accounts {word}" if total > 1 else "the account is"
        if states == {"stale"}:
            return f"Data is not complete: {of} stale"
        if states == {"waiting"}:
            return f"Data is not complete: {of} not read yet"
        if states <= {"failing", "late"}:
            return f"Data is getting old: {of} not readable"
        return f"Data is not complete: {of} not current"

    @property
    def _bad_receivers(self) -> list[ReceiverRecord]:
        bad = [
            each
            for each in self.receivers
            if each.failures or each.dead or (each.pending and not each.configured)
        ]
        return sorted(bad, key=lambda each: (each.state != "unhealthy", not each.pending))

    @property
    def bad_receivers(self) -> list[ReceiverRecord]:
        """The receivers that do not deliver, or did not deliver something, at most three."""
        return self._bad_receivers[:_SHOWN_BAD]

    @property
    def more_bad_receivers(self) -> int:
        """The number of the others."""
        return max(len(self._bad_receivers) - _SHOWN_BAD, 0)

    @property
    def _good_receivers(self) -> list[ReceiverRecord]:
        bad = {each.id for each in self._bad_receivers}
        return [each for each in self.receivers if each.id not in bad]

    @property
    def good_receivers(self) -> list[ReceiverRecord]:
        """The receivers without trouble, if all fit."""
        return self._good_receivers if len(self._good_receivers) <= _SHOWN_GOOD else []

    @property
    def folded_receivers(self) -> int:
        """The number of receivers without trouble if they share a line, else 0."""
        good = len(self._good_receivers)
        return good if good > _SHOWN_GOOD else 0

    @property
    def no_receivers(self) -> bool:
        """Whether no receiver is configured."""
        return not any(each.configured for each in self.receivers)

    @property
    def receivers_class(self) -> str:
        """The class of the verdict on the receivers."""
        if self._bad_receivers or self.no_receivers:
            return "warn"
        if any(each.held or each.muted for each in self.receivers):
            return "muted"
        used = any(each.last_success_at for each in self.receivers)
        return "completed" if used else "muted"

    @property
    def waiting(self) -> str:
        """How many deliveries are pending, and how many of them are held back; empty for none."""
        pending = sum(each.pending for each in self.receivers)
        held = sum(each.held for each in self.receivers)
        if held == pending:
            return f"{held:,} held back" if held else ""
        return f"{pending:,} pending" + (f" ({held:,} held back)" if held else "")

    @property
    def receivers_verdict(self) -> str:
        """The verdict on the receivers, in words."""
        if self.no_receivers:
            return "Notifications: nobody is notified"
        down = sum(each.state == "unhealthy" for each in self.receivers)
        words = []
        if down:
            total = sum(each.configured for each in self.receivers)
            verb = "is" if down == 1 else "are"
            words.append(f"{down} of {total} receivers {verb} down" if total > 1 else "it is down")
        if waiting := self.waiting:
            words.append(waiting)
        if dead := sum(each.dead for each in self.receivers):
            words.append(f"{dead} dead")
        if muted := sum(each.muted for each in self.receivers):
            words.append(f"{muted} muted")
        if words:
            return f"Notifications: {', '.join(words)}"
        if any(each.last_success_at for each in self.receivers):
            return "Notifications: all delivered"
        return "Notifications: nothing sent yet"

    @property
    def title(self) -> str:
        """The trouble with the data in a few words; empty without one."""
        stale = [each for each in self.bad if each.state != "waiting"]
        if len(stale) == 1:
            return f"{stale[0].id} {stale[0].state}"
        return f"{len(stale)} accounts not current" if stale else ""
