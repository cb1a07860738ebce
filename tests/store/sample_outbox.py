"""A store in which receivers are owed events and were sent messages, as a test wants it."""

from collections.abc import Sequence

from exporter.core.events import Event
from exporter.core.model import FineTune
from exporter.core.retry import Attempt, Outcome
from exporter.store.database import Database
from exporter.store.events import DELIVERED, record_events
from exporter.store.outbox import AttemptResult, NewMessage, Outbox
from exporter.store.queries import Entry, Selection, entries
from tests.store.sample_polls import NOW

CONFIGURED = frozenset({"ops", "chat"})


def failure(number: int, **fields: str) -> Event:
    fine_tune = FineTune(
        f"ft_{number}", **{"name": f"Voice {number}", "status": "failed", **fields}
    )
    at = NOW + number
    return Event(f"evt_{number}", "fine_tune.failed", "main", at, fine_tune, "training")


async def owe(database: Database, numbers: Sequence[int], *receivers: str) -> None:
    """Make receivers owed the failures of these numbers."""
    await owe_events(database, [failure(number) for number in numbers], *receivers)


async def owe_events(database: Database, events: Sequence[Event], *receivers: str) -> None:
    def record() -> None:
        with database.write() as connection:
            record_events(connection, [(event, receivers) for event in events])

    await database.run(record)


async def freeze(database: Database, receiver: str, *, digest: bool = False) -> None:
    """Make messages of all that a receiver is owed: one each, or one digest of all."""
    outbox = Outbox(database, receiver)
    owed = await outbox.unsent()
    if digest and owed:
        numbers = tuple(each.number for each in owed)
        identifier = "_".join(["msg", *map(str, numbers)])
        new = [NewMessage(identifier, b'{"digest":true}', numbers)]
    else:
        new = [NewMessage(each.event.id, b'{"one":true}', (each.number,)) for each in owed]
    await outbox.create_messages(new, NOW)


def result_of(state: str, at: float = NOW, reason: str = "answered") -> AttemptResult:
    """Return the result of an attempt that led to this state of a message."""
    outcome = Outcome.DELIVERED if state == DELIVERED else Outcome.TRANSIENT
    return AttemptResult(state, at, Attempt(outcome, reason))


async def attempt(database: Database, receiver: str, state: str, reason: str = "answered") -> str:
    """Try the next message of a receiver with this end; return its id."""
    outbox = Outbox(database, receiver)
    delivery = await outbox.next()
    assert delivery is not None
    await outbox.claim(delivery)
    await outbox.record(delivery, result_of(state, NOW + 100, reason))
    return delivery.id


async def listed(database: Database, *states: str, receiver: str | None = None) -> list[Entry]:
    selection = Selection(CONFIGURED, receiver=receiver)
    if states:
        selection = Selection(CONFIGURED, (), receiver, states)
    return (await database.run(entries, database, selection, 1000))[0]


async def standings(database: Database) -> dict[tuple[str, str], str]:
    """Return the state of every entry by receiver and id, as it is shown."""
    return {(entry.receiver, entry.id): entry.state for entry in await listed(database)}
