"""Queued events and messages of receivers, and their states."""

from collections.abc import Sequence

from exporter.core.events import Event
from exporter.core.model import FineTune, OutboxMessage
from exporter.core.retry import Attempt, Outcome
from exporter.store.database import Database
from exporter.store.events import DELIVERED, record_events
from exporter.store.outbox import NewMessage, Outbox
from exporter.store.queries import DeliveryFilter, DeliverySummary, list_deliveries
from exporter.store.receiver_outbox import AttemptResult
from tests.store.sample_polls import NOW

CONFIGURED = frozenset({"ops", "chat"})


def failure(number: int, **fields: str) -> Event:
    fine_tune = FineTune(
        f"ft_{number}", **{"name": f"Voice {number}", "status": "failed", **fields}
    )
    at = NOW + number
    return Event(f"evt_{number}", "fine_tune.failed", "main", at, fine_tune, "training")


async def queue(database: Database, numbers: Sequence[int], *receivers: str) -> None:
    """Queue the failures of these numbers for the receivers."""
    await queue_events(database, [failure(number) for number in numbers], *receivers)


async def queue_events(database: Database, events: Sequence[Event], *receivers: str) -> None:
    def record() -> None:
        with database.write() as connection:
            record_events(connection, [(event, receivers) for event in events])

    await database.run(record)


async def create_messages(database: Database, receiver: str, *, digest: bool = False) -> None:
    """Create messages of all queued events of a receiver: one each, or one digest of all."""
    outbox = Outbox(database, receiver)
    queued = await outbox.unsent()
    if digest and queued:
        numbers = tuple(each.number for each in queued)
        message_id = "_".join(["msg", *map(str, numbers[:3])])
        new = [NewMessage(message_id, b'{"digest":true}', numbers)]
    else:
        new = [NewMessage(each.event.id, b'{"one":true}', (each.number,)) for each in queued]
    await outbox.create_messages(new, NOW)


async def next_message(database: Database, receiver: str) -> OutboxMessage:
    message = await Outbox(database, receiver).next()
    assert message is not None
    return message


def result_of(state: str, at: float = NOW, reason: str = "answered") -> AttemptResult:
    """Return the result of an attempt that led to this state; the awake clock began at NOW."""
    outcome = Outcome.DELIVERED if state == DELIVERED else Outcome.TRANSIENT
    return AttemptResult(state, at, at - NOW, Attempt(outcome, reason))


async def record_attempt(
    database: Database,
    message: OutboxMessage,
    state: str,
    reason: str = "answered",
    at: float = NOW + 100,
) -> list[float]:
    """Record an attempt with this result."""
    return await Outbox(database, message.receiver).record(message, result_of(state, at, reason))


async def attempt(database: Database, receiver: str, state: str, reason: str = "answered") -> str:
    """Attempt the next message of a receiver with this result; return the message's id."""
    message = await next_message(database, receiver)
    await Outbox(database, receiver).claim(message)
    await record_attempt(database, message, state, reason)
    return message.id


async def attempt_digest(database: Database, receiver: str, state: str, at: float = NOW) -> None:
    """Attempt one message of all that is queued for a receiver, with this result."""
    await create_messages(database, receiver, digest=True)
    await record_attempt(database, await next_message(database, receiver), state, at=at)


async def list_all(
    database: Database, *states: str, receiver: str | None = None
) -> list[DeliverySummary]:
    criteria = DeliveryFilter(CONFIGURED, receiver=receiver)
    if states:
        criteria = DeliveryFilter(CONFIGURED, (), receiver, states)
    return (await database.run(list_deliveries, database, criteria, 1000))[0]


async def listed_states(database: Database) -> dict[tuple[str, str], str]:
    """Return the states of all deliveries, as listed, by receiver and id."""
    return {(each.receiver, each.id): each.state for each in await list_all(database)}
