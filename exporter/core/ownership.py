"""Decisions about ownership: which replica runs the services of which accounts and receivers."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256
from typing import Final, NamedTuple

from msgspec import Struct

ACCOUNT: Final = "account"
RECEIVER: Final = "receiver"


class Item(NamedTuple):
    """What one replica owns at a time: an account, a receiver, or the work of one agent."""

    kind: str
    name: str


AGENT: Final = Item("agent", "agent")
"""The work that one replica does for all: heartbeat, retention and the awake clock."""

_TRUSTED_SHARE: Final = 0.8
_RENEWALS_PER_LEASE: Final = 5


class Claim(Struct, frozen=True):
    """Ownership of an item: the replica that holds it, and the number of its takeover.

    ``moves`` counts only the takeovers from a replica at another address.
    """

    item: Item
    holder: str
    term: int
    moves: int = 0


class Owners(Struct, frozen=True):
    """Owners as stored at one moment.

    ``live`` has the digest of the configuration of each replica whose lease has not ended, by its
    id; ``claims`` the last owner of each item, which may be dead.
    """

    live: Mapping[str, str]
    claims: Mapping[Item, Claim]


class Plan(Struct, frozen=True):
    """What a replica takes, and what it releases once its services have stopped."""

    take: tuple[Item, ...] = ()
    release: tuple[Item, ...] = ()


def renewal_interval(lease: float) -> float:
    """Return the seconds between two renewals of a lease."""
    return lease / _RENEWALS_PER_LEASE


def trusted_until(started: float, lease: float) -> float:
    """Return until when a lease is trusted whose renewal was requested at ``started``.

    Both are on the monotonic clock of the replica, in seconds: no two clocks are compared.
    """
    return started + _TRUSTED_SHARE * lease


def configuration_digest(items: Iterable[Item]) -> str:
    """Return a text that is equal for replicas with the same items."""
    return sha256(repr(sorted(items)).encode()).hexdigest()


def valid_claims(claims: Mapping[Item, Claim], owners: Owners) -> dict[Item, Claim]:
    """Return those claims that are still stored."""
    return {item: claim for item, claim in claims.items() if owners.claims.get(item) == claim}


def plan(owners: Owners, me: str, wanted: Collection[Item], claims: Mapping[Item, Claim]) -> Plan:
    """Return what the replica ``me`` takes and releases; ``claims`` are its own.

    Replicas with the same configuration share the items of each kind: their numbers differ by one
    at most. Another replica only takes what has no owner. An item that ``me`` holds without a claim
    has none: its lease ended in between.
    """
    take, release = list[Item](), [item for item in claims if item not in wanted]
    by_kind: dict[str, list[Item]] = {}
    for item in sorted(wanted):
        by_kind.setdefault(item.kind, []).append(item)
    for items in by_kind.values():
        mine = [item for item in items if item in claims]
        free = [item for item in items if item not in claims and _is_free(owners, me, item)]
        shares, held = _shares(owners, me, items, len(mine))
        missing = shares[me] - len(mine)
        if missing > 0:
            # In an order of its own: replicas that take at the same time seldom want the same.
            free.sort(key=lambda item: sha256(f"{me}{item.name}".encode()).digest())
            take += free[:missing]
        elif missing < 0:
            wanting = sum(max(shares[each] - held[each], 0) for each in shares if each != me)
            surplus = max(min(-missing, wanting - len(free)), 0)
            release += mine[len(mine) - surplus :]
    return Plan(tuple(take), tuple(release))


def _is_free(owners: Owners, me: str, item: Item) -> bool:
    claim = owners.claims.get(item)
    return claim is None or claim.holder == me or claim.holder not in owners.live


def _shares(
    owners: Owners, me: str, items: Collection[Item], mine: int
) -> tuple[dict[str, int], Counter[str]]:
    """Return how many of the items each replica with my configuration should, and does, hold."""
    peers = [each for each, digest in owners.live.items() if digest == owners.live.get(me)]
    holders = (owners.claims[item].holder for item in items if item in owners.claims)
    held = Counter(dict.fromkeys({*peers, me}, 0))
    held.update(holder for holder in holders if holder in held)
    held[me] = mine
    least, more = divmod(len(items), len(held))
    # Those that hold the most keep one more: nothing moves without need.
    ranked = sorted(held, key=lambda each: (-held[each], each))
    return {each: least + (rank < more) for rank, each in enumerate(ranked)}, held
