"""Which alerts go into the next request to one member of an Alertmanager."""

from collections.abc import Mapping, Sequence
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
        self._taken: set[_Version] = set()
        self._suspects: list[tuple[int, ...]] = []
        self._minimal: set[int] = set()
        self._refused: set[_Version] = set()

    def next(self, firing: Sequence[Firing], at: float) -> list[Firing]:
        """Return what to post at ``at`` out of all that is to be posted; nothing if none is due.

        What is new or has changed is due at once, and all of it in each round; a round that takes
        longer than its time is finished first.
        """
        current = {alert.number: alert for alert in firing}
        self._forget_all_but(current)
        if self._suspects:
            return [current[number] for number in self._suspects[-1]]
        due = self._due(firing)
        if at >= self._round_at and not (due and self._taken):
            self._taken.clear()
            self._round_at = at + ROUND_SECONDS
            due = self._due(firing)
        return due[: self._most]

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
        numbers = tuple(alert.number for alert in batch)
        if len(batch) > 1:
            half = len(batch) // 2
            self._suspects += [numbers[half:], numbers[:half]]
            return None
        if numbers[0] not in self._minimal:
            self._minimal.add(numbers[0])
            self._suspects.append(numbers)
            return None
        self._refused.add(_version(batch[0]))
        return batch[0]

    def forget_refusals(self) -> None:
        """Try all that was refused once more."""
        self._refused.clear()
        self._minimal.clear()

    def _due(self, firing: Sequence[Firing]) -> list[Firing]:
        done = self._taken | self._refused
        return [alert for alert in firing if _version(alert) not in done]

    def _forget_all_but(self, current: Mapping[int, Firing]) -> None:
        self._taken = {version for version in self._taken if version[0] in current}
        self._refused = {version for version in self._refused if version[0] in current}
        self._minimal &= current.keys()
        still = (tuple(n for n in numbers if n in current) for numbers in self._suspects)
        self._suspects = [numbers for numbers in still if numbers]


def _version(alert: Firing) -> _Version:
    return alert.number, alert.left
