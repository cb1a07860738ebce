"""Ownership loop of a replica: renews its lease, and takes and releases accounts and receivers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final

import structlog
from msgspec import Struct
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.agent.services import Services
from exporter.core.clock import Clock
from exporter.core.model import AccountKey
from exporter.core.ownership import (
    AGENT,
    Claim,
    Item,
    configuration_digest,
    plan,
    renewal_interval,
    trusted_until,
    valid_claims,
)
from exporter.core.view import AccountStatus
from exporter.store.errors import StoreError
from exporter.supervisor import Service

if TYPE_CHECKING:
    from exporter.store.ownership import Lease, Renewal, StoredPoll

_STORE_LENGTH: Final = 8
"""Characters of the store's id in a label."""

_RETRIES_PER_INTERVAL: Final = 3
"""Attempts to renew the lease within an interval while the database fails."""

_ACT_LEASES: Final = 4
"""Lengths of a lease after which a replica that neither starts nor stops services is as good as
dead: it must not keep what it cannot run."""

_LEASE_END_MARGIN: Final = 0.05
"""Seconds after the end of another replica's lease at which this one looks what is free."""

_END_SECONDS: Final = 1.0
"""How long the end of the agent waits for the database."""

log = structlog.get_logger()


class OwnerMetrics(Collector):
    """What this process owns of what is configured: everything, without replicas.

    ``items`` are those configured, ``owned`` returns those that this process owns.
    """

    def __init__(
        self,
        store_id: str,
        items: Callable[[], Iterable[Item]],
        owns: Callable[[Item], bool],
    ) -> None:
        self._store = store_id[:_STORE_LENGTH]
        self._items = items
        self._owns = owns

    def collect(self) -> Iterator[Metric]:
        """Yield the gauge of ownership."""
        owner = GaugeMetricFamily(
            "cartesia_exporter_owner",
            "Whether this process polls the account, delivers to the receiver or does the work of "
            "one agent (1), or another replica does (0).",
            labels=("store", "kind", "name"),
        )
        for item in sorted(self._items()):
            owner.add_metric((self._store, *item), self._owns(item))
        yield owner


class _Renewed(Struct, frozen=True):
    """A renewal, and when it was requested, in monotonic seconds."""

    renewal: "Renewal"
    at: float


class ReplicaObservers(Struct, frozen=True):
    """What a replica calls after a renewal.

    ``wake`` wakes the deliverers: another process wrote. ``store_reads`` stores when accounts were
    read, for other replicas; it raises StoreError.
    """

    wake: Callable[[], None]
    store_reads: Callable[[], Awaitable[None]]


