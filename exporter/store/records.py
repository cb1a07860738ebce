"""What the outbox is asked for, and what it is given to store."""

from dataclasses import dataclass

from exporter.core.circuit import WELL, Health
from exporter.core.model import Event
from exporter.store.events import Told


@dataclass(frozen=True, slots=True)
class Backlog:
    """What one receiver has not taken, in events: still owed, and given up.

    ``oldest`` is since when the oldest one is owed, in Unix seconds; None when none is.
    """

    pending: int = 0
    dead: int = 0
    oldest: float | None = None


@dataclass(frozen=True, slots=True)
class Owed:
    """An event that no message carries yet, owed to a receiver ``since`` (Unix seconds)."""

    number: int
    event: Event
    since: float


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message about to be tried for the first time: its bytes and which events it carries."""

    id: str
    body: bytes
    events: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What an attempt led to: the state of the message, when (Unix seconds), why, in words.

    ``health`` is the receiver's after it, ``resume_at`` when that is to be tried again, and
    ``told`` are the events that follow, with the receivers to be told.
    """

    state: str
    at: float
    reason: str
    ambiguous: bool = False
    health: Health = WELL
    resume_at: float = 0.0
    told: Told = ()
