"""Published schemas of files: those of check-jsonschema and of Kubernetes.

Both packages are imported when they are needed: not by every worker.
"""

import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner

# jsonschema imports it to check IRIs, of which the files have none: its import takes 2.5 s.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # None: not installed


def assert_files_conform(schema: str, *files: Path) -> None:
    """Assert that YAML or JSON files conform to a schema that check-jsonschema brings."""
    from check_jsonschema import main

    checked = CliRunner().invoke(main, [f"--builtin-schema=vendor.{schema}", *map(str, files)])
    assert checked.exit_code == 0, checked.output


def assert_is_valid_for_kubernetes(document: dict[str, Any], version: str) -> None:
    """Assert that a version of Kubernetes knows all fields of a document."""
    import kubernetes_validate

    kubernetes_validate.validate(document, version, strict=True)
