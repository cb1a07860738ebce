"""Programs of other people that tests run: what is missing skips the test, in CI it fails."""

import os
import shutil

import pytest


def required(program: str, *, package: str) -> str:
    """Return the program's path; without it, say how to get it, and skip or, in CI, fail."""
    path = shutil.which(program)
    if path is not None:
        return path
    text = f"{program} is not on PATH; on Debian and Ubuntu: apt-get install {package}"
    if os.environ.get("CI", "").lower() in {"", "0", "false"}:
        pytest.skip(text)
    pytest.fail(text)
