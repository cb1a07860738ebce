"""Errors of PostgreSQL and psycopg as errors of the store, with what to do."""

import re
from typing import Final

import psycopg
from psycopg import errors
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from exporter.core.text import one_line
from exporter.store.errors import StoreConflictError, StoreError, StoreRefusedError

_MAX_ERROR_LENGTH: Final = 300
_CONNECTION: Final = re.compile(
    "(connection failed: )?(connection to server .*? failed: )?((FATAL|ERROR): +)?"
)
"""What libpq puts before the cause of a failed connection: its address is in the description."""

_CA = "give the certificate authority by sslrootcert=PATH in storage.url, or another sslmode"
_CONNECTIONS = "raise the server's limit of connections, or lower storage.pool"
_HOSTS = "give all hosts of the cluster in storage.url"

_CONNECTING: Final = {
    "password authentication failed": "check the user in storage.url, and the password, which is "
    "read at each new connection",
    "no password supplied": "give storage.password_file, or a password in storage.url",
    "no pg_hba.conf entry": "let this host connect as this user in pg_hba.conf",
    "root certificate file": _CA,
    "certificate verify failed": _CA,
    "does not exist": "create it, or correct storage.url",
    "server does not support SSL": "let the server use TLS, or write sslmode=disable",
    "too many": _CONNECTIONS,
    "remaining connection slots": _CONNECTIONS,
    "no more connections allowed": _CONNECTIONS,
    "session is read-only": _HOSTS,
    "invalid connection option": "remove it from storage.url",
}
"""What to do, by a part of the text of a failed connection, which has no code."""

_REMEDIES: Final[tuple[tuple[type[psycopg.Error], type[StoreError], str], ...]] = (
    (errors.SerializationFailure, StoreConflictError, "try again"),
    (errors.DeadlockDetected, StoreConflictError, "try again"),
    (errors.DuplicateTable, StoreConflictError, "try again"),
    (errors.DuplicateObject, StoreConflictError, "try again"),
    (
        errors.InsufficientPrivilege,
        StoreRefusedError,
        "let the user in storage.url own the database, or the first schema in its search_path",
    ),
    (
        errors.InvalidSchemaName,
        StoreRefusedError,
        "create the first schema in the search_path of the user in storage.url",
    ),
    (errors.ReadOnlySqlTransaction, StoreError, _HOSTS),
    (
        errors.ProgramLimitExceeded,
        StoreError,
        "an id of the API is too long for PostgreSQL; a state file has no such limit",
    ),
    (errors.LockNotAvailable, StoreConflictError, "another process holds it; try again"),
    (errors.QueryCanceled, StoreError, "the server is too slow or blocked; try again"),
)
_DAMAGED: Final = (errors.DataCorrupted, errors.IndexCorrupted)


def to_store_error(
    error: SQLAlchemyError | psycopg.Error, description: str, *, reading: bool = False
) -> Exception:
    """Return the error of the store for one of the driver; ``description`` names the database.

    The detail of an error is left out: it quotes rows. If ``reading``, a statement that took too
    long is a TimeoutError.
    """
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, errors.QueryCanceled) and reading:
        return TimeoutError()
    text, remedy, error_type = _text(str(cause)), "", StoreError
    if isinstance(cause, psycopg.Error) and cause.sqlstate is not None:
        text = _text(cause.diag.message_primary or text)
        if isinstance(cause, _DAMAGED):
            return damaged(description, text)
        if _is_of_catalog(cause):
            error_type, remedy = StoreConflictError, "try again"
        for of_type, converted, do in _REMEDIES:
            if isinstance(cause, of_type):
                error_type, remedy = converted, do
    else:
        remedy = next((do for part, do in _CONNECTING.items() if part in text), "")
    return error_type(f"{description}: {text}{remedy and '; '}{remedy}")


def damaged(description: str, how: str) -> StoreRefusedError:
    """Return the error for a damaged database."""
    return StoreRefusedError(
        f"{description} is damaged ({_text(how)}): restore a backup of it, or give storage.url "
        "another database to begin with a new baseline; it was left as it is"
    )


def _is_of_catalog(error: psycopg.Error) -> bool:
    """Return whether two processes created the same table at the same time."""
    return isinstance(error, errors.UniqueViolation) and error.diag.schema_name == "pg_catalog"


def _text(text: str) -> str:
    """Return the first line: the others are hints of libpq, and failures of further hosts."""
    first, _, _ = text.partition("\n")
    return one_line(_CONNECTION.sub("", first, count=1), _MAX_ERROR_LENGTH)
