"""External programs of tests: a missing one skips the test, and fails it in CI."""

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest


def required(program: str, *, package: str = "", otherwise: str = "") -> str:
    """Return the path of a program; skip the test without it, or fail it in CI.

    Prefers programs in the virtual environment of the tests. The message says how to install the
    program: from a Debian ``package``, or as ``otherwise`` says.
    """
    own = str(Path(sys.executable).parent)
    path = shutil.which(program, path=os.pathsep.join((own, os.environ.get("PATH", ""))))
    if path is None:
        how = otherwise or f"on Debian and Ubuntu: apt-get install {package}"
        missing(f"{program} is not on PATH; {how}")
    return path


def missing(text: str) -> NoReturn:
    """Skip the test because something is missing, or fail it in CI."""
    if os.environ.get("CI", "").lower() in {"", "0", "false"}:
        pytest.skip(text)
    pytest.fail(text)
