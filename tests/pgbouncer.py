"""Runs PgBouncer in transaction mode."""

import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.postgres_server import ACCESS, AGENT, USER, PostgresServer, as_user, wait_for
from tests.programs import required

_CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = hba
auth_hba_file = {folder}/hba
auth_file = {folder}/users
server_login_retry = 1
pool_mode = transaction
default_pool_size = 3
max_client_conn = 100
"""


@dataclass(frozen=True)
class PgBouncer:
    """A running PgBouncer. Every user but AGENT may connect without a password."""

    server: PostgresServer
    port: int
    folder: Path
    process: "subprocess.Popen[bytes]"

    def set_password(self, password: str) -> None:
        """Set the password of AGENT, here and in the server; connections stay open."""
        self.server.set_password(password)
        write_users(self.folder, password)
        self.process.send_signal(signal.SIGHUP)
        url = self.server.url(user=AGENT, password=password, port=self.port)
        wait_for(url, self.process, self.folder / "log")


def write_users(folder: Path, password: str) -> None:
    """Write the users with their passwords, which PgBouncer asks for and sends."""
    (folder / "users").write_text(f'"{USER}" ""\n"{AGENT}" "{password}"\n')


@contextmanager
def pgbouncer(server: PostgresServer) -> Iterator[PgBouncer]:
    """Run PgBouncer with three connections for each user and database of a server."""
    program = required("pgbouncer", package="pgbouncer")
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    folder.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = folder / "pgbouncer.ini"
    file.write_text(_CONFIGURATION.format(server=server.port, port=port, folder=folder))
    (folder / "hba").write_text(ACCESS)
    write_users(folder, "")
    try:
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*as_user(), program, file], stdout=log, stderr=log, cwd=folder
            )
        try:
            wait_for(server.url(port=port), process, folder / "log")
            yield PgBouncer(server, port, folder, process)
        finally:
            process.terminate()
            process.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
