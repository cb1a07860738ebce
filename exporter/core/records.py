"""Records of fine-tunes, events, deliveries, receivers and accounts.

The JSON API serves them, the pages render them and the commands print them. Times are in UTC,
durations in seconds. A field that does not apply is null.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Time = Annotated[datetime, Meta(tz=True)]
StatusLabel = Literal["created", "training", "completed", "failed", "unknown"]
DeliveryState = Literal["pending", "muted", "delivered", "dead", "discarded", "orphaned"]
DataState = Literal["current", "late", "failing", "stale", "waiting"]
ReceiverCondition = Literal["delivering", "retrying", "unhealthy", "unused"]


def at(seconds: float) -> datetime:
    """Return Unix seconds as a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def at_or_none(seconds: float | None) -> datetime | None:
    """Return Unix seconds as a time in UTC; None for None."""
    return None if seconds is None else at(seconds)


class Record(Struct, frozen=True, kw_only=True):
    """An element of a list. ``id`` is the cursor that ``starting_after`` takes."""

    id: str


class StatusCounts(Struct, frozen=True, kw_only=True):
    """Number of fine-tunes by status."""

    created: int = 0
    training: int = 0
    completed: int = 0
    failed: int = 0
    unknown: int = 0


class AccountRecord(Record, frozen=True, kw_only=True):
    """An account and its data; ``id`` is its name.

    ``state``: current; late, when a poll is overdue; failing, when the last poll failed; stale,
    when the data is too old to be exported; waiting, before the first complete poll. ``as_of`` is
    the time of the last complete poll; ``complete`` is whether the last poll read every page.
    ``failure`` is the reason of the last poll's failure, ``failing_since`` the first failed poll
    of the outage. ``counts`` are of ``as_of``. ``owner`` is the name of the replica that polls it,
    empty without replicas.
    """

    state: DataState
    complete: bool
    as_of: Time | None
    polled_at: Time | None
    next_poll_at: Time | None
    baseline_at: Time | None
    failing_since: Time | None
    failure: str
    fine_tunes: int
    counts: StatusCounts
    owner: str = ""


class ReplicaRecord(Record, frozen=True, kw_only=True):
    """A replica, and how many accounts and receivers it owns; ``name`` is that of its host.

    ``live`` is whether its lease has not ended. ``renewed_at`` is its last renewal, by the clock of
    the database. ``agent`` is whether it does the work of one agent: heartbeat and retention.
    """

    name: str
    version: str
    live: bool
    renewed_at: Time
    accounts: int
    receivers: int
    agent: bool


class FineTuneRecord(Record, frozen=True, kw_only=True):
    """A fine-tune as last read.

    ``status`` is the text of the API, ``status_label`` its label in the metrics. ``since`` is when
    the status was first observed; ``since_seen`` is whether the agent saw it begin. ``trainings``
    counts the observed ends of a training. ``trained_seconds`` is the length of the last one, or
    of the one under way; ``usual_seconds`` the median of the model's last 50 completed ones.
    """

    account: str
    name: str
    description: str
    language: str
    model_id: str
    dataset: str
    status: str
    status_label: StatusLabel
    since: Time
    since_seen: bool
    stuck: bool
    removed: bool
    trainings: int
    trained_seconds: float | None
    usual_seconds: float | None


class AttemptRecord(Struct, frozen=True, kw_only=True):
    """One request to a receiver, how long it took, and the answer or the error."""

    at: Time
    seconds: float
    outcome: str
    answer: str


class DeliveryRecord(Record, frozen=True, kw_only=True):
    """An event queued for a receiver; ``id`` is the event's id, a colon and the receiver's name.

    ``message`` is the id of the message that carries it, with ``message_events`` events in all;
    null before there is one, and for an Alertmanager. ``answer`` is the last answer or error.
    ``next_attempt_at`` is set while it is pending and its receiver fails. ``held_until`` is set
    while the receiver's ``group_interval`` holds it back. ``mute`` is the id of the mute that holds
    it, or held it last. While it is muted, ``muted_until`` is the mute's end, at the latest if
    ``muted_until_recovered``, and ``muted_by`` its author. ``discarded_by`` is who discarded it: a
    person, a command, or the id of a mute that ended; empty for any other state.
    """

    event: str
    type: str
    account: str
    fine_tune: str | None
    name: str
    status: str | None
    observed_at: Time
    receiver: str
    state: DeliveryState
    queued_at: Time
    settled_at: Time | None
    attempts: int
    last_attempt_at: Time | None
    next_attempt_at: Time | None
    held_until: Time | None
    mute: str | None
    muted_until: Time | None
    muted_until_recovered: bool
    muted_by: str
    discarded_by: str
    answer: str
    message: str | None
    message_events: int


