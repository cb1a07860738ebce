"""Installs the project into empty environments and runs what was installed."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.programs import missing

ROOT = Path(__file__).parents[2]
UV = str(Path(sys.executable).with_name("uv"))
INSTALLED_ONLY = ("env", "-u", "PYTHONPATH")
"""Starts a command without the tree of the tests, which would hide what is installed."""

_NO_INDEX = re.compile(
    "Failed to fetch|error sending request|dns error|Connection.*refused|offline"
)


def run_checked(*command: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    """Run a command that installs something, and return its output.

    Without a package index the test is skipped, or fails in CI.
    """
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    output = done.stdout + done.stderr
    if done.returncode and _NO_INDEX.search(output):
        missing("no package index answers; pip and uv read its address from their configuration")
    assert done.returncode == 0, output
    return output


def size(folder: Path) -> int:
    """Return the size of all files in a folder in bytes."""
    # Not rglob(): in Python 3.11.2 it follows lib64, a link to lib.
    return sum(
        Path(parent, name).lstat().st_size for parent, _, names in os.walk(folder) for name in names
    )


def installed(environment: Path) -> Sequence[str]:
    return (*INSTALLED_ONLY, str(environment / "bin" / "cartesia-exporter"))
