"""Creates the tables of a new state and upgrades those of an older one.

A new state is created from the metadata and marked with the newest revision. Only an upgrade
imports Alembic, which takes 0.2 s. A change of the tables is a change of schema.py and a new module
in versions/; until the first release it is an edit of the initial revision.
"""

import secrets
from pathlib import Path
from typing import Final

from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    insert,
    inspect,
    select,
)

from exporter.store.engines import StoreEngine
from exporter.store.errors import StoreRefusedError
from exporter.store.schema import meta, metadata

REVISIONS: Final = ("0001",)
"""Identifiers of all revisions, oldest first."""

_SCRIPTS: Final = Path(__file__).parent

# As Alembic creates it.
_alembic_version: Final = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def migrate(connection: Connection, engine: StoreEngine) -> None:
    """Create or upgrade the tables, within the caller's transaction.

    Raises StoreRefusedError as read_revision does.
    """
    revision = read_revision(connection, engine)
    if revision is None:
        metadata.create_all(connection, checkfirst=False)
        _alembic_version.create(connection)
        connection.execute(insert(_alembic_version), [{"version_num": REVISIONS[-1]}])
        store_id = {"name": "store_id", "value": secrets.token_hex(16)}
        connection.execute(insert(meta), [store_id])
    elif revision != REVISIONS[-1]:
        upgrade(connection)


def upgrade(connection: Connection) -> None:
    """Run the revisions that are missing, within the caller's transaction."""
    from alembic import command  # noqa: PLC0415 - a start without an upgrade does not need it
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def read_revision(connection: Connection, engine: StoreEngine) -> str | None:
    """Return the revision of the tables; None for an empty database.

    Raises StoreRefusedError for a database of another program, of a newer version, or of a version
    before the first release.
    """
    tables = set(inspect(connection).get_table_names())
    if not tables:
        return None
    if _is_unreleased(connection, tables):
        raise StoreRefusedError(
            f"{engine.description} was written before the first release of cartesia-exporter and "
            "cannot be upgraded: move it away to begin with a new baseline"
        )
    revision = None
    if tables >= {"alembic_version", "meta", "fine_tunes"}:
        revision = connection.execute(select(_alembic_version.c.version_num)).scalar()
    if revision is None:
        raise StoreRefusedError(
            f"{engine.location} is a database, but not one of cartesia-exporter: give another "
            "storage.path"
        )
    if revision not in REVISIONS:
        raise StoreRefusedError(
            f"{engine.description} has schema version {revision}, this program knows up to "
            f"{REVISIONS[-1]}: start the newer program that wrote it, or restore a backup"
        )
    return str(revision)


def _is_unreleased(connection: Connection, tables: set[str]) -> bool:
    """Return whether the tables are older than Alembic's: ``meta`` had the version then."""
    if "alembic_version" in tables or not tables >= {"meta", "fine_tunes"}:
        return False
    version = select(meta.c.value).where(meta.c.name == "schema_version")
    return connection.execute(version).scalar() is not None
