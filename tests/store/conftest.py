"""An open database, and the check that PostgreSQL has the same statements."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import Engine, event

from exporter.store.database import Database
from tests.fakes.clock import FakeClock
from tests.store.portable_sql import check_statement
from tests.store.sample_polls import NOW


@pytest.fixture
def clock() -> FakeClock:
    """The clock of `database`: its awake clock is at 0 while this one is at NOW."""
    return FakeClock(NOW)


@pytest.fixture
async def database(tmp_path, clock) -> AsyncIterator[Database]:
    """The database at `tmp_path / "state.db"`."""
    async with Database(tmp_path / "state.db", monotonic=clock.clock.monotonic) as database:
        yield database


@pytest.fixture(autouse=True, scope="session")
def portable_statements() -> Iterator[None]:
    """Fail a test whose statements PostgreSQL would refuse."""
    event.listen(Engine, "before_execute", check_statement)
    yield
    event.remove(Engine, "before_execute", check_statement)