class Ownership(Service):
    """Runs the services of what this replica owns, and of nothing else.

    The lease is trusted for a part of its length from before the renewal was requested. If it ends,
    or the database is restarted or replaced, the replica stops its services by itself and takes
    part again under another id: nothing of before may be stored any more.
    """

    wakeup_deadline: float = inf

    def __init__(
        self, lease: "Lease", services: Services, clock: Clock, observers: ReplicaObservers
    ) -> None:
        self._lease = lease
        self._services = services
        self._clock = clock
        self._observers = observers
        self._claims: dict[Item, Claim] = {}
        self._trusted_until = -inf
        self._renewed: _Renewed | None = None
        self._acted_at = -inf
        self._changed = asyncio.Event()
        self._acting_since = inf
        self._acted = asyncio.Event()
        self._is_leaving = False
        self._error = ""
        self.polls: dict[AccountKey, tuple[StoredPoll, float]] = {}

    @property
    def claims(self) -> Mapping[Item, Claim]:
        """What this replica owns at the moment."""
        return self._claims if self._is_trusted else {}

    @property
    def trouble(self) -> str:
        """Why this replica takes no part; empty while its lease has not ended."""
        return "" if self._is_trusted else "the database does not answer, and the lease has ended"

    @property
    def has_peers_only(self) -> bool:
        """Whether all live replicas have the same configuration."""
        live = {} if self._renewed is None else self._renewed.renewal.owners.live
        return {*live.values()} == {configuration_digest(self._services.items)}

    @property
    def _is_trusted(self) -> bool:
        return self._clock.monotonic() < self._trusted_until

    def remote_status(self, account: AccountKey, stale_after: float) -> AccountStatus:
        """Return the status of an account that another replica polls, as far as it is stored."""
        if account not in self.polls:
            return AccountStatus(account.name)
        poll, seen_at = self.polls[account]
        return AccountStatus(
            account.name,
            up=poll.failing_since is None,
            polled_at=poll.read_at,
            succeeded_at=poll.read_at,
            counts={},
            failure=poll.reason,
            stale_at=seen_at + stale_after,
            failing_since=poll.failing_since or 0.0,
        )

    async def join(self, url: str) -> None:
        """Take what has no owner, before the services start.

        ``url`` is of the pages of this replica, as its machine sees it. Raises StoreError.
        """
        self._lease.url = url
        await self._renew()
        await self._take_and_release()

    def leave(self) -> None:
        """Take nothing more: the agent stops."""
        self._is_leaving = True

    async def end(self) -> None:
        """End the lease: the other replicas need not wait until it ends by itself."""
        try:
            if self._is_trusted and not self._lease.is_lost:
                async with asyncio.timeout(_END_SECONDS):
                    await self._lease.end()
        except (StoreError, TimeoutError) as error:
            log.warning("lease not ended, other replicas wait for it", error=str(error))
        finally:
            self._lease.close()

    def trusts(self, claim: Claim) -> bool:
        """Return whether this replica has a claim still, as far as it knows."""
        return self.claims.get(claim.item) == claim

    def drop(self, claim: Claim) -> None:
        """Stop the service of a claim that another replica has."""
        if self._claims.get(claim.item) == claim:
            log.warning("ownership lost", kind=claim.item.kind, name=claim.item.name)
            self._set_claims({i: each for i, each in self._claims.items() if i != claim.item})

    async def run(self, stop: asyncio.Event) -> None:
        """Renew, take and release until ``stop`` is set."""
        async with asyncio.TaskGroup() as group:
            loops = self._renew_forever(), self._watch(), self._act(), self._store_reads()
            tasks = [group.create_task(each) for each in loops]
            await stop.wait()
            for task in tasks:  # also one that waits for the database
                task.cancel()

    async def _renew_forever(self) -> None:
        interval = renewal_interval(self._lease.seconds)
        while not self._lease.is_lost:
            if self._clock.monotonic() > self._acting_since + _ACT_LEASES * self._lease.seconds:
                log.error("services do not start or stop, the lease is left to other replicas")
                await self._acted.wait()
            began = self.wakeup_deadline = self._clock.monotonic()
            wait, replica = interval, self._lease.replica
            try:
                renewal = await self._renew()
                wait = min(wait, renewal.next_end + _LEASE_END_MARGIN)
                if self._lease.replica != replica:
                    wait = 0.0  # another id, which has no lease yet
            except StoreError as error:
                wait = interval / _RETRIES_PER_INTERVAL
                if str(error) != self._error:
                    self._error = str(error)
                    log.error("lease not renewed", error=self._error)  # noqa: TRY400 - no bug
            self.wakeup_deadline = max(began + wait, self._clock.monotonic())
            await asyncio.sleep(self.wakeup_deadline - self._clock.monotonic())
        self.wakeup_deadline = inf  # the guard of the store ends the agent
        self._set_claims({})

    async def _renew(self) -> "Renewal":
        started, last = self._clock.monotonic(), self._renewed
        digest = configuration_digest(self._services.items)
        renewal = await self._lease.renew(digest, self.claims.get(AGENT))
        if self._error:
            log.info("lease renewed again")
            self._error = ""
        self._trusted_until = trusted_until(started, self._lease.seconds)
        self._renewed = _Renewed(renewal, started)
        self._note_polls(renewal)
        if last is not None and last.renewal.server != renewal.server:
            log.warning("database restarted or replaced; services begin again from what it has")
            self._begin_again()
        else:
            self._set_claims(valid_claims(self._claims, renewal.owners))
        if last is not None and last.renewal.changes != renewal.changes:
            self._observers.wake()
        self._changed.set()
        return renewal

    async def _watch(self) -> None:
        """Stop the services by itself when the lease is not renewed in time."""
        while True:
            if self._is_trusted:
                await asyncio.sleep(self._trusted_until - self._clock.monotonic())
                continue
            if self._claims:
                log.error("lease ended, services stop until it is renewed", items=len(self._claims))
                self._begin_again()
            await asyncio.sleep(renewal_interval(self._lease.seconds) / _RETRIES_PER_INTERVAL)

    def _begin_again(self) -> None:
        """Take part as another replica: a claim of before must never be valid again."""
        self._lease.begin_again()
        self._acted_at = self._clock.monotonic()
        self._set_claims({})

    def _set_claims(self, claims: dict[Item, Claim]) -> None:
        if claims != self._claims:
            self._claims = claims
            self._services.withdraw()
            self._changed.set()

    async def _act(self) -> None:
        while True:
            self._acting_since = inf
            self._acted.set()
            await self._changed.wait()
            self._changed.clear()
            self._acting_since = self._clock.monotonic()
            self._acted.clear()
            try:
                await self._services.replace({})
                await self._take_and_release()
            except (StoreError, OSError) as error:  # the next renewal tries again
                log.error("services not started or stopped", error=str(error))  # noqa: TRY400

    async def _store_reads(self) -> None:
        while True:
            await asyncio.sleep(renewal_interval(self._lease.seconds))
            with suppress(StoreError):  # the next renewal reports it
                await self._observers.store_reads()

    async def _take_and_release(self) -> None:
        """Do what follows from the last renewal, if nothing was done since."""
        renewed = self._renewed
        if renewed is None or renewed.at <= self._acted_at or self._is_leaving:
            return
        if not self._is_trusted or self._lease.is_lost:
            return
        owners, items = renewed.renewal.owners, self._services.items
        steps = plan(owners, self._lease.replica, items, self._claims)
        if steps.release:
            released = [self._claims[item] for item in steps.release]
            self._set_claims({i: each for i, each in self._claims.items() if each not in released})
            await self._services.replace({})  # ends what they are doing
            await self._lease.release(released)
        if steps.take:
            taken = await self._lease.take(steps.take)
            mine = {i: each for i, each in taken.items() if each.holder == self._lease.replica}
            self._set_claims({**self._claims, **mine})
        if steps.take or steps.release:
            self._acted_at = self._clock.monotonic()
            log.info("ownership changed", taken=len(steps.take), released=len(steps.release))

    def _note_polls(self, renewal: "Renewal") -> None:
        """Note when each account was read, on the clock of this process."""
        now, at = self._clock.monotonic(), self._clock.now()
        self.polls = {
            account: (
                poll,
                self.polls[account][1]
                if account in self.polls and self.polls[account][0].read_at == poll.read_at
                # Of which the age is not known from before, by the wall clock.
                else now
                if account in self.polls
                else now - max(at - poll.read_at, 0.0),
            )
            for account, poll in renewal.polls.items()
        }
