"""Which documents there are, and what they have to say."""

import re
from pathlib import Path

from docs.generate import configuration, flags
from docs.generate.dashboard import board

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"
FLAGS = ROOT / "docs" / "flags.md"
DASHBOARD = ROOT / "deploy" / "grafana" / "cartesia-fine-tunes.json"


def written() -> dict[Path, str]:
    """Return the text of each document by its path."""
    readme = README.read_text(encoding="utf-8")
    table = re.compile(rf"^{re.escape(flags.HEAD)}\n(?:\|.*\n)*", re.MULTILINE)
    return {
        README: table.sub(lambda _: f"{flags.table_of('run')}\n", readme),
        CONFIGURATION: configuration.document(),
        FLAGS: flags.document(),
        DASHBOARD: board.document(),
    }
