"""Event types, and the constructors and ids of all events."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Final, Literal, get_args

from msgspec import Struct, field

from exporter.core.model import (
    COMPLETED,
    CREATED,
    FAILED,
    TRAINING,
    AccountKey,
    FineTune,
    Outage,
    TrackedFineTune,
    Transition,
)
from exporter.core.retry import CircuitState
from exporter.core.text import one_line, rounded_duration, timestamp

EventType = Literal[
    "fine_tune.failed",
    "fine_tune.completed",
    "fine_tune.created",
    "fine_tune.removed",
    "fine_tune.stuck",
    "fine_tune.changed",
    "fine_tune.recovered",
    "agent.baseline",
    "agent.unknown_status",
    "agent.poll_failing",
    "agent.poll_recovered",
    "agent.receiver_unhealthy",
    "agent.receiver_recovered",
    "agent.test",
]

DIGEST: Final = "fine_tune.digest"
MessageType = EventType | Literal["fine_tune.digest"]

FineTuneSubscription = Literal["failed", "completed", "removed", "stuck", "created", "recovered"]
Subscription = Literal["failed", "completed", "removed", "stuck", "created", "recovered", "agent"]
"""A word of a receiver's ``events``."""

AppriseType = Literal["failure", "warning", "success", "info"]


class EventTraits(Struct, frozen=True):
    """Everything that depends on an event's type alone.

    ``title`` is a message's title; ``{account}`` and ``{subject}`` are replaced. ``counted`` is
    noun and predicate of a digest's count: "3 fine-tunes failed". ``alertname`` is the label of its
    alert; a trouble and its end have the same. A trouble lasts until an
    event that ``ends`` it, with the same account and subject; an event that ``resolves`` is sent
    as a resolved alert. An event that ``follows`` a type is for those receivers only that were
    notified of the last event of that type with the same account and subject.
    ``apprise_type`` selects how Apprise shows the message.
    """

    title: str
    counted: tuple[str, str]
    alertname: str
    subscription: Subscription | None = None
    is_trouble: bool = False
    ends: bool = False
    resolves: bool = False
    follows: EventType | None = None
    apprise_type: AppriseType = "info"


EVENT_TYPES: Final[Mapping[EventType, EventTraits]] = {
    "fine_tune.failed": EventTraits(
        "Fine-tune failed",
        ("fine-tune", "failed"),
        "CartesiaFineTuneFailed",
        "failed",
        is_trouble=True,
        ends=True,
        apprise_type="failure",
    ),
    "fine_tune.completed": EventTraits(
        "Fine-tune completed",
        ("fine-tune", "completed"),
        "CartesiaFineTuneCompleted",
        "completed",
        ends=True,
        apprise_type="success",
    ),
    "fine_tune.created": EventTraits(
        "Fine-tune created",
        ("fine-tune", "created"),
        "CartesiaFineTuneCreated",
        "created",
        ends=True,
    ),
    # A removal does not end an alert: absence is not recovery.
    "fine_tune.removed": EventTraits(
        "Fine-tune removed", ("fine-tune", "removed"), "CartesiaFineTuneRemoved", "removed"
    ),
    # It does not end an alert either: the fine-tune is still in its status.
    "fine_tune.stuck": EventTraits(
        "Fine-tune stuck",
        ("fine-tune", "stuck"),
        "CartesiaFineTuneStuck",
        "stuck",
        is_trouble=True,
        apprise_type="warning",
    ),
    "fine_tune.changed": EventTraits(
        "Fine-tune changed its status",
        ("fine-tune", "changed"),
        "CartesiaFineTuneChanged",
        ends=True,
    ),
    # It ends no alert: the event of the same transition does.
    "fine_tune.recovered": EventTraits(
        "Fine-tune recovered",
        ("fine-tune", "recovered"),
        "CartesiaFineTuneFailed",
        "recovered",
        resolves=True,
        follows="fine_tune.failed",
        apprise_type="success",
    ),
    "agent.baseline": EventTraits(
        "Watching account {account}",
        ("account", "newly watched"),
        "CartesiaBaseline",
        "agent",
    ),
    # No trouble: no event ends it. The rule on status="unknown" fires while there is one.
    "agent.unknown_status": EventTraits(
        "Unknown status in account {account}",
        ("account", "with an unknown status"),
        "CartesiaUnknownStatus",
        "agent",
        apprise_type="warning",
    ),
    "agent.poll_failing": EventTraits(
        "Account {account} cannot be read",
        ("account", "cannot be read"),
        "CartesiaPollFailing",
        "agent",
        is_trouble=True,
        apprise_type="failure",
    ),
    "agent.poll_recovered": EventTraits(
        "Account {account} can be read again",
        ("account", "can be read again"),
        "CartesiaPollFailing",
        "agent",
        ends=True,
        resolves=True,
        apprise_type="success",
    ),
    "agent.receiver_unhealthy": EventTraits(
        "Receiver {subject} rejects notifications",
        ("receiver", "rejecting notifications"),
        "CartesiaReceiverUnhealthy",
        "agent",
        is_trouble=True,
        apprise_type="warning",
    ),
    "agent.receiver_recovered": EventTraits(
        "Receiver {subject} accepts notifications again",
        ("receiver", "accepting notifications again"),
        "CartesiaReceiverUnhealthy",
        "agent",
        ends=True,
        resolves=True,
        apprise_type="success",
    ),
    "agent.test": EventTraits(
        "Test message from cartesia-exporter, nothing failed",
        ("test message", ""),
        "CartesiaExporterTest",
    ),
}

