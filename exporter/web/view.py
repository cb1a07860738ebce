"""What the pages and the JSON API show: settings, account records and the state of trust."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import cast

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import Connection, select

from exporter.core.match import AccountLabels
from exporter.core.model import FineTune, status_label
from exporter.core.mutes import selects
from exporter.core.ownership import ACCOUNT, Item
from exporter.core.records import (
    AccountRecord,
    DataState,
    FineTuneRecord,
    MuteRecord,
    ReplicaRecord,
    StatusCounts,
    StatusLabel,
    at,
    at_or_none,
)
from exporter.core.status import canonical_status
from exporter.core.view import AccountStatus, by_status
from exporter.store.event_lists import Events
from exporter.store.fine_tunes import FineTuneFilter, FineTunes
from exporter.store.mutes import mute_records
from exporter.store.overview import (
    ReceiverSummary,
    StoredAccount,
    owner_names,
    receiver_records,
    replica_records,
    stored_accounts,
    stored_counts,
)
from exporter.store.schema import deliveries
from exporter.web.trust import Trust


class WatchedAccount(Struct, frozen=True):
    """An account of the configuration, with its own labels."""

    name: str
    base_url: str
    labels: tuple[tuple[str, str], ...] = ()


class ViewSettings(Struct, frozen=True):
    """What the pages need of the configuration. Times are in seconds.

    ``playground`` is the URL of a fine-tune in the Playground, with ``{id}``.
    """

    accounts: tuple[WatchedAccount, ...] = ()
    receivers: tuple[ReceiverSummary, ...] = ()
    interval: float = 60.0
    timeout: float = 60.0
    stale_after: float = 300.0
    retention: float = 90 * 86_400.0
    stuck_after: float = 6 * 3600.0
    playground: str = ""


def stored_settings(connection: Connection) -> ViewSettings:
    """Return settings for everything in a store, as if all its receivers were configured."""
    names = connection.scalars(select(deliveries.c.receiver).distinct())
    return ViewSettings(
        tuple(WatchedAccount(each.name, each.base_url) for each in stored_accounts(connection)),
        tuple(ReceiverSummary(name, "") for name in sorted(names)),
    )


class View:
    """Everything that a page or an answer shows, read in one transaction.

    ``monotonic`` is in seconds. To be used in the reader's thread.
    """

    def __init__(
        self,
        connection: Connection,
        settings: ViewSettings,
        statuses: Sequence[AccountStatus],
        now: float,
        monotonic: float,
    ) -> None:
        self.connection = connection
        self.settings = settings
        self.now = at(now)
        self.configured = frozenset(each.name for each in settings.receivers)
        intervals = {each.name: each.group_interval for each in settings.receivers}
        self.events = Events(connection, intervals, now)
        watched = {(each.name, each.base_url): each for each in settings.accounts}
        everything = stored_accounts(connection)
        stored = [each for each in everything if (each.name, each.base_url) in watched]
        self.account_names = {each.number: each.name for each in stored}
        self.stored = {each.name: each for each in stored}
        are_all = len(stored) == len(everything)
        self.fine_tunes = FineTunes(connection, self.account_names, label, now, are_all=are_all)
        self._statuses = {each.account: each for each in statuses}
        self._monotonic = monotonic
        self._owners = owner_names(connection)
        self.accounts = [self._account(each.name) for each in settings.accounts]
        self.receivers = receiver_records(connection, settings.receivers, now)

    @property
    def trust(self) -> Trust:
        """Whether the data and the receivers can be trusted."""
        fresh = [
            self.now + timedelta(seconds=status.stale_at - self._monotonic)
            for status in self._statuses.values()
            if status.is_fresh(self._monotonic) and status.stale_at < float("inf")
        ]
        return Trust(tuple(self.accounts), tuple(self.receivers), min(fresh, default=None))

    @cached_property
    def mutes(self) -> list[MuteRecord]:
        """All mutes, newest first."""
        return mute_records(self.connection, self.now.timestamp())

    def mutes_of(self, record: FineTuneRecord) -> list[MuteRecord]:
        """Return the active mutes that cover a fine-tune, newest first."""
        compared = FineTune(
            record.id,
            name=record.name,
            language=record.language,
            model_id=record.model_id,
            dataset=record.dataset,
        )
        labels = self.account_labels
        return [
            each
            for each in self.mutes
            if each.active and selects(each, record.account, compared, labels)
        ]

    @property
    def account_labels(self) -> AccountLabels:
        """The labels of each account."""
        return {each.name: dict(each.labels) for each in self.settings.accounts}

    @cached_property
    def status_counts(self) -> dict[str, int]:
        """The numbers of all fine-tunes by status label, and of those stuck and removed."""
        return self.fine_tunes.counts(FineTuneFilter())

    @cached_property
    def replicas(self) -> list[ReplicaRecord]:
        """The replicas that use the database; empty without replicas."""
        return replica_records(self.connection)

    @cached_property
    def _stored_counts(self) -> dict[int, StatusCounts]:
        return stored_counts(self.connection)

    def status(self, account: str) -> AccountStatus | None:
        """Return the published status of an account; None before there is one."""
        return self._statuses.get(account)

    def is_complete(self, accounts: Sequence[AccountRecord]) -> bool:
        """Return whether the data of all these accounts is current and complete."""
        return bool(accounts) and all(each.complete for each in accounts)

    def _account(self, name: str) -> AccountRecord:
        status, stored = self._statuses.get(name), self.stored.get(name)
        status = status or AccountStatus(name)
        state = self._state(status)
        as_of = status.succeeded_at or (0.0 if stored is None else stored.read_at)
        counts = StatusCounts(**by_status(status.counts or {}))
        if stored is not None and status.counts == {}:  # another replica polls it
            counts = self._stored_counts.get(stored.number, counts)
        return AccountRecord(
            id=name,
            state=state,
            complete=state == "current",
            as_of=at_or_none(as_of or None),
            polled_at=at_or_none(status.polled_at or None),
            next_poll_at=at_or_none(status.next_poll_at or None),
            baseline_at=None if stored is None else at(stored.baseline_at),
            failing_since=_failing_since(status, stored),
            failure=status.failure,
            fine_tunes=sum(asdict(counts).values()),
            counts=counts,
            owner=self._owners.get(Item(ACCOUNT, name), ""),
        )

    def _state(self, status: AccountStatus) -> DataState:
        if status.counts is None:
            return "stale" if status.failure and status.is_stale(self._monotonic) else "waiting"
        if status.is_stale(self._monotonic):
            return "stale"
        if not status.up:
            return "failing"
        due = status.next_poll_at + self.settings.interval + self.settings.timeout
        return "late" if status.next_poll_at and self.now.timestamp() > due else "current"


def _failing_since(status: AccountStatus, stored: StoredAccount | None) -> datetime | None:
    if status.up:
        return None
    if stored is not None and stored.failing_since is not None:
        return at(stored.failing_since)
    return at_or_none(status.failing_since or None)


def label(status: str) -> StatusLabel:
    """Return the label of an API status that is not configured as a failure."""
    return cast(StatusLabel, status_label(canonical_status(status)))
