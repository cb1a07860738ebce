"""An open database on each engine, and the check that PostgreSQL has the same statements."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from exporter.store.database import Database
from exporter.store.location import StoreLocation
from tests.engines import SQLITE
from tests.fakes.clock import FakeClock
from tests.store.portable_sql import check_statement
from tests.store.sample_polls import NOW


@pytest.fixture
def clock() -> FakeClock:
    """The clock of `database`: its awake clock is at 0 while this one is at NOW."""
    return FakeClock(NOW)


@pytest.fixture
def location(new_state: Callable[[], StoreLocation]) -> StoreLocation:
    """A new state, in a file or in PostgreSQL."""
    return new_state()


@pytest.fixture
async def database(location, clock) -> AsyncIterator[Database]:
    """The database at `location`."""
    async with Database(location, monotonic=clock.clock.monotonic) as database:
        yield database


@pytest.fixture(autouse=True, scope="session")
def portable_statements() -> Iterator[None]:
    """Fail a test whose statements PostgreSQL would refuse."""

    def check(connection: Connection, *arguments: Any) -> None:
        if connection.dialect.name == SQLITE:
            check_statement(connection, *arguments)

    event.listen(Engine, "before_execute", check)
    yield
    event.remove(Engine, "before_execute", check)
