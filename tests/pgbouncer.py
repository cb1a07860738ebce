"""Runs PgBouncer in transaction mode."""

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.postgres_server import USER, PostgresServer, as_user, wait_for
from tests.programs import required

_CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
max_client_conn = 100
"""


@contextmanager
def pgbouncer(server: PostgresServer) -> Iterator[int]:
    """Run PgBouncer with three connections for each database of a server; yield its port."""
    program = required("pgbouncer", package="pgbouncer")
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    folder.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = folder / "pgbouncer.ini"
    file.write_text(_CONFIGURATION.format(server=server.port, user=USER, port=port))
    try:
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*as_user(), program, file], stdout=log, stderr=log, cwd=folder
            )
        try:
            wait_for(server.url(port=port), process, folder / "log")
            yield port
        finally:
            process.terminate()
            process.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
