"""Independent record of what polls saw and what receivers accepted, to check deliveries against.

It never asks the code under test for its opinion; of the store it uses only what users see.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from exporter.core.message import Message
from exporter.core.model import FineTune, OutboxMessage
from exporter.core.retry import Attempt, Outcome


class FailureOracle:
    """Counts the entries into `failed` of each fine-tune, snapshot by snapshot.

    ``recoveries`` counts the ways out of a counted failure to a status that is a recovery.
    """

    def __init__(self) -> None:
        self.entries: Counter[str] = Counter()
        self.recoveries: Counter[str] = Counter()
        self._polls_since: dict[str, int] = {}  # of those that failed: polls in a row in no failure
        self._has_baseline = False

    def observe(self, fine_tunes: Mapping[str, FineTune]) -> None:
        """Count the failures of a snapshot; the first one is the baseline."""
        for fine_tune in fine_tunes.values():
            if fine_tune.status == "failed":
                is_new = fine_tune.id not in self._polls_since
                self.entries[fine_tune.id] += self._has_baseline and is_new
                self._polls_since[fine_tune.id] = 0
            elif fine_tune.id in self._polls_since:
                self._polls_since[fine_tune.id] += 1
                if self._polls_since[fine_tune.id] == 2:
                    del self._polls_since[fine_tune.id]
                    is_known = fine_tune.status in {"created", "training", "completed"}
                    self.recoveries[fine_tune.id] += is_known and self.entries[fine_tune.id] > 0
        for missing in self._polls_since.keys() - fine_tunes.keys():
            self._polls_since[missing] = 0
        self._has_baseline = True


_REPEATED = b" again"


class Crash(BaseException):
    """The end of the process, as far as the code under test can tell."""


class Fault(Enum):
    """What happens to one request: whether it is accepted, and what the sender learns."""

    BUSY = (False, Attempt(Outcome.TRANSIENT, "answered 503"))
    THROTTLED = (False, Attempt(Outcome.THROTTLED, "answered 429", 5.0))
    GONE = (False, Attempt(Outcome.ENDPOINT, "answered 404"))
    REFUSED = (False, Attempt(Outcome.PAYLOAD, "answered 400"))
    LOST = (False, Attempt(Outcome.TRANSIENT, "timeout", ambiguous=True))
    ACCEPTED_AND_LOST = (True, Attempt(Outcome.TRANSIENT, "timeout", ambiguous=True))
    KILLED = (False, None)
    ACCEPTED_AND_KILLED = (True, None)


@dataclass
class _Message:
    """What a receiver knows of one id.

    It may be accepted once more than there are ``repeat_reasons``. ``unclaimed`` counts accepted
    requests of which the store has neither claim nor result. They are ``forgotten`` when the
    process ends: then nothing says that the message may have arrived.
    """

    body: bytes
    minimal: bool
    events: tuple[str, ...]
    accepted: int = 0
    repeat_reasons: int = 0
    unclaimed: int = 0
    forgotten: int = 0
    refused_in_both_forms: bool = False


@dataclass
class DeliveryOracle:
    """A receiver that fails as ``faults`` say, and asserts that each message may be sent to it.

    An event whose id ends in a character of ``poison`` is refused in every message. ``carried`` has
    the message of each event, ``refused`` the events of all refused messages, ``refused_alone``
    those that were refused in both forms without another. ``repeats`` counts the requests with a
    message that it had accepted before. The other sets are ids of messages:
    ``settled`` are stored as delivered, ``claimed`` have a stored claim without a stored result,
    and ``ambiguous`` an attempt of which only the receiver knows the result.
    """

    name: str
    most_events: int
    spacing: float = 0.0
    seconds: float = 15.0
    faults: deque[Fault] = field(default_factory=deque)
    messages: dict[str, _Message] = field(default_factory=dict)
    requests: int = 0
    repeats: int = 0
    poison: str = ""
    carried: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    refused_alone: set[str] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)
    claimed: set[str] = field(default_factory=set)
    ambiguous: set[str] = field(default_factory=set)

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        ids = " ".join(event.id for event in message.events)
        return f"{'minimal' if minimal else 'full'} {ids}".encode()

    def repeated(self, body: bytes) -> bytes:
        return body + _REPEATED

    async def send(self, message: OutboxMessage, now: float) -> Attempt:
        self.requests += 1
        known = self._check(message)
        self.repeats += known.accepted > 0
        accepted, attempt = True, Attempt(Outcome.DELIVERED, "answered 200")
        if self.faults:
            accepted, attempt = self.faults.popleft().value
        elif any(event[-1] in self.poison for event in known.events):
            accepted, attempt = Fault.REFUSED.value
        known.accepted += accepted
        known.unclaimed += accepted and message.id not in self.claimed
        if attempt is None:
            raise Crash
        if attempt.ambiguous:
            known.repeat_reasons += 1
            self.ambiguous.add(message.id)
        if attempt.outcome is Outcome.PAYLOAD:
            self.refused.update(known.events)
            known.refused_in_both_forms = known.minimal
            if known.minimal and len(known.events) == 1:
                self.refused_alone.update(known.events)
        return attempt

    def record_stored_result(self, message_id: str) -> None:
        """Record that the result of a message's last attempt was stored."""
        self.claimed.discard(message_id)
        self.messages[message_id].unclaimed = 0

    def record_crash(self) -> None:
        """Record the end of the process: results that it had not stored are lost."""
        self.ambiguous |= self.claimed
        for message_id, message in self.messages.items():
            message.repeat_reasons += message_id not in self.settled
            if message_id not in self.claimed:
                message.forgotten += message.unclaimed
            message.unclaimed = 0

    def _check(self, sent: OutboxMessage) -> _Message:
        body, is_repeat = sent.body.removesuffix(_REPEATED), sent.body.endswith(_REPEATED)
        known = self.messages.get(sent.id)
        if known is None:
            events = tuple(body.decode().split()[1:])
            known = self.messages[sent.id] = _Message(body, sent.minimal, events)
            self._check_part(sent.id, known)
            self.carried |= dict.fromkeys(events, sent.id)
        elif sent.minimal and not known.minimal:
            assert body == known.body.replace(b"full", b"minimal"), "its events changed"
            known.body, known.minimal = body, True
        assert (body, sent.minimal) == (known.body, known.minimal), "its bytes changed"
        assert sent.id not in self.settled, "sent again though stored as delivered"
        assert known.accepted <= known.repeat_reasons, "sent again though its answer was received"
        assert is_repeat or known.accepted == known.forgotten, "a repeat that is not marked as one"
        assert not is_repeat or sent.id in self.ambiguous, "marked as a repeat but cannot be one"
        return known

    def _check_part(self, message_id: str, part: _Message) -> None:
        """Assert that events which were in another message before are a part of it."""
        before = {self.carried[event] for event in part.events if event in self.carried}
        if not before:
            return
        [whole_id] = before
        whole = self.messages[whole_id]
        assert whole.refused_in_both_forms, "an event is in two messages"
        assert {*part.events} < {*whole.events}, "an event is in two messages"
        assert part.minimal == (len(part.events) > 1)
        part.accepted, part.repeat_reasons = whole.accepted, whole.repeat_reasons
        part.forgotten = whole.forgotten
        if whole_id in self.ambiguous:
            self.ambiguous.add(message_id)

    def accepted_messages(self) -> set[str]:
        """Return the ids of the accepted messages."""
        return {message_id for message_id, each in self.messages.items() if each.accepted}

    def accepted_events(self) -> set[str]:
        """Return the ids of the accepted events."""
        return {event for each in self.messages.values() if each.accepted for event in each.events}
