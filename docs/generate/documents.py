"""The generated documents and their files."""

import re
from pathlib import Path

from docs.generate import api, configuration, flags
from docs.generate.dashboard import document as dashboard

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
API = ROOT / "docs" / "api.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"
FLAGS = ROOT / "docs" / "flags.md"
DASHBOARD = ROOT / "deploy" / "grafana" / "cartesia-fine-tunes.json"


def render_documents() -> dict[Path, str]:
    """Return the text of each document by its path."""
    readme = README.read_text(encoding="utf-8")
    table = re.compile(rf"^{re.escape(flags.HEADER)}\n(?:\|.*\n)*", re.MULTILINE)
    return {
        README: table.sub(lambda _: f"{flags.flag_table('run')}\n", readme),
        API: api.render(),
        CONFIGURATION: configuration.render(),
        FLAGS: flags.render(),
        DASHBOARD: dashboard.render(),
    }
