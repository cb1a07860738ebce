"""Where the state is: a file, or a database of PostgreSQL."""

from pathlib import Path

from msgspec import Struct

from exporter.core.secret import Secret


class PostgresLocation(Struct, frozen=True):
    """A database of PostgreSQL, and how it is used.

    ``url`` is a connection URI of libpq. ``password`` is read at each new connection and replaces
    one in the URL. ``lease`` is in seconds: no statement and no pause within a transaction lasts
    longer. ``pool`` is the number of connections that write.
    """

    url: Secret
    password: Secret | None = None
    lease: float = 15.0
    pool: int = 4

    def __str__(self) -> str:
        return f"PostgreSQL, by {self.url.source}"


StoreLocation = Path | PostgresLocation
"""The path of a state file, or a database of PostgreSQL."""
