"""Build hook that writes the commit of the source tree into wheels and source distributions."""

import runpy
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):
    """Adds the file that `--version` reads. A source distribution has it already."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file, except to an editable installation, which asks git."""
        module = runpy.run_path(str(Path(self.root) / "exporter" / "cli" / "version.py"))
        commit = module["commit_of_tree"](Path(self.root))
        if not commit or version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / module["COMMIT_FILE"]
        file.write_text(f"{commit}\n", encoding="ascii")
        build_data["force_include"][str(file)] = f"exporter/{file.name}"

    def finalize(self, *_: object) -> None:
        """Remove the temporary file."""
        if folder := getattr(self, "_folder", None):
            folder.cleanup()
