"""State of one receiver: its circuit, its backlog, and the age of its deliveries."""

from functools import cache
from math import inf
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Select,
    and_,
    bindparam,
    case,
    func,
    literal,
    select,
    update,
)

from exporter.core.account import RoutedEvents
from exporter.core.ownership import Claim
from exporter.core.retry import CIRCUIT_CLOSED, Attempt, CircuitState
from exporter.store.database import Database, in_store_thread
from exporter.store.engines import dialect_insert, upsert
from exporter.store.errors import StoreFencedError
from exporter.store.events import DEAD, MUTED, PENDING, record_events
from exporter.store.schema import CARRIES, deliveries, messages, receivers


class ReceiverState(Struct, frozen=True):
    """What is stored of a receiver: its circuit, and when it may be tried again (Unix seconds).

    ``retry_requests`` counts the requests to try it at once. ``grouped_awake`` is when its group
    interval began, on the awake clock; None if none has begun.
    """

    circuit: CircuitState = CIRCUIT_CLOSED
    resume_at: float = 0.0
    retry_requests: int = 0
    grouped_awake: float | None = None

    def held_until(self, group_interval: float) -> float:
        """Return until when the group interval holds events back, on the awake clock."""
        return -inf if self.grouped_awake is None else self.grouped_awake + group_interval


class AttemptResult(Struct, frozen=True):
    """Result of an attempt: to a message, or to the events of a request to an Alertmanager.

    ``state`` is their state from ``at`` (Unix seconds), which is ``awake`` on the awake clock. The
    request took ``seconds``. ``circuit`` is the receiver's, which may be tried again at
    ``resume_at``. ``events`` follow from the attempt and are queued with it.
    """

    state: str
    at: float
    awake: float
    attempt: Attempt
    circuit: CircuitState = CIRCUIT_CLOSED
    resume_at: float = 0.0
    events: RoutedEvents = ()
    seconds: float = 0.0


def store_result(connection: Connection, receiver: str, result: AttemptResult) -> None:
    """Store the circuit and the events of a result, within the caller's transaction."""
    row = {"name": receiver, "resume_at": result.resume_at, **asdict(result.circuit)}
    upsert(connection, receivers, [row])
    record_events(connection, result.events)


def request_retry(connection: Connection, receiver: str) -> None:
    """Request that a receiver is tried at once, within the caller's transaction.

    Its group interval ends.
    """
    statement = dialect_insert(connection, receivers).values(name=receiver, retry_requests=1)
    more = {
        "retry_requests": receivers.c.retry_requests + 1,
        "grouped_at": None,
        "grouped_awake": None,
    }
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=more))


def lock_receivers(connection: Connection) -> None:
    """Wait for results that are being stored, and let later ones wait, in the caller's transaction.

    First in a transaction that changes deliveries of any receiver: with the locks in another order,
    two transactions could wait for each other. In SQLite nothing else writes at the same time.
    """
    connection.execute(select(receivers.c.name).order_by(receivers.c.name).with_for_update())


class Backlog(Struct, frozen=True):
    """Numbers of deliveries of a receiver by state.

    ``held`` counts the pending ones that the group interval holds back. ``oldest_age`` is for how
    many awake seconds the oldest of the others may have been sent; None without one.
    """

    pending: int = 0
    dead: int = 0
    oldest_age: float | None = None
    held: int = 0
    muted: int = 0


