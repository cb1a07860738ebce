"""The engines of the store that tests run on."""

import pytest

SQLITE = "sqlite"
POSTGRES = "postgres"
ENGINES = (SQLITE, POSTGRES)

on_sqlite = pytest.mark.parametrize("new_state", [SQLITE], indirect=True)
"""A test of what only a state file has."""

on_postgres = pytest.mark.parametrize("new_state", [POSTGRES], indirect=True)
"""A test of what only PostgreSQL has."""
