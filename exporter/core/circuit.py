"""How a receiver is doing, and how long it rests after an attempt that says something about it."""

from dataclasses import dataclass
from typing import Final

from exporter.core.message import timestamp
from exporter.core.model import Event, stable_id
from exporter.core.retry import DELIVERIES, DELIVERIES_LATER, Attempt, Outcome

PROBES: Final = (60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""The waits before the attempts of a receiver whose circuit is open, in seconds; the last stays."""

LONGEST_PAUSE: Final = PROBES[-1]

_THROTTLED_DEFAULT: Final = 60.0
_RETRY_AFTER_LEAST: Final = 1.0
_HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Health:
    """A receiver's attempts that failed in a row for its own sake, and whether its circuit is open.

    ``since`` is Unix time in seconds of the first of them, or of the one that opened the circuit;
    ``reason`` is what the last one said. An open circuit means that somebody has to change
    something: the URL is gone, or we are not let in.
    """

    failures: int = 0
    since: float = 0.0
    open: bool = False
    reason: str = ""

    def after(self, attempt: Attempt, now: float) -> "Health":
        """Return the health after an attempt that ended at ``now`` (Unix seconds).

        A message that is refused for what it says was read: the receiver is well.
        """
        if attempt.outcome in {Outcome.DELIVERED, Outcome.PAYLOAD}:
            return WELL
        if self.failures == 0 or (attempt.outcome is Outcome.ENDPOINT and not self.open):
            opened = attempt.outcome is Outcome.ENDPOINT
            return Health(1, now, opened, attempt.reason)
        return Health(self.failures + 1, self.since, self.open, attempt.reason)

    def pause(self, attempt: Attempt, now: float, chance: float) -> float:
        """Return how many seconds to rest behind the attempt that led to this health.

        A 429 waits as long as it asks for, between 1 s and 1 h, or a minute when it does not say.
        An open circuit is probed after 1, 2, 5, 10, 30, 60 minutes, another trouble after the
        back-off with its ``chance`` in [0, 1); but neither before a wait that was asked for.
        """
        if self.failures == 0:
            return 0.0
        asked = 0.0
        if attempt.retry_after is not None:
            asked = min(max(attempt.retry_after, _RETRY_AFTER_LEAST), LONGEST_PAUSE)
        if attempt.outcome is Outcome.THROTTLED:
            return asked or _THROTTLED_DEFAULT
        # A broken server that asks for a second each time must not be asked each second for days.
        return max(asked, self._own_pause(now, chance))

    def _own_pause(self, now: float, chance: float) -> float:
        if self.open:
            return PROBES[min(self.failures, len(PROBES)) - 1]
        back_off = DELIVERIES if now - self.since < _HOUR else DELIVERIES_LATER
        return back_off.delay(self.failures, chance)


WELL: Final = Health()


def change(store_id: str, receiver: str, before: Health, after: Health, now: float) -> Event | None:
    """Return the event of a circuit that opened or closed at ``now`` (Unix seconds), if it did."""
    if before.open == after.open:
        return None
    identity = (store_id, "receiver", receiver, after.open)
    if after.open:
        facts: dict[str, object] = {
            "receiver": receiver,
            "reason": after.reason,
            "text": "What it is owed waits and is not lost; it is tried again after 1, 2, 5, 10, "
            "30 and then every 60 minutes. Check its URL and whether it lets us in.",
        }
        event_id = stable_id("evt", *identity, after.since)
        return Event(event_id, "agent.receiver_unhealthy", "", now, facts=facts)
    facts = {
        "receiver": receiver,
        "since": timestamp(before.since),
        "text": "What it was owed meanwhile is sent now.",
    }
    event_id = stable_id("evt", *identity, before.since)
    return Event(event_id, "agent.receiver_recovered", "", now, facts=facts)