class EventRecord(Record, frozen=True, kw_only=True):
    """An event and its deliveries. ``facts`` are the own values of an event about the agent."""

    type: str
    title: str
    account: str
    observed_at: Time
    fine_tune: str | None
    name: str
    model_id: str
    dataset: str
    status: str | None
    previous_status: str | None
    facts: dict[str, Any]
    deliveries: list[DeliveryRecord]


class TrainingRecord(Struct, frozen=True, kw_only=True):
    """A training that ended; ``seconds`` is null when its begin was not observed."""

    attempt: int
    began_at: Time
    ended_at: Time
    seconds: float | None
    ended_as: StatusLabel


class StatusSpan(Struct, frozen=True, kw_only=True):
    """A time in one status; ``until`` is null while it lasts."""

    status: str
    status_label: StatusLabel
    since: Time
    since_seen: bool
    until: Time | None


class FineTuneStory(Struct, frozen=True, kw_only=True):
    """A fine-tune, its statuses and trainings, its events with their deliveries, and its siblings.

    Statuses, trainings and events are oldest first. ``same_dataset`` are the other fine-tunes of
    the dataset, newest first, at most 20 of ``same_dataset_total``, of which ``_failed`` failed;
    likewise for the model. ``mutes`` are the active ones that cover it.
    """

    fine_tune: FineTuneRecord
    statuses: list[StatusSpan]
    trainings: list[TrainingRecord]
    events: list[EventRecord]
    same_dataset: list[FineTuneRecord]
    same_dataset_total: int
    same_dataset_failed: int
    same_model_total: int
    same_model_failed: int
    dataset_failures_7d: int
    mutes: list["MuteRecord"]


class ReceiverRecord(Record, frozen=True, kw_only=True):
    """A receiver; ``id`` is its name.

    ``held`` counts the pending deliveries that its ``group_interval`` (seconds) holds back until
    ``held_until``, ``muted`` those that are muted. ``failures`` counts the failed attempts in a row
    since ``failing_since``; ``reason`` is the last one's. ``next_attempt_at`` is set while
    deliveries wait for it.
    ``owner`` is the name of the replica that delivers, empty without replicas.
    """

    type: str
    state: ReceiverCondition
    configured: bool
    pending: int
    held: int
    held_until: Time | None
    group_interval: float
    muted: int
    dead: int
    delivered_7d: int
    last_success_at: Time | None
    failing_since: Time | None
    failures: int
    reason: str
    next_attempt_at: Time | None
    events: list[str]
    owner: str = ""


class MuteRecord(Record, frozen=True, kw_only=True):
    """A mute: of one fine-tune, or of every fine-tune whose values ``match`` the patterns.

    It ends at ``until``, or when its fine-tune recovers. ``ended_by`` is the person who ended it,
    time or recovery; ``ended_at`` is null until the agent has seen the end. ``deliveries`` counts
    those that it holds.
    """

    active: bool
    match: dict[str, str]
    account: str | None
    fine_tune: str | None
    until: Time
    until_recovered: bool
    author: str
    reason: str
    created_at: Time
    ended_at: Time | None
    ended_by: str
    deliveries: int


class OutageRecord(Struct, frozen=True, kw_only=True):
    """A time in which an account could not be read; ``until`` is null while it lasts."""

    account: str
    since: Time
    until: Time | None
    reason: str


class HourRecord(Struct, frozen=True, kw_only=True):
    """The counts of an account at the last change within an hour."""

    account: str
    hour: Time
    counts: StatusCounts
