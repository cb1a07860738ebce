"""Creates the tables of a new state and upgrades those of an older one.

A new state is created from the metadata and marked with the newest revision. Only an upgrade
imports Alembic, which takes 0.2 s. A change of the tables is a change of schema.py and a new module
in versions/; until the first release it is an edit of the initial revision.
"""

import secrets
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from exporter.store.engines import StoreEngine, upsert
from exporter.store.errors import StoreRefusedError
from exporter.store.schema import meta, metadata

REVISIONS: Final = ("0001",)
"""Identifiers of all revisions, oldest first."""

_SCRIPTS: Final = Path(__file__).parent

# As Alembic creates it.
_alembic_version: Final = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def migrate(connection: sa.Connection, engine: StoreEngine, *, init: bool = False) -> str:
    """Create or upgrade the tables, within the caller's transaction; return the store's id.

    If ``init``, a database that was emptied becomes a new state. Raises StoreRefusedError as
    read_revision does, StoreConflictError if another agent creates the tables at the same time.
    """
    revision = read_revision(connection, engine, init=init)
    if revision is None:
        create_tables(connection)
    if revision is None or _is_emptied(connection, revision):
        keys = ("store_id", "form_key")
        upsert(connection, meta, [{"name": n, "value": secrets.token_hex(16)} for n in keys])
    elif revision != REVISIONS[-1]:
        # Another agent may upgrade them, too: one waits for the other.
        locked = sa.select(_alembic_version.c.version_num).with_for_update()
        if connection.execute(locked).scalar() != REVISIONS[-1]:
            upgrade(connection)
    return connection.execute(_select_meta("store_id")).scalar_one()


def create_tables(connection: sa.Connection) -> None:
    """Create the tables of the newest revision, without rows."""
    metadata.create_all(connection, checkfirst=False)
    _alembic_version.create(connection)
    connection.execute(sa.insert(_alembic_version).values(version_num=REVISIONS[-1]))


def upgrade(connection: sa.Connection) -> None:
    """Run the revisions that are missing, within the caller's transaction."""
    from alembic import command  # noqa: PLC0415 - a start without an upgrade does not need it
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def read_revision(
    connection: sa.Connection, engine: StoreEngine, *, init: bool = False
) -> str | None:
    """Return the revision of the tables; None for a new database.

    Raises StoreRefusedError for a damaged or incomplete database, for one of another program, of a
    newer version, or of a version before the first release; unless ``init``, for one that was
    emptied.
    """
    tables = frozenset(sa.inspect(connection).get_table_names())
    if tables.isdisjoint({*metadata.tables, _alembic_version.name}):
        engine.check_new(tables)
        return None
    revision = None
    if tables >= {"alembic_version", "meta", "fine_tunes"}:
        revision = connection.execute(sa.select(_alembic_version.c.version_num)).scalar()
    elif tables >= {"meta", "fine_tunes"} and connection.scalar(_select_meta("schema_version")):
        raise StoreRefusedError(
            f"{engine.description} was written before the first release of cartesia-exporter and "
            "cannot be upgraded: move it away to begin with a new baseline"
        )
    if revision is None:
        raise engine.foreign()
    if revision not in REVISIONS:
        raise StoreRefusedError(
            f"{engine.description} has schema version {revision}, this program knows up to "
            f"{REVISIONS[-1]}: start the newer program that wrote it, or restore a backup"
        )
    if revision == REVISIONS[-1]:
        if missing := sorted({*metadata.tables} - tables):
            raise engine.damaged(f"without {', '.join(missing)}")
        if not init and _is_emptied(connection, revision):
            raise StoreRefusedError(
                f"{engine.description} has the tables of cartesia-exporter, but no store id: it "
                "was emptied. Restore a backup of it, or start once with `run --storage.init` to "
                "begin with a new baseline"
            )
    return str(revision)


def _is_emptied(connection: sa.Connection, revision: str) -> bool:
    return revision == REVISIONS[-1] and connection.scalar(_select_meta("store_id")) is None


def _select_meta(name: str) -> sa.Select[str]:
    return sa.select(meta.c.value).where(meta.c.name == name)
