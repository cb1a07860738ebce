"""Clock that ages of deliveries, alerts and outages are measured on."""

from collections.abc import Callable
from functools import cache
from typing import Final

from sqlalchemy import Connection, Select, Update, bindparam, select, update

from exporter.store.engines import dialect_insert
from exporter.store.schema import awake_clock

_NAME: Final = "agent"
"""Row of the clock: the kind of owner that advances it."""


class AwakeClock:
    """Counter of the seconds that the agent was running and its machine was not suspended.

    Setting the wall clock does not change it. It is stored, and continues after a restart: a
    process that is killed loses what passed since its last write, at most a minute. The counter
    never goes backwards, and no other stored time of it is ahead of it.

    Only the process that owns the state starts and advances it; others use ``read_awake``. With
    several replicas, one of them advances it with the renewals of its lease, and all of them
    ``follow`` it.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._offset: float | None = None
        self._is_followed = False

    @property
    def started(self) -> bool:
        """Whether this process knows the clock."""
        return self._offset is not None

    @property
    def advances(self) -> bool:
        """Whether this process advances the clock with each write."""
        return self._offset is not None and not self._is_followed

    def start(self, connection: Connection) -> None:
        """Create the stored counter if there is none, and continue from it."""
        new = dialect_insert(connection, awake_clock).values(name=_NAME, seconds=0.0)
        connection.execute(new.on_conflict_do_nothing())
        self._offset = read_awake(connection) - self._monotonic()

    def follow(self, seconds: float) -> None:
        """Continue from ``seconds``, as just read; the clock is not advanced by writes any more."""
        self._offset, self._is_followed = seconds - self._monotonic(), True

    def now(self) -> float:
        """Return the counter in seconds; any thread may call it once the clock is started."""
        assert self._offset is not None, "only the owner of the state has a running clock"
        return self._monotonic() + self._offset

    def advance(self, connection: Connection) -> None:
        """Store the counter, if this process advances it, within the caller's transaction."""
        if self.advances:
            connection.execute(_advance_statement(), {"now": self.now()})


def read_awake(connection: Connection) -> float:
    """Return the stored counter in seconds.

    In a transaction of the owner that writes it is up to date, in others up to a minute old. With
    several replicas it is always up to date.
    """
    if connection.dialect.name == "postgresql":
        from exporter.store.engines.postgres_ownership import AWAKE_SECONDS  # noqa: PLC0415

        return float(connection.execute(AWAKE_SECONDS).scalar_one())
    return connection.execute(_stored_query()).scalar_one()


@cache
def _advance_statement() -> Update:
    is_clock = awake_clock.c.name == _NAME
    return update(awake_clock).where(is_clock).values(seconds=bindparam("now"))


@cache
def _stored_query() -> Select[float]:
    return select(awake_clock.c.seconds).where(awake_clock.c.name == _NAME)
