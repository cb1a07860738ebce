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
