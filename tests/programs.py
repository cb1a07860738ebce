"""Programs of other people that tests run: what is missing skips the test, in CI it fails."""

import os
import shutil
import sys
from pathlib import Path

import pytest


def required(program: str, *, package: str = "", otherwise: str = "") -> str:
    """Return the program's path; without it, say how to get it, and skip or, in CI, fail.

    Those that came with the tests' own environment are taken first. How to get it is the name of
    a Debian ``package``, or said ``otherwise``.
    """
    own = str(Path(sys.executable).parent)
    path = shutil.which(program, path=os.pathsep.join((own, os.environ.get("PATH", ""))))
    if path is not None:
        return path
    how = otherwise or f"on Debian and Ubuntu: apt-get install {package}"
    text = f"{program} is not on PATH; {how}"
    if os.environ.get("CI", "").lower() in {"", "0", "false"}:
        pytest.skip(text)
    pytest.fail(text)
