"""Runs Prometheus or Alertmanager on a free port."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.process.agent_process import get, until


@contextlib.contextmanager
def listening(folder: Path, *command: str) -> Iterator[str]:
    """Run Prometheus or Alertmanager in a folder; yield its URL once it is ready."""
    # They do not support port 0. This port is free again when the socket is closed.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [*command, f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / f"{Path(command[0]).name}.log").open("wb") as log:
        server = subprocess.Popen(arguments, stdout=log, stderr=log, cwd=folder)
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: get(f"{url}/-/ready").status_code == 200, seconds=30)
        yield url
    finally:
        server.terminate()
        server.wait(20)
