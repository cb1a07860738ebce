"""An open database, and the check that PostgreSQL has the same statements."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import Engine, event

from exporter.store.database import Database
from tests.store.portable_sql import check_statement


@pytest.fixture
async def database(tmp_path) -> AsyncIterator[Database]:
    """The database at `tmp_path / "state.db"`."""
    async with Database(tmp_path / "state.db") as database:
        yield database


@pytest.fixture(autouse=True, scope="session")
def portable_statements() -> Iterator[None]:
    """Fail a test whose statements PostgreSQL would refuse."""
    event.listen(Engine, "before_execute", check_statement)
    yield
    event.remove(Engine, "before_execute", check_statement)
