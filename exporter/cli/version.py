"""The version of the program, and the commit that it was built from.

The build hook runs this file by its path: it imports the standard library only.
"""

import subprocess
from pathlib import Path
from typing import Final

COMMIT_FILE: Final = "COMMIT"
"""Name of a file in the package: the commit that a distribution was built from."""

_GIT: Final = ("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
_GIT_SECONDS: Final = 5.0
_PACKAGE: Final = Path(__file__).parents[1]


def version_text(version: str) -> str:
    """Return the version with the commit, if there is one: `0.1.0 (commit 0123456789ab)`."""
    try:
        commit = (_PACKAGE / COMMIT_FILE).read_text(encoding="ascii").strip()
    except OSError:
        commit = commit_of_tree(_PACKAGE.parent)
    return f"{version} (commit {commit})" if commit else version


def commit_of_tree(root: Path) -> str:
    """Return the commit of a git working tree, `-dirty` if files changed since; empty without git.

    ``root`` must be the top of the tree: the repository around another source tree is not asked.
    """
    if not (root / ".git").exists():
        return ""
    try:
        found = subprocess.run(  # noqa: S603 - constant arguments
            _GIT, cwd=root, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