DEFAULT_SEVERITIES: Final[Mapping[str, str]] = {
    "failed": "warning",
    "stuck": "warning",
    "agent": "critical",
}
"""The severity of an alert, by the subscription of its event."""

NO_SEVERITY: Final = "info"
"""The severity of an event that is no trouble."""

SUBSCRIPTIONS: Final[Mapping[Subscription, frozenset[EventType]]] = {
    word: frozenset(
        event_type for event_type, traits in EVENT_TYPES.items() if traits.subscription == word
    )
    for word in get_args(Subscription)
}
"""The event types of each word of a receiver's ``events``."""

TROUBLES: Final = frozenset(t for t, traits in EVENT_TYPES.items() if traits.is_trouble)
LASTING: Final = frozenset(t for t in TROUBLES if t.startswith("agent."))
"""Troubles that are over when an event says so, and not before."""

ENDS: Final = frozenset(t for t, traits in EVENT_TYPES.items() if traits.ends)

_RECOVERED: Final = frozenset({CREATED, TRAINING, COMPLETED})

_LONGEST_ERROR: Final = 500


class Event(Struct, frozen=True):
    """A transition of a fine-tune, or a report of the agent about itself.

    ``id`` is the same whenever the same thing is detected again. ``account`` is empty when the
    event is about the agent as a whole. ``observed_at`` is Unix time in seconds, when the agent
    saw it: the API has no timestamps. ``facts`` are an agent event's own values, in JSON's types.
    """

    id: str
    type: EventType
    account: str
    observed_at: float
    fine_tune: FineTune | None = None
    previous_status: str | None = None
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def traits(self) -> EventTraits:
        """What depends on the type alone."""
        return EVENT_TYPES[self.type]

    @property
    def subject(self) -> str:
        """The id of the fine-tune, or the name of the receiver, that it is about; else empty."""
        if self.fine_tune is not None:
            return self.fine_tune.id
        return str(self.facts.get("receiver", ""))


def severity_of(event: Event, severities: Mapping[str, str]) -> str:
    """Return the severity of an event; ``severities`` are those of troubles by subscription."""
    if not event.traits.is_trouble:
        return NO_SEVERITY
    return severities.get(event.traits.subscription or "", NO_SEVERITY)


def stable_id(prefix: str, *parts: object) -> str:
    """Return an id that depends on ``parts`` alone: ``prefix_`` and 32 hexadecimal digits."""
    # The length in front keeps ("ab", "c") and ("a", "bc") apart.
    text = "".join(f"{len(str(part))}:{part}" for part in parts)
    return f"{prefix}_{sha256(text.encode()).hexdigest()[:32]}"


def transition_event(
    store_id: str, account: AccountKey, transition: Transition, now: float
) -> Event:
    """Return the event of a transition observed at ``now`` (Unix seconds).

    Its id depends on the store, the account, the fine-tune, the sequence and the status (or the
    number of the removal) only: a transition detected again after a crash is the same event.
    """
    fine_tune = transition.fine_tune
    # One part more, not one text: a status may be called anything, also "removed 1".
    removal = ("removed", transition.removal)
    target = removal if transition.removed else (fine_tune.status,)
    return Event(
        _fine_tune_event_id(store_id, account, fine_tune, transition.sequence, *target),
        transition_type(transition),
        account.name,
        now,
        fine_tune,
        transition.previous_status,
    )


def transition_type(transition: Transition) -> EventType:
    """Return the event type of a transition; no receiver can subscribe to ``changed``."""
    if transition.removed:
        return "fine_tune.removed"
    if transition.to_status == FAILED:
        return "fine_tune.failed"
    if transition.to_status == COMPLETED:
        return "fine_tune.completed"
    if transition.previous_status is None:
        return "fine_tune.created"
    return "fine_tune.changed"


def recovered_event(
    store_id: str, account: AccountKey, transition: Transition, now: float
) -> Event | None:
    """Return the event of a failed fine-tune that trains again or completed; else None.

    It is queued beside the event of the transition, observed at ``now`` (Unix seconds).
    """
    if transition.removed or transition.from_status != FAILED:
        return None
    if transition.to_status not in _RECOVERED:
        return None
    fine_tune, sequence = transition.fine_tune, transition.sequence
    return Event(
        # As many parts as a removal and a stuck event have, which begin differently.
        _fine_tune_event_id(store_id, account, fine_tune, sequence, "recovered", ""),
        "fine_tune.recovered",
        account.name,
        now,
        fine_tune,
        transition.previous_status,
    )


