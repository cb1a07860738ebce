"""A token bucket: how many requests may come, and how fast."""

from exporter.web.settings import RateLimit


class TokenBucket:
    """Full at first; a request takes a token, and each interval brings one back."""

    def __init__(self, limit: RateLimit, now: float) -> None:
        self._limit = limit
        self._tokens = float(limit.burst)
        self._counted_at = now

    def take(self, now: float) -> bool:
        """Take a token at ``now`` (monotonic seconds); return whether there was one."""
        gained = (now - self._counted_at) / self._limit.interval
        self._tokens = min(self._tokens + gained, self._limit.burst)
        self._counted_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
