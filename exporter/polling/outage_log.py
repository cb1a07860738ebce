"""Log lines of the outages of one account: their beginning, each hour, and their end."""

from math import inf
from typing import Final

import structlog

from exporter.core.model import Outage
from exporter.core.text import format_duration, one_line, timestamp
from exporter.core.view import AccountStatus

_REPEAT_SECONDS: Final = 3600.0
"""An outage is logged again, and a reason of it is repeated, after this time."""

_CHANGE_SECONDS: Final = 60.0
"""Least time between two lines of an outage whose reasons change."""

log = structlog.get_logger()


class OutageLog:
    """Logs the outages of one account, with few lines however many polls fail.

    Each line says whether the counts are shown, and when they were read. Times in calls are in
    monotonic seconds, ``lasted`` in seconds.
    """

    def __init__(self, account: str) -> None:
        self._log = log.bind(account=account)
        self._failed_polls = 0
        self._logged_at = -inf
        self._reasons_logged_at: dict[str, float] = {}
        self._is_withholding_logged = False

    def failed(
        self, outage: Outage, lasted: float, status: AccountStatus, now: float, next_poll: float
    ) -> None:
        """Log a failed poll of ``outage``, if its line is due; else at level debug.

        ``next_poll`` is the time until the next poll in seconds.
        """
        self._failed_polls += 1
        facts = {
            "reason": outage.reason,
            "error": one_line(outage.error),
            **_counts(status, now),
            "since": timestamp(outage.since),
            "lasted": format_duration(round(lasted)),
            "failed_polls": self._failed_polls,
            "next_poll": f"in {next_poll:.0f}s",
        }
        since_reason = now - self._reasons_logged_at.get(outage.reason, -inf)
        is_change = since_reason >= _REPEAT_SECONDS and now - self._logged_at >= _CHANGE_SECONDS
        if self._failed_polls > 1 and now - self._logged_at >= _REPEAT_SECONDS:
            self._log.warning("polls still fail", **facts)
        elif is_change:
            self._log.warning("poll failed", **facts)
        else:
            self._log.debug("poll failed", **facts)
            return
        self._logged_at = self._reasons_logged_at[outage.reason] = now

    def withheld(self, outage: Outage, status: AccountStatus) -> None:
        """Log once per outage that its counts are too old and no longer shown."""
        if status.counts is None or self._is_withholding_logged:
            return
        self._is_withholding_logged = True
        self._log.warning(
            "counts withheld",
            reason=outage.reason,
            counts="withheld",
            last_success=timestamp(status.succeeded_at),
            since=timestamp(outage.since),
        )

    def recovered(self, outage: Outage, lasted: float) -> None:
        """Log the end of an outage."""
        self._log.info(
            "poll recovered",
            lasted=format_duration(round(lasted)),
            failed_polls=self._failed_polls,
            since=timestamp(outage.since),
        )
        self._failed_polls, self._logged_at = 0, -inf
        self._reasons_logged_at.clear()
        self._is_withholding_logged = False


def _counts(status: AccountStatus, now: float) -> dict[str, str]:
    """Return what is shown of an account, and when it was read."""
    if status.counts is None:
        return {"counts": "none"}
    shown = "withheld" if status.is_stale(now) else "shown"
    return {"counts": shown, "last_success": timestamp(status.succeeded_at)}
