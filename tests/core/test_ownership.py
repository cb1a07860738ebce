"""Who takes and releases what: everything is owned, shares are equal, and nothing moves twice."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from exporter.core.ownership import (
    ACCOUNT,
    AGENT,
    RECEIVER,
    Claim,
    Item,
    Owners,
    configuration_digest,
    plan,
    trusted_until,
    valid_claims,
)

Claims = dict[Item, Claim]


def accounts(number: int) -> frozenset[Item]:
    return frozenset(Item(ACCOUNT, f"account {n}") for n in range(number))


class Replicas:
    """Replicas that renew one after the other; each takes and releases what it planned."""

    def __init__(self, **configurations: Iterable[Item]) -> None:
        self.wanted = {name: frozenset(items) for name, items in configurations.items()}
        self.live = set(self.wanted)
        self.claims: Claims = {}

    def owned_by(self, replica: str) -> Claims:
        return {item: each for item, each in self.claims.items() if each.holder == replica}

    def owners(self) -> Owners:
        live = {name: configuration_digest(self.wanted[name]) for name in self.live}
        return Owners(live, self.claims)

    def renew(self, replica: str) -> int:
        """Return how many items the replica took and released."""
        mine = self.owned_by(replica)
        steps = plan(self.owners(), replica, self.wanted[replica], mine)
        for item in steps.release:
            self.claims[item] = Claim(item, "", self.claims[item].term)
        for item in steps.take:
            old = self.claims.get(item)
            assert old is None or old.holder not in self.live, "taken from a live owner"
            self.claims[item] = Claim(item, replica, old.term + 1 if old else 1)
        return len(steps.take) + len(steps.release)

    def settle(self) -> int:
        """Let all live replicas renew until nothing changes; return the number of changes."""
        changes = 0
        for _ in range(50):
            now = sum(self.renew(replica) for replica in sorted(self.live))
            if not now:
                return changes
            changes += now
        raise AssertionError("ownership does not settle")

    def shares(self) -> list[int]:
        return sorted(len(self.owned_by(replica)) for replica in self.live)


@given(
    number=st.integers(0, 40),
    replicas=st.integers(1, 5),
    deaths=st.lists(st.integers(0, 4), max_size=6),
)
def test_replicas_own_everything_in_equal_shares_whoever_dies(number, replicas, deaths):
    names = [f"replica {n}" for n in range(replicas)]
    items = accounts(number)
    group = Replicas(**dict.fromkeys(names, items))
    for death in [None, *deaths]:
        if death is not None and death < replicas:
            group.live ^= {names[death]}  # it dies, or comes back
        if not group.live:
            group.live = {names[0]}
        group.settle()
        assert sum(group.shares()) == number
        assert max(group.shares()) - min(group.shares()) <= 1


def test_one_replica_owns_everything_and_a_second_one_the_half():
    items = accounts(10) | {Item(RECEIVER, "slack"), AGENT}
    group = Replicas(first=items, second=items)
    group.live = {"first"}
    group.settle()
    assert group.shares() == [12]
    group.live = {"first", "second"}
    assert group.settle() == 10, "five accounts are released and taken; the rest stays"
    assert group.shares() == [5, 7]


def test_what_a_dead_replica_owned_is_taken_by_the_others_within_one_renewal():
    items = accounts(9)
    group = Replicas(a=items, b=items, c=items)
    group.settle()
    group.live = {"a", "b"}
    assert group.renew("a") + group.renew("b") == 3
    assert group.shares() == [4, 5]


def test_replicas_with_other_configurations_take_what_nobody_owns_and_leave_the_rest():
    old, new = accounts(4), accounts(6)
    group = Replicas(old=old, new=new)
    group.live = {"old"}
    group.settle()
    group.live = {"old", "new"}
    group.settle()
    assert (len(group.owned_by("old")), len(group.owned_by("new"))) == (4, 2)
    group.live = {"new"}
    group.settle()
    assert len(group.owned_by("new")) == 6


def test_what_left_the_configuration_is_released():
    group = Replicas(a=accounts(3))
    group.settle()
    group.wanted["a"] = accounts(1)
    group.settle()
    assert [*group.owned_by("a")] == [Item(ACCOUNT, "account 0")]


def test_an_item_held_without_a_claim_is_taken_again():
    """The lease ended in between: only a new term cuts off what still runs under the old one."""
    [item] = accounts(1)
    owners = Owners({"me": "c"}, {item: Claim(item, "me", 4)})
    assert plan(owners, "me", {item}, {}).take == (item,)
    assert plan(owners, "me", {item}, owners.claims).take == ()


def test_a_claim_is_valid_while_holder_and_term_are_stored():
    [item] = accounts(1)
    for stored, is_valid in (("me", 4), True), (("me", 5), False), (("other", 4), False):
        owners = Owners({}, {item: Claim(item, *stored)})
        claim = Claim(item, "me", 4)
        assert valid_claims({item: claim}, owners) == ({item: claim} if is_valid else {})


def test_a_lease_is_trusted_for_less_than_its_length_from_before_the_request():
    assert trusted_until(100.0, 15.0) == 112.0
