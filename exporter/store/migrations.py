"""How the tables came to be as they are: numbered steps, each run once, in order, for good.

A step that was released is never edited. A change of the tables is a new step at the end, together
with the change in schema.py.
"""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from exporter.store.errors import StoreRefusedError

_FIRST: Final = """
CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL);

CREATE TABLE accounts (
    number INTEGER NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    base_url TEXT NOT NULL,
    baseline_at FLOAT NOT NULL,
    UNIQUE (name, base_url)
);

CREATE TABLE fine_tunes (
    account INTEGER NOT NULL REFERENCES accounts (number),
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    language TEXT NOT NULL,
    model_id TEXT NOT NULL,
    dataset TEXT NOT NULL,
    status TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    since FLOAT NOT NULL,
    since_seen BOOLEAN NOT NULL,
    exit_pending BOOLEAN NOT NULL,
    missed_polls INTEGER NOT NULL,
    removals INTEGER NOT NULL,
    PRIMARY KEY (account, id)
);

CREATE TABLE label_values (
    account INTEGER NOT NULL REFERENCES accounts (number),
    label TEXT NOT NULL,
    value TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (account, label, value)
);

CREATE TABLE transitions (
    account INTEGER NOT NULL REFERENCES accounts (number),
    model_id TEXT NOT NULL,
    from_status TEXT NOT NULL,
    to_status TEXT NOT NULL,
    total INTEGER NOT NULL,
    PRIMARY KEY (account, model_id, from_status, to_status)
);

CREATE TABLE removals (
    account INTEGER NOT NULL REFERENCES accounts (number),
    status TEXT NOT NULL,
    total INTEGER NOT NULL,
    PRIMARY KEY (account, status)
);

CREATE TABLE events (
    number INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    account TEXT NOT NULL,
    observed_at FLOAT NOT NULL,
    content TEXT NOT NULL
);

CREATE TABLE deliveries (
    event INTEGER NOT NULL REFERENCES events (number),
    receiver TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead')),
    message TEXT,
    settled_at FLOAT,
    PRIMARY KEY (event, receiver)
);

CREATE INDEX deliveries_of_message ON deliveries (receiver, message);

CREATE INDEX deliveries_unsettled ON deliveries (receiver, state) WHERE state <> 'delivered';

CREATE TABLE messages (
    receiver TEXT NOT NULL,
    id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead')),
    body BLOB NOT NULL,
    events INTEGER NOT NULL,
    minimal BOOLEAN NOT NULL,
    created_at FLOAT NOT NULL,
    attempts INTEGER NOT NULL,
    last_attempt_at FLOAT,
    last_result TEXT NOT NULL,
    PRIMARY KEY (receiver, id)
);

CREATE INDEX messages_due ON messages (receiver, last_attempt_at) WHERE state = 'pending';
"""

_CIRCUITS: Final = """
ALTER TABLE fine_tunes ADD COLUMN stuck BOOLEAN NOT NULL DEFAULT 0;

CREATE TABLE poll_outages (
    name TEXT NOT NULL,
    base_url TEXT NOT NULL,
    since FLOAT NOT NULL,
    PRIMARY KEY (name, base_url)
);

ALTER TABLE events ADD COLUMN subject TEXT NOT NULL DEFAULT '';

UPDATE events SET subject = coalesce(json_extract(content, '$.fine_tune.id'), '');

CREATE INDEX events_of_subject ON events (account, subject, number);

CREATE TABLE receivers (
    name TEXT NOT NULL PRIMARY KEY,
    failures INTEGER NOT NULL,
    since FLOAT NOT NULL,
    open BOOLEAN NOT NULL,
    reason TEXT NOT NULL,
    resume_at FLOAT NOT NULL,
    retry_requests INTEGER NOT NULL
);

CREATE TABLE new_deliveries (
    event INTEGER NOT NULL REFERENCES events (number),
    receiver TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead', 'discarded')),
    owed_since FLOAT NOT NULL,
    message TEXT,
    settled_at FLOAT,
    PRIMARY KEY (event, receiver)
);

INSERT INTO new_deliveries
    SELECT event, receiver, state, observed_at, message, settled_at
    FROM deliveries JOIN events ON events.number = deliveries.event;

DROP TABLE deliveries;

ALTER TABLE new_deliveries RENAME TO deliveries;

CREATE INDEX deliveries_of_message ON deliveries (receiver, message);

CREATE INDEX deliveries_of_state ON deliveries (receiver, state, settled_at);

CREATE TABLE new_messages (
    receiver TEXT NOT NULL,
    id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead', 'discarded')),
    body BLOB NOT NULL,
    events INTEGER NOT NULL,
    minimal BOOLEAN NOT NULL,
    created_at FLOAT NOT NULL,
    attempts INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    in_flight BOOLEAN NOT NULL,
    unanswered BOOLEAN NOT NULL,
    last_attempt_at FLOAT,
    last_result TEXT NOT NULL,
    PRIMARY KEY (receiver, id)
);

INSERT INTO new_messages
    SELECT receiver, id, state, body, events, minimal, created_at, attempts, attempts, 0, 1,
        last_attempt_at, last_result
    FROM messages;

DROP TABLE messages;

ALTER TABLE new_messages RENAME TO messages;

CREATE INDEX messages_of_state ON messages (receiver, state);
"""

