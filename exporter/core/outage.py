"""An account that cannot be read: when that is told, and in which words."""

from dataclasses import dataclass
from typing import Final

from exporter.core.message import timestamp
from exporter.core.model import AccountKey, Event, EventType, stable_id
from exporter.core.text import one_line

_LONGEST_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class Outage:
    """A row of failed polls of one account.

    ``since`` is when the first of them failed in Unix seconds, ``begun`` the same on the monotonic
    clock. ``reason`` (as in the metrics) and ``error`` are those of the last. ``watched`` says
    whether the account has a baseline. ``tried`` says that the store was asked to have it told, and
    ``told`` that it answered.
    """

    since: float
    begun: float
    watched: bool
    reason: str = ""
    error: str = ""
    tried: bool = False
    told: bool = False

    def is_due(self, now: float, after: float) -> bool:
        """Return whether it is to be told: it lasted ``after`` seconds, which are 0 for never.

        ``now`` is monotonic.
        """
        return not self.told and 0 < after <= now - self.begun


def failing_event(store_id: str, account: AccountKey, outage: Outage, now: float) -> Event:
    """Return what is told of an outage that goes on at ``now`` (Unix seconds)."""
    meaning = (
        "Failures are not seen meanwhile; they are told when it can be read again."
        if outage.watched
        else "It was never read completely, so the watch has not begun."
    )
    facts = {
        "reason": outage.reason,
        "since": timestamp(outage.since),
        "text": f"{meaning} The last error: {one_line(outage.error, _LONGEST_ERROR)}",
    }
    identity = _identity("agent.poll_failing", store_id, account, outage)
    return Event(identity, "agent.poll_failing", account.name, now, facts=facts)


def recovered_event(
    store_id: str, account: AccountKey, outage: Outage, now: float, seconds: float
) -> Event:
    """Return what is told of an outage that lasted ``seconds`` and ends ``now`` (Unix seconds)."""
    following = "What changed meanwhile is told now." if outage.watched else "Its watch begins now."
    facts = {
        "since": timestamp(outage.since),
        "seconds": round(seconds),
        "text": f"It could not be read for {_in_words(seconds)}. {following}",
    }
    identity = _identity("agent.poll_recovered", store_id, account, outage)
    return Event(identity, "agent.poll_recovered", account.name, now, facts=facts)


def _identity(kind: EventType, store_id: str, account: AccountKey, outage: Outage) -> str:
    # Fewer parts than the id of a fine-tune's event has: the two never meet.
    what = kind.removeprefix("agent.")
    return stable_id("evt", store_id, account.name, account.base_url, what, outage.since)


def _in_words(seconds: float) -> str:
    for unit, name in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
