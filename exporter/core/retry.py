"""What an attempt came to, and when to try again."""

import email.utils
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from enum import StrEnum
from typing import Final


class Outcome(StrEnum):
    """What one attempt of a delivery came to; it decides what happens to the receiver's queue."""

    DELIVERED = "delivered"
    THROTTLED = "throttled"
    TRANSIENT = "transient"
    ENDPOINT = "endpoint"
    PAYLOAD = "payload"


@dataclass(frozen=True, slots=True)
class Attempt:
    """The outcome of one attempt, the reason in words, and the wait asked for, in seconds.

    ``ambiguous`` says that the message may have arrived all the same: its answer was lost.
    """

    outcome: Outcome
    reason: str
    retry_after: float | None = None
    ambiguous: bool = False


_ENDPOINT_STATUSES: Final = frozenset({401, 403, 404, 405, 410})
_PAYLOAD_STATUSES: Final = frozenset({400, 413, 414, 415, 422})


def classify(status: int) -> Outcome:
    """Return the class of an HTTP status as Standard Webhooks and the services' documents use it.

    2xx is delivered, 429 throttled, a redirect or a refusal of who we are or where we post is the
    endpoint's, a refusal of what we post is the payload's, and all else is worth another try.
    """
    if 200 <= status < 300:  # noqa: PLR2004 - the class of statuses
        return Outcome.DELIVERED
    if status == 429:  # noqa: PLR2004 - Too Many Requests
        return Outcome.THROTTLED
    if 300 <= status < 400 or status in _ENDPOINT_STATUSES:  # noqa: PLR2004 - redirects
        return Outcome.ENDPOINT
    if status in _PAYLOAD_STATUSES:
        return Outcome.PAYLOAD
    return Outcome.TRANSIENT


@dataclass(frozen=True, slots=True)
class BackOff:
    """Exponential back-off with full jitter; all in seconds."""

    first: float
    longest: float

    def delay(self, failures: int, chance: float) -> float:
        """Return the wait after the ``failures``-th failure in a row, for a ``chance`` in [0, 1).

        Full jitter (any wait up to the bound) keeps many clients of one outage from returning in
        step.
        """
        # The exponent is bounded: 2.0 ** 1024 overflows after an outage of months.
        return chance * min(self.first * 2.0 ** min(failures - 1, 60), self.longest)


REQUESTS: Final = BackOff(first=1.0, longest=8.0)
"""Between the attempts of one API request."""

DELIVERIES: Final = BackOff(first=2.0, longest=300.0)
"""Between the attempts of a receiver in its first hour of trouble."""

DELIVERIES_LATER: Final = BackOff(first=2.0, longest=900.0)
"""Between the attempts of a receiver that has been in trouble for more than an hour."""


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return how many seconds a ``Retry-After`` header asks to wait at ``now`` (Unix seconds).

    Both forms are read: seconds and an HTTP-date (RFC 9110, 10.2.3). None when it is missing,
    negative or not to be understood.
    """
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(text)
            # Without a zone it is UTC (RFC 9110, 5.6.7), and not the time of this machine.
            date = date if date.tzinfo else date.replace(tzinfo=UTC)
            return max(date.timestamp() - now, 0.0)
        except (ValueError, OverflowError, OSError):
            return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


PROBES: Final = (60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""The waits before the attempts of a receiver whose circuit is open, in seconds; the last stays."""

LONGEST_PAUSE: Final = PROBES[-1]

_THROTTLED_DEFAULT: Final = 60.0
_RETRY_AFTER_LEAST: Final = 1.0
_HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class CircuitState:
    """A receiver's attempts that failed in a row for its own sake, and whether its circuit is open.

    ``since`` is Unix time in seconds of the first of them, or of the one that opened the circuit;
    ``reason`` is what the last one said. An open circuit means that somebody has to change
    something: the URL is gone, or we are not let in.
    """

    failures: int = 0
    since: float = 0.0
    open: bool = False
    reason: str = ""

    def after(self, attempt: Attempt, now: float) -> "CircuitState":
        """Return the health after an attempt that ended at ``now`` (Unix seconds).

        A message that is refused for what it says was read: the receiver is well.
        """
        if attempt.outcome in {Outcome.DELIVERED, Outcome.PAYLOAD}:
            return CIRCUIT_CLOSED
        if self.failures == 0 or (attempt.outcome is Outcome.ENDPOINT and not self.open):
            opened = attempt.outcome is Outcome.ENDPOINT
            return CircuitState(1, now, opened, attempt.reason)
        return CircuitState(self.failures + 1, self.since, self.open, attempt.reason)

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


CIRCUIT_CLOSED: Final = CircuitState()