_STAYS: Final = """
CREATE TABLE stays (
    account INTEGER NOT NULL REFERENCES accounts (number),
    status TEXT NOT NULL,
    bound FLOAT NOT NULL,
    total INTEGER NOT NULL,
    seconds FLOAT NOT NULL,
    PRIMARY KEY (account, status, bound)
);
"""

_CURSORS: Final = """
CREATE TABLE cursors (
    account INTEGER NOT NULL PRIMARY KEY REFERENCES accounts (number),
    ids TEXT NOT NULL
);
"""


def _create(connection: Connection) -> None:
    _run(connection, _FIRST)
    _set_meta(connection, "store_id", secrets.token_hex(16))


def _add_circuits(connection: Connection) -> None:
    _run(connection, _CIRCUITS)


def _add_stays(connection: Connection) -> None:
    _run(connection, _STAYS)


def _add_cursors(connection: Connection) -> None:
    _run(connection, _CURSORS)


def _run(connection: Connection, script: str) -> None:
    for statement in script.split(";"):
        if statement.strip():
            connection.exec_driver_sql(statement)


_STEPS: Final[tuple[Callable[[Connection], None], ...]] = (
    _create,
    _add_circuits,
    _add_stays,
    _add_cursors,
)

SCHEMA_VERSION: Final = len(_STEPS)


def migrate(connection: Connection, path: Path) -> None:
    """Bring the tables to SCHEMA_VERSION within the connection's transaction.

    Raises StoreRefusedError as version_of does.
    """
    version = version_of(connection, path)
    for step in _STEPS[version:]:
        step(connection)
    if version < SCHEMA_VERSION:
        _set_meta(connection, "schema_version", str(SCHEMA_VERSION))


def version_of(connection: Connection, path: Path) -> int:
    """Return how many steps the tables have behind them; 0 for an empty database.

    Raises StoreRefusedError for a database that is not ours or was written by a newer version.
    """
    tables = inspect(connection).get_table_names()
    if not tables:
        return 0
    version = _read_version(connection) if set(tables) >= {"meta", "fine_tunes"} else None
    if version is None:
        raise StoreRefusedError(
            f"{path} is a database, but not one of cartesia-exporter: give another storage.path"
        )
    if version > SCHEMA_VERSION:
        raise StoreRefusedError(
            f"the state file {path} has schema version {version}, this program knows up to "
            f"{SCHEMA_VERSION}: start the newer program that wrote it, or restore a backup"
        )
    return version


def _read_version(connection: Connection) -> int | None:
    query = text("SELECT value FROM meta WHERE name = 'schema_version'")
    found = str(connection.execute(query).scalar())
    return int(found) if found.isdecimal() else None


def _set_meta(connection: Connection, name: str, value: str) -> None:
    connection.execute(
        text(
            "INSERT INTO meta (name, value) VALUES (:name, :value)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        ),
        {"name": name, "value": value},
    )
