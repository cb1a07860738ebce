"""Which alerts go into the next request to one member of an Alertmanager."""

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final

from exporter.core.firing import Firing

ROUND_SECONDS: Final = 60.0
"""How often a member is told all of it again: it keeps alerts in its memory only."""

_Version = tuple[int, bool]


class Posting:
    """What one member has taken in this round and what it has refused; times are monotonic.

    A refusal is for the whole request, though the valid alerts in it were taken. So the request is
    halved until the bad ones are alone; each of those is tried once more in its minimal form. That
    makes fewer than three requests for each alert of the one that was refused.
    """

    def __init__(self, most: int, at: float) -> None:
        self._most = most
        self._round_at = at + ROUND_SECONDS
        self._firing: Sequence[Firing] = ()
        self._due: deque[Firing] = deque()
        self._taken: set[_Version] = set()
        self._suspects: list[Sequence[Firing]] = []
        self._minimal: set[int] = set()
        self._refused: set[_Version] = set()

    def next(self, firing: Sequence[Firing], at: float) -> list[Firing]:
        """Return what to post at ``at`` out of all that is to be posted; nothing if none is due.

        What is new or has changed is due at once, and all of it in each round; a round that takes
        longer than its time is finished first. While ``firing`` is the same list, no more of it is
        looked at than what is due next.
        """
        if firing is not self._firing:
            self._see(firing)
        if self._suspects:
            return list(self._suspects[-1])
        due = self._next_due()
        if at >= self._round_at and not (due and self._taken):
            self._taken.clear()
            self._round_at = at + ROUND_SECONDS
            self._queue()
            due = self._next_due()
        return due

    def wait(self, at: float) -> float:
        """Return in how many seconds the next round begins."""
        return max(self._round_at - at, 0.0)

    def is_minimal(self, number: int) -> bool:
        """Return whether an alert is to be posted in its minimal form."""
        return number in self._minimal

    def took(self, batch: Sequence[Firing]) -> None:
        """Note that the member took what ``next`` returned."""
        del self._suspects[-1:]
        self._taken |= {_version(alert) for alert in batch}

    def refused(self, batch: Sequence[Firing]) -> Firing | None:
        """Note that the member refused what ``next`` returned; return one that it never takes."""
        del self._suspects[-1:]
        if len(batch) > 1:
            half = len(batch) // 2
            self._suspects += [batch[half:], batch[:half]]
            return None
        if batch[0].number not in self._minimal:
            self._minimal.add(batch[0].number)
            self._suspects.append(batch)
            return None
        self._refused.add(_version(batch[0]))
        return batch[0]

    def forget_refusals(self) -> None:
        """Try all that was refused once more."""
        self._refused.clear()
        self._minimal.clear()
        self._firing = ()  # so that all of it is looked at again

    def _next_due(self) -> list[Firing]:
        while self._due and self._is_done(self._due[0]):
            self._due.popleft()
        return [each for each in islice(self._due, self._most) if not self._is_done(each)]

    def _is_done(self, alert: Firing) -> bool:
        return _version(alert) in self._taken or _version(alert) in self._refused

    def _see(self, firing: Sequence[Firing]) -> None:
        """Take over another list, and forget what is no longer in it."""
        current = {alert.number: alert for alert in firing}
        self._firing = firing
        self._taken = {version for version in self._taken if version[0] in current}
        self._refused = {version for version in self._refused if version[0] in current}
        self._minimal &= current.keys()
        still = ([current[x.number] for x in few if x.number in current] for few in self._suspects)
        self._suspects = [few for few in still if few]
        self._queue()

    def _queue(self) -> None:
        self._due = deque(alert for alert in self._firing if not self._is_done(alert))


def _version(alert: Firing) -> _Version:
    return alert.number, alert.left