def stuck_event(store_id: str, account: AccountKey, tracked: TrackedFineTune, now: float) -> Event:
    """Return the event of a fine-tune that was found stuck at ``now`` (Unix seconds).

    Nothing changed: ``previous_status`` is its status. ``seconds`` is how long it has been in it.
    """
    fine_tune = tracked.fine_tune
    return Event(
        # As many parts as a removal has, which begins differently; a status has one less.
        _fine_tune_event_id(store_id, account, fine_tune, tracked.sequence, "stuck", ""),
        "fine_tune.stuck",
        account.name,
        now,
        fine_tune,
        fine_tune.status,
        {"since": timestamp(tracked.since), "seconds": round(now - tracked.since)},
    )


def baseline_event(
    store_id: str, account: AccountKey, facts: Mapping[str, object], number: int, now: float
) -> Event:
    """Return the summary of an account's baseline ``number``, taken at ``now`` (Unix seconds)."""
    # The first one has no number, so that its id stays what it was in every version.
    parts = () if number == 1 else (number,)
    event_id = _account_event_id(store_id, account, "baseline", *parts)
    return Event(event_id, "agent.baseline", account.name, now, facts=facts)


def unknown_status_event(
    store_id: str, account: AccountKey, status: str, facts: Mapping[str, object], now: float
) -> Event:
    """Return the event of a canonical status that is unknown, first seen at ``now``."""
    event_id = _account_event_id(store_id, account, "unknown_status", status)
    return Event(event_id, "agent.unknown_status", account.name, now, facts=facts)


def poll_failing_event(store_id: str, account: AccountKey, outage: Outage, now: float) -> Event:
    """Return the event of an outage that still lasts at ``now`` (Unix seconds)."""
    meaning = (
        "Until the account can be read again, failures are not noticed; they are reported then."
        if outage.has_baseline
        else "The account was never read completely: its watch has not begun."
    )
    error = one_line(outage.error, _LONGEST_ERROR).removesuffix(".")
    facts = {
        "reason": outage.reason,
        "since": timestamp(outage.since),
        "text": f"The last error ({outage.reason}): {error}. {meaning}",
    }
    event_id = _account_event_id(store_id, account, "poll_failing", outage.since)
    return Event(event_id, "agent.poll_failing", account.name, now, facts=facts)


def poll_recovered_event(
    store_id: str, account: AccountKey, outage: Outage, facts: Mapping[str, object], now: float
) -> Event:
    """Return the event of an outage that ends at ``now`` (Unix seconds)."""
    event_id = _account_event_id(store_id, account, "poll_recovered", outage.since)
    return Event(event_id, "agent.poll_recovered", account.name, now, facts=facts)


def circuit_event(
    store_id: str, receiver: str, before: CircuitState, after: CircuitState, now: float
) -> Event | None:
    """Return the event of a circuit that opened or closed at ``now`` (Unix seconds), or None."""
    if before.open == after.open:
        return None
    since = after.since if after.open else before.since
    event_id = stable_id("evt", store_id, "receiver", receiver, after.open, since)
    if after.open:
        facts: dict[str, object] = {
            "receiver": receiver,
            "reason": after.reason,
            "text": "Its notifications are kept and sent when it accepts them again; it is tried "
            "after 1, 2, 5, 10, 30 and then every 60 minutes. Check its URL and its credentials, "
            "then run `cartesia-exporter deliveries retry`.",
        }
        return Event(event_id, "agent.receiver_unhealthy", "", now, facts=facts)
    facts = {
        "receiver": receiver,
        "since": timestamp(since),
        "text": f"It rejected them for {rounded_duration(now - since)}. Those that were kept are "
        "sent now.",
    }
    return Event(event_id, "agent.receiver_recovered", "", now, facts=facts)


def test_event(account: str, now: float, unique: str) -> Event:
    """Return a test event; ``unique`` makes its id new: receivers drop a repeated id."""
    text = "If you can read this, notifications of failed fine-tunes will arrive here."
    return Event(stable_id("evt", "test", unique), "agent.test", account, now, facts={"text": text})


def _fine_tune_event_id(
    store_id: str, account: AccountKey, fine_tune: FineTune, *parts: object
) -> str:
    return stable_id("evt", store_id, account.name, account.base_url, fine_tune.id, *parts)


def _account_event_id(store_id: str, account: AccountKey, *parts: object) -> str:
    # At most two parts; an event of a fine-tune has at least three: the ids never collide.
    return stable_id("evt", store_id, account.name, account.base_url, *parts)
