"""The generated documents and their files."""

from pathlib import Path

from docs.generate import api, configuration, flags
from docs.generate.dashboard import document as dashboard

ROOT = Path(__file__).parent.parent.parent
API = ROOT / "docs" / "api.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"
FLAGS = ROOT / "docs" / "flags.md"
DASHBOARD = ROOT / "deploy" / "grafana" / "cartesia-fine-tunes.json"


def render_documents() -> dict[Path, str]:
    """Return the text of each document by its path."""
    return {
        API: api.render(),
        CONFIGURATION: configuration.render(),
        FLAGS: flags.render(),
        DASHBOARD: dashboard.render(),
    }
