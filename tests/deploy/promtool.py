"""Debian's promtool: what it says of files of Prometheus."""

import subprocess
from pathlib import Path

from tests.programs import required


def promtool(*arguments: str | Path) -> None:
    """Run it, and fail with what it says if it finds a fault."""
    program = required("promtool", package="prometheus")
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
