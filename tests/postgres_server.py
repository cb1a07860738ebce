"""Runs a PostgreSQL server with databases for tests."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
from psycopg import sql

from exporter.config.secrets import TextSecret
from exporter.store.engines.postgres import PostgresEngine
from exporter.store.location import PostgresLocation
from exporter.store.migrations import migrate
from exporter.store.schema import metadata
from tests.fakes.certificates import authority
from tests.programs import required

USER = "postgres"
AGENT = "agent"
"""A user that needs a password, which is set by ``set_password``."""

HOST = "db.example"
"""The name in the server's certificate."""

ACCESS = f"""
host all {AGENT} 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""
"""Who needs a password: in the form of PostgreSQL, which PgBouncer has too."""

_PREFIX = "cartesia-exporter-postgres-"
_ABANDONED_SECONDS = 600

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "ssl": "on",
    # The files of a test are deleted with it.
    "fsync": "off",
    "full_page_writes": "off",
}


def program(name: str) -> str:
    """Return the path of a program of PostgreSQL; Debian has them outside of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=_version)
    return str(found[-1]) if found else required(name, package="postgresql")


def _version(path: Path) -> float:
    return float(path.parts[-3])


# Not TRUNCATE, which creates a file for each table and index: 80 ms.
_EMPTY = "; ".join(
    [f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables)]
    + [
        f"SELECT setval(pg_get_serial_sequence('{table.name}', '{key.name}'), 1, false)"
        for table in metadata.sorted_tables
        if (key := table.autoincrement_column) is not None
    ]
)


@dataclass
class PostgresServer:
    """A running server. Every user but AGENT may connect without a password.

    ``authority`` is the file with the authority of its certificate.
    """

    folder: Path
    port: int
    process: "subprocess.Popen[bytes]"
    settings: Mapping[str, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)
    _shared: str = ""

    @property
    def authority(self) -> Path:
        return self.folder / "ca.pem"

    def url(
        self,
        database: str = USER,
        *,
        user: str = USER,
        host: str = "127.0.0.1",
        port: int = 0,
        **parameters: Any,
    ) -> str:
        # Without TLS, which the server has for the tests of it.
        given = {"sslmode": "disable", **parameters}
        query = urlencode({name: value for name, value in given.items() if value})
        return f"postgresql://{user}@{host}:{port or self.port}/{database}?{query}"

    def execute(self, statement: str, database: str = USER) -> list[Any]:
        """Execute statements on a connection of its own; return the rows of the last one."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql.SQL(statement))
            return cursor.fetchall() if cursor.description else []

    def new_database(self, options: str = "") -> str:
        """Create a database without tables; return its name."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} {options}")
        return name

    def set_password(self, password: str) -> None:
        """Set the password of AGENT, who may change every table."""
        self.execute(f"ALTER USER {AGENT} PASSWORD '{password}'")

    def emptied(self) -> PostgresLocation:
        """Return the location of ``emptied_database``."""
        return location_of(self.url(self.emptied_database()))

    def emptied_database(self) -> str:
        """Return the database that tests share: a state as a new agent creates it."""
        is_new = not self._shared
        self._shared = self._shared or self.new_database()
        engine = PostgresEngine(location_of(self.url(self._shared)))
        with closing(engine), engine.begin(write=True) as connection:
            if not is_new:
                connection.exec_driver_sql("DROP FUNCTION IF EXISTS no_room CASCADE")
                connection.exec_driver_sql(_EMPTY)
            migrate(connection, engine, init=True)
        return self._shared

    def stop(self) -> None:
        """Stop the server at once; its clients lose their connections."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)

    def start(self) -> None:
        """Start the server, again after ``stop``."""
        self.process = _start(self.folder, self.port, self.settings)
        wait_for(self.url(), self.process, self.folder / "log")


def location_of(url: str, **settings: Any) -> PostgresLocation:
    """Return the location of a URL, of which nothing is a secret."""
    return PostgresLocation(TextSecret(url, "storage.url", str), **settings)


@contextmanager
def postgres_server(**settings: str) -> Iterator[PostgresServer]:
    """Run a server on a free port of 127.0.0.1; texts sort there in another way than by bytes.

    ``settings`` replace those of the tests.
    """
    initdb = program("initdb")
    # Not in the folder of pytest, which other users cannot enter.
    _delete_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    if os.getuid() == 0:
        owner = pwd.getpwnam(USER)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    try:
        locale = ("--locale-provider=icu", "--icu-locale=en", "--locale=C.UTF-8", "--encoding=UTF8")
        command = (*as_user(), initdb, "--no-sync", "--auth=trust", f"--username={USER}", *locale)
        subprocess.run([*command, folder / "data"], check=True, capture_output=True, cwd=folder)
        _write_files(folder)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        server = PostgresServer(folder, port, _start(folder, port, settings), settings)
        try:
            wait_for(server.url(), server.process, folder / "log")
            server.execute(f"CREATE USER {AGENT} SUPERUSER")
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_files(folder: Path) -> None:
    """Write who may connect, and a certificate with its key."""
    issuer, _ = authority(folder)
    issued = issuer.issue_cert(HOST)
    (folder / "data/pg_hba.conf").write_text(ACCESS)
    issued.private_key_pem.write_to_path(folder / "data/server.key")
    issued.cert_chain_pems[0].write_to_path(folder / "data/server.crt")
    key, data = folder / "data/server.key", (folder / "data").stat()
    os.chown(key, data.st_uid, data.st_gid)
    key.chmod(0o600)


def as_user() -> list[str]:
    """Return the command that runs a program as the user of PostgreSQL, if this one is root.

    The program ends when the process of the tests is killed.
    """
    command = [required("setpriv", package="util-linux"), "--pdeathsig=INT"]
    if os.getuid() == 0:
        command += [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    return [*command, "--"]


def _delete_abandoned() -> None:
    """Delete the folders of servers that ended because the process of their tests was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            is_old = time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS
            if is_old and not (folder / "data/postmaster.pid").exists():
                shutil.rmtree(folder)


def _start(folder: Path, port: int, settings: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    given = {**_SETTINGS, "port": str(port), **settings}
    arguments = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [*as_user(), program("postgres"), "-D", folder / "data", *arguments],
            stdout=log,
            stderr=log,
            cwd=folder,
        )


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a process that has just been started accepts connections."""
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"no connection: {log.read_text()}"
            time.sleep(0.02)
        else:
            return
