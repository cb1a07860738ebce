"""Connections to PostgreSQL: their parameters, passwords and bounds."""

import logging
import os
import ssl
from collections.abc import Mapping
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeVar

import certifi
import psycopg
from psycopg.abc import PQGen
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.string import StrDumperUnknown
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from exporter.core.secret import SecretError
from exporter.core.text import is_loopback
from exporter.store.errors import StoreError, StoreRefusedError
from exporter.store.location import PostgresLocation

# It warns of errors that follow from the one that it raises.
logging.getLogger("psycopg").setLevel(logging.ERROR)

_Result = TypeVar("_Result")

_CONNECT_SECONDS: Final = 5
_PAUSE_SECONDS: Final = 1.0
"""After a connection failed, others fail at once for this long: else a thousand accounts would wait
for the timeout one after the other."""

# Nothing of a session but what poolers in transaction mode keep for each client.
_PARAMETERS: Final[Mapping[str, Any]] = {
    "application_name": "cartesia-exporter",
    "connect_timeout": _CONNECT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}


class _TextDumper(StrDumperUnknown):
    """Replaces U+0000, which PostgreSQL refuses, as in texts of the API."""

    def dump(self, obj: str) -> bytes:
        return obj.replace("\0", "\ufffd").encode()


_ADAPTERS: Final = AdaptersMap(psycopg.adapters)
_ADAPTERS.register_dumper(str, _TextDumper)

_ANSWER_SHARE: Final = 0.4
"""Share of the lease after which a connection without an acknowledgement is closed."""


class _BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed when the server has not answered for ``answer_seconds``.

    The server's own timeouts have no effect while it is stopped or its disk hangs.
    """

    answer_seconds = inf

    def wait(self, gen: PQGen[_Result], *arguments: Any, **named: Any) -> _Result:
        return super().wait(self._bounded(gen), *arguments, **named)

    def _bounded(self, gen: PQGen[_Result]) -> PQGen[_Result]:
        deadline = monotonic() + self.answer_seconds
        try:
            state = next(gen)
            while True:
                ready = yield state
                if monotonic() >= deadline:
                    self.pgconn.finish()
                    seconds = f"{self.answer_seconds:.0f} s"
                    raise psycopg.OperationalError(f"no answer from the server for {seconds}")
                state = gen.send(ready)
        except StopIteration as end:
            result: _Result = end.value
            return result


class Connector:
    """Opens connections to the database at ``location``.

    ``address`` is the database without user and password.
    """

    def __init__(self, location: PostgresLocation) -> None:
        self._location = location
        self._failed_at = -_PAUSE_SECONDS
        self._failure: psycopg.Error | None = None
        try:
            self.address = _address_of(self._given())
        except StoreError:  # raised again by ``connect``
            self.address = location.url.source

    def engine(self, size: int, answer_seconds: float) -> Engine:
        """Return an engine with at most ``size`` connections.

        A connection is closed when the server has not answered for ``answer_seconds``.
        The execution option ``begin`` has the statements that begin a transaction: psycopg begins
        none by itself, so that all of them take one round trip.
        """
        engine = create_engine(
            "postgresql+psycopg://",
            poolclass=QueuePool,
            pool_size=size,
            max_overflow=0,
            pool_timeout=self._location.lease,
            # Errors of SQLAlchemy would quote the texts of customers' fine-tunes.
            hide_parameters=True,
            use_native_hstore=False,
        )

        @event.listens_for(engine, "do_connect")
        def connect(*_: Any) -> Any:
            return self.connect(answer_seconds)

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            if statements := connection.get_execution_options().get("begin"):
                connection.exec_driver_sql(statements)

        return engine

    def connect(self, answer_seconds: float) -> psycopg.Connection:
        """Return a new connection. Raises StoreError, psycopg.Error."""
        if self._failure is not None and monotonic() < self._failed_at + _PAUSE_SECONDS:
            raise type(self._failure)(str(self._failure))
        parameters = self._parameters()
        try:
            connection = _BoundedConnection.connect(
                **parameters, autocommit=True, prepare_threshold=None, context=_ADAPTERS
            )
        except psycopg.Error as error:
            self._failed_at, self._failure = monotonic(), error
            raise
        self._failure = None
        connection.answer_seconds = answer_seconds
        return connection

    def _parameters(self) -> dict[str, Any]:
        given = self._given()
        acknowledged = round(1000 * _ANSWER_SHARE * self._location.lease)
        parameters = {**_PARAMETERS, "tcp_user_timeout": acknowledged, **given}
        parameters["client_encoding"] = "utf8"
        if len(_hosts_of(given)) > 1:
            parameters.setdefault("target_session_attrs", "read-write")
        if "sslmode" not in given and not all(map(_is_local, _hosts_of(given))):
            parameters["sslmode"] = "verify-full"
        if parameters.get("sslmode") in {"verify-full", "verify-ca"}:
            parameters.setdefault("sslrootcert", _authorities())
        if self._location.password is not None:
            parameters["password"] = _read(self._location.password)
        return parameters

    def _given(self) -> dict[str, Any]:
        """Return the parameters in the URL."""
        url = _read(self._location.url)
        try:
            return dict(conninfo_to_dict(url))
        except psycopg.Error:
            # The error of libpq may quote a part of the password.
            raise StoreRefusedError(
                f"{self._location.url.source} is not a URL of PostgreSQL: write "
                "postgresql://user@host:5432/database?sslmode=…, with parameters of libpq only; "
                "in a user or a password, write %40 for @, %2F for /, %3A for : and %25 for %"
            ) from None


def _read(secret: Any) -> str:
    try:
        return str(secret())
    except SecretError as error:
        raise StoreError(f"cannot connect to the database of the state: {error}") from None


def _hosts_of(given: Mapping[str, Any]) -> list[str]:
    return str(given.get("host") or given.get("hostaddr") or "").split(",")


def _is_local(host: str) -> bool:
    return not host or host.startswith(("/", "@")) or is_loopback(host)


def _address_of(given: Mapping[str, Any]) -> str:
    hosts = _hosts_of(given)
    ports = [port or "5432" for port in str(given.get("port") or "").split(",")]
    ports *= len(hosts) if len(ports) == 1 else 1
    names = [f"[{host}]" if ":" in host else host or "local socket" for host in hosts]
    places = ", ".join(f"{host}:{port}" for host, port in zip(names, ports, strict=False))
    database = given.get("dbname") or given.get("user") or "default"
    return f"{database} at {places}"


def _authorities() -> str:
    """Return the file of the trusted authorities: libpq's own if there is one, else as in HTTP."""
    own = Path("~/.postgresql/root.crt").expanduser()
    candidates = (os.environ.get("PGSSLROOTCERT"), own if own.exists() else None)
    system = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    return str(next(filter(None, (*candidates, system)), certifi.where()))
