"""State machine of ownership: never two owners whose writes are committed.

The store is a model of PostgreSQL: leases by its own clock, row locks, and transactions that are
ended when they are idle for too long. Replicas may be paused at any point, within a renewal and
within a transaction.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from exporter.core.ownership import (
    ACCOUNT,
    Claim,
    Item,
    Owners,
    configuration_digest,
    plan,
    trusted_until,
    valid_claims,
)

LEASE = 15.0
INDEXES = st.integers(0, 1)
STEPS = ("requested", "stored", "received", "acted", "acted")
IDLE_LIMIT = 0.4 * LEASE
ITEMS = frozenset(Item(ACCOUNT, name) for name in ("a", "b"))
DIGEST = configuration_digest(ITEMS)


@dataclass
class Transaction:
    claim: Claim
    began: float
    locks: bool


@dataclass
class Replica:
    """What one process knows; ``started`` and ``seen`` belong to a renewal under way."""

    name: str
    number: int = 0
    claims: dict[Item, Claim] = field(default_factory=dict)
    trusted_until: float = 0.0
    started: float | None = None
    seen: Owners | None = None
    renewed: Owners | None = None
    transaction: Transaction | None = None

    @property
    def id(self) -> str:
        return f"{self.name}{self.number}"


class OwnershipMachine(RuleBasedStateMachine):
    fence = True
    locks = True

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.leases: dict[str, float] = {}
        self.owners: dict[Item, Claim] = {}
        self.replicas = [Replica("x"), Replica("y")]

    def replica(self, index: int) -> Replica:
        return self.replicas[index]

    def is_locked(self, item: Item) -> bool:
        open_ones = (each.transaction for each in self.replicas)
        return any(each and each.locks and each.claim.item == item for each in open_ones)

    @rule(seconds=st.sampled_from([0.5, 2.0, 3.0, 7.0, 12.5, 16.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for replica in self.replicas:
            if replica.transaction and self.now - replica.transaction.began > IDLE_LIMIT:
                replica.transaction = None  # the server ended it, also if nothing locks

    @rule(
        index=INDEXES, until=st.sampled_from(["requested", "stored", "received", "acted", "acted"])
    )
    def renew(self, index: int, until: str) -> None:
        """Bring a renewal to a step, at which the replica or the network may be paused."""
        replica = self.replica(index)
        if replica.started is None:
            replica.started = self.now
        if until != "requested" and replica.seen is None:
            self.leases[replica.id] = self.now + LEASE
            live = {name: DIGEST for name, end in self.leases.items() if end > self.now}
            replica.seen = Owners(live, dict(self.owners))
        if until in {"received", "acted"} and replica.seen is not None:
            replica.trusted_until = trusted_until(replica.started, LEASE)
            replica.claims = valid_claims(replica.claims, replica.seen)
            replica.renewed, replica.seen, replica.started = replica.seen, None, None
        if until == "acted":
            self.take_and_release(replica)

    def take_and_release(self, replica: Replica) -> None:
        if replica.renewed is None or self.now >= replica.trusted_until:
            return
        steps = plan(replica.renewed, replica.id, ITEMS, replica.claims)
        replica.renewed = None
        for item in steps.release:
            claim = replica.claims.pop(item)
            if self.owners.get(item) == claim and not self.is_locked(item):
                self.owners[item] = Claim(item, "", claim.term)
        for item in steps.take:
            self.take(replica, item)

    def take(self, replica: Replica, item: Item) -> None:
        old = self.owners.get(item, Claim(item, "", 0))
        is_live = self.leases.get(old.holder, 0.0) > self.now and old.holder != replica.id
        if is_live or self.is_locked(item) or self.leases.get(replica.id, 0.0) <= self.now:
            return
        replica.claims[item] = self.owners[item] = Claim(item, replica.id, old.term + 1)

    @rule(index=INDEXES)
    def notice_the_end_of_the_lease(self, index: int) -> None:
        replica = self.replica(index)
        if replica.claims and self.now >= replica.trusted_until:
            replica.number, replica.claims, replica.renewed = replica.number + 1, {}, None
            replica.started = replica.seen = None

    @rule(index=INDEXES, item=st.sampled_from(sorted(ITEMS)))
    def begin_to_write(self, index: int, item: Item) -> None:
        replica = self.replica(index)
        claim = replica.claims.get(item)
        if claim is None or replica.transaction is not None:
            return
        is_owner = self.owners[item] == claim and self.leases[claim.holder] > self.now
        if is_owner or not self.fence:
            replica.transaction = Transaction(claim, self.now, self.fence and self.locks)

    @rule(index=INDEXES)
    def commit(self, index: int) -> None:
        replica = self.replica(index)
        if (transaction := replica.transaction) is not None:
            replica.transaction = None
            owner = self.owners[transaction.claim.item]
            assert owner == transaction.claim, f"{transaction.claim} committed beside {owner}"

    @invariant()
    def two_replicas_never_trust_the_same_item(self) -> None:
        for item in ITEMS:
            holders = [
                each.name
                for each in self.replicas
                if item in each.claims and self.now < each.trusted_until
            ]
            # One that was released and taken by another is known to the other only.
            assert len(holders) <= 1, f"{item} is owned by {holders}"


class WithoutFence(OwnershipMachine):
    fence = False


class WithoutLock(OwnershipMachine):
    locks = False


TestOwnership = OwnershipMachine.TestCase


def take_over_beside_a_paused_write(machine: OwnershipMachine) -> None:
    """The owner is paused in a transaction until its lease has ended and another one took over."""
    item = min(ITEMS)
    machine.renew(0, "acted")
    machine.time_passes(12.5)
    machine.begin_to_write(0, item)
    machine.time_passes(3.0)
    machine.renew(1, "acted")
    machine.commit(0)


def test_the_sequence_that_needs_the_lock_is_harmless_with_it():
    take_over_beside_a_paused_write(OwnershipMachine())


@pytest.mark.parametrize("machine", [WithoutFence, WithoutLock])
def test_without_fence_or_its_lock_two_owners_commit(machine):
    with pytest.raises(AssertionError, match="committed beside"):
        take_over_beside_a_paused_write(machine())


@pytest.mark.soak
def test_the_machine_finds_that_the_fence_is_missing():
    # Found is enough: a shorter example takes a minute, and other bugs are looked for for 10 s.
    many = settings(
        max_examples=2000,
        stateful_step_count=30,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    with pytest.raises(AssertionError, match="committed beside"):
        run_state_machine_as_test(WithoutFence, settings=many)