class ReceiverOutbox:
    """The deliveries of one receiver; ``claim`` is the one under which a deliverer writes.

    Every method raises StoreError.
    """

    def __init__(self, database: Database, receiver: str, claim: Claim | None = None) -> None:
        self._database = database
        self.receiver = receiver
        self._claim = claim

    def awake_now(self) -> float:
        """Return the time of the awake clock in seconds."""
        return self._database.awake.now()

    @property
    def is_shared(self) -> bool:
        """Whether replicas use the database, too."""
        return self._database.engine.is_shared

    def check_owner(self) -> None:
        """Check without the database that a message may be sent. Raises StoreFencedError."""
        if self._claim is not None and not self._database.trusts(self._claim):
            raise StoreFencedError(self._claim)

    @in_store_thread
    def receiver_state(self) -> ReceiverState:
        """Return the stored state of the receiver; the default if there is none."""
        with self._database.read() as connection:
            row = connection.execute(_state_query(), {"receiver": self.receiver}).first()
        if row is None:
            return ReceiverState()
        circuit = CircuitState(row.failures, row.since, row.open, row.reason, row.since_awake)
        return ReceiverState(circuit, row.resume_at, row.retry_requests, row.grouped_awake)

    @in_store_thread
    def expire(self, max_age: float, now: float, held_until: float = -inf) -> int:
        """Mark deliveries that could be sent for more than ``max_age`` awake seconds as dead.

        Returns their number. ``now`` is Unix seconds. Events that no message carries were held back
        until ``held_until`` on the awake clock.
        """
        awake = self.awake_now()
        old = and_(self._mine(PENDING), due_awake(held_until) < awake - max_age)
        with self._database.read() as connection:
            if not connection.execute(select(func.count()).where(old)).scalar_one():
                return 0
        pending = select(deliveries.c.event).where(CARRIES, deliveries.c.state == PENDING)
        with self._database.write(self._claim) as connection:
            expired = connection.execute(
                update(deliveries)
                .where(old)
                .values(state=DEAD, settled_at=now, settled_awake=awake)
            )
            connection.execute(
                update(messages)
                .where(self._messages(), messages.c.state == PENDING, ~pending.exists())
                .values(state=DEAD, last_result="expired: " + messages.c.last_result)
            )
            return expired.rowcount

    @in_store_thread
    def backlog(self, group_interval: float = 0.0) -> Backlog:
        """Return the numbers of deliveries, and for how long the oldest may have been sent."""
        awake = self.awake_now()
        values = {"receiver": self.receiver, "interval": group_interval, "now": awake}
        with self._database.read() as connection:
            row = connection.execute(_backlog_query(), values).one()
        age = None if row.oldest is None else awake - row.oldest
        return Backlog(row.pending, row.dead, age, row.held, row.muted)

    def _mine(self, state: str) -> ColumnElement[bool]:
        return and_(deliveries.c.receiver == self.receiver, deliveries.c.state == state)

    def _messages(self) -> ColumnElement[bool]:
        return messages.c.receiver == self.receiver


# To build a statement takes longer than to run it: those that each turn runs are built once.
@cache
def _state_query() -> Select[Any]:
    return select(receivers).where(receivers.c.name == bindparam("receiver"))


@cache
def _backlog_query() -> Select[int, int, int, int, float]:
    mine = receivers.c.name == bindparam("receiver")
    began = select(receivers.c.grouped_awake).where(mine).scalar_subquery()
    due = _due_awake(began + bindparam("interval", type_=Float))
    now = bindparam("now", type_=Float)
    state = deliveries.c.state
    return select(
        func.count().filter(state == PENDING).label("pending"),
        func.count().filter(state == DEAD).label("dead"),
        func.count().filter(state == PENDING, due > now).label("held"),
        func.count().filter(state == MUTED).label("muted"),
        func.min(due).filter(state == PENDING, due <= now).label("oldest"),
    ).where(deliveries.c.receiver == bindparam("receiver"), state.in_([PENDING, DEAD, MUTED]))


def due_awake(held_until: float) -> ColumnElement[float]:
    """Return from when a pending delivery may be sent, on the awake clock.

    Those of fine-tunes that no message carries are held back until ``held_until``.
    """
    return deliveries.c.due_awake if held_until == -inf else _due_awake(literal(held_until))


def _due_awake(held_until: ColumnElement[float]) -> ColumnElement[float]:
    # Nothing is held back until NULL.
    is_held = and_(
        deliveries.c.groupable,
        deliveries.c.message.is_(None),
        deliveries.c.due_awake < held_until,
    )
    return case((is_held, held_until), else_=deliveries.c.due_awake)
