"""What an outsider knows of the promise: which failures polls saw, and what receivers really took.

Nothing here asks the code under test what it thinks; the store is only asked what it shows.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from exporter.core.message import Message
from exporter.core.model import FineTune, OutboxMessage
from exporter.core.retry import Attempt, Outcome


class Failures:
    """Counts the entries into `failed` of each fine-tune, reading by reading."""

    def __init__(self) -> None:
        self.entries: Counter[str] = Counter()
        self._out: dict[str, int] = {}  # of those that failed: readings in a row out of it
        self._began = False

    def read(self, fine_tunes: Mapping[str, FineTune]) -> None:
        """Take note of a reading that counts: the first one is the baseline."""
        for fine_tune in fine_tunes.values():
            if fine_tune.status == "failed":
                self.entries[fine_tune.id] += self._began and fine_tune.id not in self._out
                self._out[fine_tune.id] = 0
            elif fine_tune.id in self._out:
                self._out[fine_tune.id] += 1
                if self._out[fine_tune.id] == 2:
                    del self._out[fine_tune.id]
        for missed in self._out.keys() - fine_tunes.keys():
            self._out[missed] = 0
        self._began = True


_AGAIN = b" again"


class Crash(BaseException):
    """The end of the process, as far as the code under test can tell."""


class Fault(Enum):
    """What happens to one request: whether the receiver took it, and what the sender learns."""

    BUSY = (False, Attempt(Outcome.TRANSIENT, "answered 503"))
    THROTTLED = (False, Attempt(Outcome.THROTTLED, "answered 429", 5.0))
    GONE = (False, Attempt(Outcome.ENDPOINT, "answered 404"))
    REFUSED = (False, Attempt(Outcome.PAYLOAD, "answered 400"))
    LOST = (False, Attempt(Outcome.TRANSIENT, "timeout", ambiguous=True))
    TAKEN_AND_LOST = (True, Attempt(Outcome.TRANSIENT, "timeout", ambiguous=True))
    KILLED = (False, None)
    TAKEN_AND_KILLED = (True, None)


@dataclass
class _Message:
    """What a receiver knows of one id."""

    body: bytes
    minimal: bool
    events: tuple[str, ...]
    taken: int = 0
    excuses: int = 0


@dataclass
class Witness:
    """A receiver that fails as it is told to, and complains of what must never reach it.

    ``carried`` are the ids of the events of all messages,
    ``settled`` are the ids of the messages that the store calls taken; ``claimed`` those whose
    attempt began and came to no result that is stored, ``unclaimed`` those whose claim could not be
    stored, and ``doubtful`` those of which nobody but the receiver knows whether it took them.
    """

    name: str
    most_events: int
    spacing: float = 0.0
    seconds: float = 15.0
    faults: deque[Fault] = field(default_factory=deque)
    messages: dict[str, _Message] = field(default_factory=dict)
    carried: set[str] = field(default_factory=set)
    requests: int = 0
    settled: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    claimed: set[str] = field(default_factory=set)
    unclaimed: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        ids = " ".join(event.id for event in message.events)
        return f"{'minimal' if minimal else 'full'} {ids}".encode()

    def repeated(self, body: bytes) -> bytes:
        return body + _AGAIN

    async def send(self, delivery: OutboxMessage, now: float) -> Attempt:
        self.requests += 1
        message = self._checked(delivery)
        taken, attempt = True, Attempt(Outcome.DELIVERED, "answered 200")
        if self.faults:
            taken, attempt = self.faults.popleft().value
        message.taken += taken
        if attempt is None:
            raise Crash
        if attempt.ambiguous:
            message.excuses += 1
            self.doubtful.add(delivery.id)
        if attempt.outcome is Outcome.PAYLOAD:
            self.refused.update(message.events)
        return attempt

    def sender_is_gone(self) -> None:
        """Take note of the end of the process: what it knew and had not stored is lost."""
        self.doubtful |= self.claimed
        for message_id, message in self.messages.items():
            message.excuses += message_id not in self.settled

    def _checked(self, delivery: OutboxMessage) -> _Message:
        body, again = delivery.body.removesuffix(_AGAIN), delivery.body.endswith(_AGAIN)
        message = self.messages.get(delivery.id)
        if message is None:
            events = tuple(body.decode().split()[1:])
            assert not self.carried.intersection(events), "an event is in two messages"
            self.carried.update(events)
            message = self.messages[delivery.id] = _Message(body, delivery.minimal, events)
        elif delivery.minimal and not message.minimal:
            assert body == message.body.replace(b"full", b"minimal"), "it carries other events now"
            message.body, message.minimal = body, True
        assert (body, delivery.minimal) == (message.body, message.minimal), "not what was frozen"
        assert delivery.id not in self.settled, "sent again though it is stored as taken"
        assert message.taken <= message.excuses, "sent again though its answer came"
        assert again or not message.taken or delivery.id in self.unclaimed, "not called a repeat"
        assert not again or delivery.id in self.doubtful, "called a repeat and cannot be one"
        return message

    def taken(self) -> set[str]:
        """The ids of the messages that arrived."""
        return {message_id for message_id, each in self.messages.items() if each.taken}

    def arrived(self) -> set[str]:
        """The ids of the events that it has taken."""
        return {event for each in self.messages.values() if each.taken for event in each.events}
