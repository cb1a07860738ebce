"""Outcomes of delivery attempts, circuit state, and delays before the next attempt."""

import email.utils
import math
from collections.abc import Mapping
from datetime import UTC
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from msgspec import Struct
from msgspec.structs import replace


class Outcome(StrEnum):
    """Outcome of one delivery attempt; it decides what happens to the receiver's queue."""

    DELIVERED = "delivered"
    THROTTLED = "throttled"
    TRANSIENT = "transient"
    ENDPOINT = "endpoint"
    PAYLOAD = "payload"


class Attempt(Struct, frozen=True):
    """Outcome of one attempt, the reason in words, and the requested wait in seconds.

    ``ambiguous``: the message may have arrived, because its answer was lost.
    """

    outcome: Outcome
    reason: str
    retry_after: float | None = None
    ambiguous: bool = False


_ENDPOINT_STATUSES: Final = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.GONE,
    }
)
_PAYLOAD_STATUSES: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.REQUEST_URI_TOO_LONG,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)


def classify(status: int) -> Outcome:
    """Return the outcome of an HTTP status (Standard Webhooks, and the services' documentation).

    2xx is delivered, 429 throttled. A redirect, or a refusal of the credentials or the URL, is an
    endpoint error; a refusal of the body a payload error. Everything else is transient.
    """
    if status // 100 == 2:  # noqa: PLR2004
        return Outcome.DELIVERED
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Outcome.THROTTLED
    if status // 100 == 3 or status in _ENDPOINT_STATUSES:  # noqa: PLR2004
        return Outcome.ENDPOINT
    if status in _PAYLOAD_STATUSES:
        return Outcome.PAYLOAD
    return Outcome.TRANSIENT


class BackOff(Struct, frozen=True):
    """Exponential back-off with full jitter; all in seconds."""

    first: float
    longest: float

    def delay(self, failures: int, random: float) -> float:
        """Return the delay after the n-th consecutive failure, for a ``random`` in [0, 1).

        Full jitter (any delay up to the bound) keeps clients from retrying in step after an outage.
        """
        # The exponent is bounded: 2.0 ** 1024 overflows after an outage of months.
        return random * min(self.first * 2.0 ** min(failures - 1, 60), self.longest)


REQUESTS: Final = BackOff(first=1.0, longest=8.0)
"""Delays between attempts of one API request."""

DELIVERIES: Final = BackOff(first=2.0, longest=300.0)
"""Delays between attempts in the first hour of a receiver's outage."""

DELIVERIES_LATER: Final = BackOff(first=2.0, longest=900.0)
"""Delays between attempts after the first hour of a receiver's outage."""


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the wait in seconds that ``Retry-After`` requests at ``now`` (Unix seconds).

    Reads both forms: seconds and an HTTP-date (RFC 9110, 10.2.3), which is compared with ``Date``
    of the same answer, if it has one: the wall clock here may be wrong. Returns None if the header
    is missing, negative or malformed.
    """
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        until, sent = _http_date(text), _http_date(headers.get("date", ""))
        return None if until is None else max(until - (now if sent is None else sent), 0.0)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _http_date(text: str) -> float | None:
    """Return an HTTP-date in Unix seconds; None if it is malformed."""
    try:
        date = email.utils.parsedate_to_datetime(text)
        # A date without a zone is UTC (RFC 9110, 5.6.7), not local time.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


PROBES: Final = (60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Delays between attempts while the circuit is open, in seconds; the last one repeats."""

LONGEST_PAUSE: Final = PROBES[-1]

_THROTTLED_DEFAULT: Final = 60.0
_RETRY_AFTER_LEAST: Final = 1.0
_HOUR: Final = 3600.0


class CircuitState(Struct, frozen=True):
    """Consecutive failures of a receiver that were not the message's fault, and its circuit.

    ``since`` is Unix time in seconds of the first of them, or of the one that opened the circuit,
    and ``since_awake`` the same on the awake clock. ``reason`` is the reason of the last. An open
    circuit needs a person: the URL is gone, or the receiver refuses the credentials.
    """

    failures: int = 0
    since: float = 0.0
    open: bool = False
    reason: str = ""
    since_awake: float = 0.0

    def after(self, attempt: Attempt, now: float, awake: float) -> "CircuitState":
        """Return the state after an attempt that ended at ``now`` (Unix seconds).

        ``awake`` is the same on the awake clock, in seconds.

        A receiver that refuses a message's content has read it, and is healthy.
        """
        if attempt.outcome in {Outcome.DELIVERED, Outcome.PAYLOAD}:
            return CIRCUIT_CLOSED
        if self.failures == 0 or (attempt.outcome is Outcome.ENDPOINT and not self.open):
            opened = attempt.outcome is Outcome.ENDPOINT
            return CircuitState(1, now, opened, attempt.reason, awake)
        return replace(self, failures=self.failures + 1, reason=attempt.reason)

    def pause(self, attempt: Attempt, awake: float, random: float) -> float:
        """Return the seconds to wait after the attempt that led to this state.

        After a 429 it is the requested time, between 1 s and 1 h, or a minute without one. An open
        circuit is probed after 1, 2, 5, 10, 30 and 60 minutes. Any other failure waits for the
        back-off with a ``random`` in [0, 1). Neither is shorter than a requested time.
        """
        if self.failures == 0:
            return 0.0
        requested = 0.0
        if attempt.retry_after is not None:
            requested = min(max(attempt.retry_after, _RETRY_AFTER_LEAST), LONGEST_PAUSE)
        if attempt.outcome is Outcome.THROTTLED:
            return requested or _THROTTLED_DEFAULT
        # A broken server that always requests 1 s must not get a request per second for days.
        return max(requested, self._delay(awake, random))

    def _delay(self, awake: float, random: float) -> float:
        if self.open:
            return PROBES[min(self.failures, len(PROBES)) - 1]
        back_off = DELIVERIES if awake - self.since_awake < _HOUR else DELIVERIES_LATER
        return back_off.delay(self.failures, random)


CIRCUIT_CLOSED: Final = CircuitState()
"""State of a receiver without failures."""
