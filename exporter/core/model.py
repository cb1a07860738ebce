"""The nouns: a fine-tune, a complete reading of an account, what is known of it, and what happened.

Every type is frozen: equality is the diff, and a value can be read from any thread. Those of which
there are as many as fine-tunes are structs that the garbage collector has no eye on: they are a
third smaller, made in a fifteenth of the time, and a collection that looked at hundreds of
thousands of them would hold up every thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Literal

from msgspec import Struct

CREATED: Final = "created"
TRAINING: Final = "training"
COMPLETED: Final = "completed"
FAILED: Final = "failed"
UNKNOWN: Final = "unknown"

STATUSES: Final = (CREATED, TRAINING, COMPLETED, FAILED, UNKNOWN)
"""The values of the label ``status``: the four of the API's OpenAPI document, and the rest."""

TERMINAL: Final = frozenset({COMPLETED, FAILED})

NONE: Final = "none"
"""``from_status`` of a fine-tune first seen after the baseline."""


def status_label(status: str) -> str:
    """Return the label value for a status as the API sent it: itself if known, else ``unknown``."""
    return status if status in STATUSES else UNKNOWN


class FineTune(Struct, frozen=True, gc=False):
    """One fine-tune as the API lists it, text verbatim; what was missing or null is filled in."""

    id: str
    name: str = ""
    description: str = ""
    language: str = ""
    model_id: str = UNKNOWN
    dataset: str = ""
    status: str = UNKNOWN


@dataclass(frozen=True, slots=True)
class AccountKey:
    """What makes an account the same account: its configured name and its base URL, not its key."""

    name: str
    base_url: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One complete reading of one account. A reading that misses a page never becomes a Snapshot.

    ``read_at`` is Unix time in seconds, ``duration`` is in seconds, ``fine_tunes`` is keyed by id.
    ``clock_jump`` is how much more the wall clock moved than the monotonic one since the Snapshot
    before, in seconds; 0 when that is no more than a hiccup.
    """

    fine_tunes: Mapping[str, FineTune]
    read_at: float
    duration: float = 0.0
    pages: int = 1
    clock_jump: float = 0.0


class Known(Struct, frozen=True, gc=False):
    """What is known of one fine-tune after a poll; one row of the store.

    ``fine_tune`` is as last read, except that its status is the confirmed one. ``sequence`` counts
    its confirmed statuses from 1. ``since`` is when the confirmed status was first observed (Unix
    seconds), and ``since_seen`` says whether that beginning was seen or was there at the baseline.
    ``leaving`` says that the last poll saw it out of a terminal status, unconfirmed. ``absences``
    counts the polls in a row that missed it, up to 2, which means removed. ``removals`` counts how
    often it was removed, so that a second removal is an event of its own. ``stuck`` says that it
    was told to be in its status for too long; it is told once per stay.
    """

    fine_tune: FineTune
    sequence: int
    since: float
    since_seen: bool
    leaving: bool = False
    absences: int = 0
    removals: int = 0
    stuck: bool = False

    @property
    def removed(self) -> bool:
        """Whether two polls in a row missed it."""
        return self.absences >= 2  # noqa: PLR2004 - two is the confirmation, as for a status


class Transition(Struct, frozen=True, gc=False):
    """A confirmed change of one fine-tune: into ``fine_tune.status``, or out of the list.

    ``stayed`` is for how many seconds it was in its previous status, as observed; None when the
    beginning or the end of that was not seen.
    """

    fine_tune: FineTune
    sequence: int
    previous_status: str | None
    removal: int = 0
    stayed: float | None = None

    @property
    def removed(self) -> bool:
        """Whether the fine-tune left the list."""
        return self.removal > 0


EventType = Literal[
    "fine_tune.failed",
    "fine_tune.completed",
    "fine_tune.created",
    "fine_tune.removed",
    "fine_tune.stuck",
    "fine_tune.changed",
    "agent.baseline",
    "agent.poll_failing",
    "agent.poll_recovered",
    "agent.receiver_unhealthy",
    "agent.receiver_recovered",
    "agent.test",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened once and may be told: a transition, or a word of the agent's own.

    ``id`` is the same whenever the same thing is detected again. ``account`` is empty when it is
    about the agent as a whole. ``observed_at`` is Unix time in seconds, when the agent saw it: the
    API has no timestamps. ``facts`` are an agent event's own values, in JSON's types.
    """

    id: str
    type: EventType
    account: str
    observed_at: float
    fine_tune: FineTune | None = None
    previous_status: str | None = None
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """The id of the fine-tune, or the name of the receiver, that it is about; else empty."""
        if self.fine_tune is not None:
            return self.fine_tune.id
        return str(self.facts.get("receiver", ""))


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request owed to one receiver: its events and bytes, frozen before the first attempt.

    ``id`` is what a receiver can tell a repeat by. ``attempts`` counts the ones before this, and
    ``repeat`` says that one of them may have arrived: its answer was lost.
    """

    id: str
    receiver: str
    body: bytes
    events: int
    created_at: float
    attempts: int = 0
    minimal: bool = False
    repeat: bool = False


def stable_id(prefix: str, *parts: object) -> str:
    """Return an id that depends on ``parts`` alone: ``prefix_`` and 32 hexadecimal digits."""
    # The length in front keeps ("ab", "c") and ("a", "bc") apart.
    text = "".join(f"{len(str(part))}:{part}" for part in parts)
    return f"{prefix}_{sha256(text.encode()).hexdigest()[:32]}"
