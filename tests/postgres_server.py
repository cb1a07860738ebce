"""Runs a PostgreSQL server with databases for tests."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
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
from tests.programs import required

USER = "postgres"

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "32MB",
    "max_connections": "60",
    # The files of a test are deleted with it.
    "fsync": "off",
    "full_page_writes": "off",
}


def program(name: str) -> str:
    """Return the path of a program of PostgreSQL; Debian has them outside of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=_version)
    return str(found[-1]) if found else required(name, package="postgresql-15")


def _version(path: Path) -> float:
    return float(path.parts[-3])


@dataclass
class PostgresServer:
    """A running server; any user may connect without a password."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes]"
    _numbers: Iterator[int] = field(default_factory=count)
    _shared: str = ""

    def url(self, database: str = USER, **parameters: Any) -> str:
        query = f"?{urlencode(parameters)}" if parameters else ""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}{query}"

    def execute(self, statement: str, database: str = USER) -> list[Any]:
        """Execute statements on a connection of its own; return the rows of the last one."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql.SQL(statement))
            return cursor.fetchall() if cursor.description else []

    def new_database(self) -> str:
        """Create a database without tables; return its name."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def location(self, database: str, **settings: Any) -> PostgresLocation:
        return PostgresLocation(TextSecret(self.url(database), "storage.url", str), **settings)

    def emptied(self, **settings: Any) -> PostgresLocation:
        """Return the database that tests share: a state as a new agent creates it."""
        is_new = not self._shared
        self._shared = self._shared or self.new_database()
        location = self.location(self._shared, **settings)
        engine = PostgresEngine(location)
        with closing(engine), engine.begin(write=True) as connection:
            if not is_new:
                connection.exec_driver_sql("DROP FUNCTION IF EXISTS no_room CASCADE")
                names = ", ".join(metadata.tables)
                connection.exec_driver_sql(f"TRUNCATE {names} RESTART IDENTITY")
            migrate(connection, engine, init=True)
        return location

    def stop(self) -> None:
        """Stop the server at once; its clients lose their connections."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)

    def start(self) -> None:
        """Start the server, again after ``stop``."""
        self.process = _start(self.folder, self.port)
        _wait(self)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run a server on a free port of 127.0.0.1; texts sort there in another way than by bytes."""
    initdb = program("initdb")
    # Not in the folder of pytest, which other users cannot enter.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if os.getuid() == 0:
        owner = pwd.getpwnam(USER)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    try:
        locale = ("--locale-provider=icu", "--icu-locale=en", "--locale=C.UTF-8", "--encoding=UTF8")
        command = (initdb, "--no-sync", "--auth=trust", f"--username={USER}", *locale)
        subprocess.run([*command, folder / "data"], check=True, capture_output=True, **_as_user())
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        server = PostgresServer(folder, port, _start(folder, port))
        try:
            _wait(server)
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as_user() -> dict[str, Any]:
    """Return arguments of Popen that run a program as the user of PostgreSQL, not as root."""
    if os.getuid() != 0:
        return {}
    return {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": [], "cwd": "/"}


def _start(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    settings = {**_SETTINGS, "port": str(port)}
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [program("postgres"), "-D", folder / "data", *arguments],
            stdout=log,
            stderr=log,
            **_as_user(),
        )


def _wait(server: PostgresServer) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(server.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            assert server.process.poll() is None, (server.folder / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL does not start"
            time.sleep(0.02)
        else:
            return
