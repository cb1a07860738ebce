"""Queue that serves its clients in turn, so that one of them cannot keep the others waiting."""

from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from msgspec import Struct

_REMEMBERED = 4096
"""Keys whose last turn is known. An older one counts as never served."""

Item = TypeVar("Item", bound=Hashable)
Key = tuple[Hashable, ...]
"""Who waits, from the general to the particular: client address, user, connection."""


class _Waiting(Struct, Generic[Item], frozen=True):
    key: Key
    item: Item
    since: float


class FairQueue(Generic[Item]):
    """Waiting items, at most ``limit``, each under a key.

    The first element of the key that was served least recently is next, among its items the second
    element, and so on; what is left is served in the order of arrival. When its oldest item has
    waited for more than ``overload`` seconds, the newest is next: the oldest is about to time out,
    and serving it would let all later ones time out too.
    """

    def __init__(self, limit: int, overload: float) -> None:
        self._limit = limit
        self._overload = overload
        self._waiting: dict[Item, _Waiting[Item]] = {}
        self._turns: dict[Key, int] = {}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, key: Key, item: Item, now: float) -> Item | None:
        """Add an item at ``now`` (monotonic seconds).

        Returns an item that was removed to make room: the oldest of the client with the most items.
        """
        self._waiting[item] = _Waiting(key, item, now)
        if len(self._waiting) <= self._limit:
            return None
        counts = Counter(each.key[0] for each in self._waiting.values())
        most = max(counts.values())
        dropped = next(each for each in self._waiting.values() if counts[each.key[0]] == most)
        return self.discard(dropped.item)

    def pop(self, now: float) -> Item | None:
        """Remove and return the next item; None if there is none."""
        if not self._waiting:
            return None
        candidates = list(self._waiting.values())
        for depth in range(1, 1 + max(len(each.key) for each in candidates)):
            turns = [self._turns.get(each.key[:depth], 0) for each in candidates]
            least = min(turns)
            candidates = [c for c, turn in zip(candidates, turns, strict=True) if turn == least]
        is_overloaded = now - candidates[0].since > self._overload
        chosen = candidates[-1 if is_overloaded else 0]
        self._turn += 1
        for prefix in _prefixes(chosen.key):
            self._turns.pop(prefix, None)  # the last served are last
            self._turns[prefix] = self._turn
        while len(self._turns) > _REMEMBERED:
            del self._turns[next(iter(self._turns))]
        return self.discard(chosen.item)

    def discard(self, item: Item) -> Item | None:
        """Remove an item and return it; None if it is not waiting."""
        return None if self._waiting.pop(item, None) is None else item


def _prefixes(key: Key) -> Iterator[Key]:
    return (key[: depth + 1] for depth in range(len(key)))
