"""A configuration file in a folder of a test, and an environment with an API key."""

from pathlib import Path

KEY = {"CARTESIA_API_KEY": "sk_car_hunter2.hunter2"}


def write_config(folder: Path, text: str) -> Path:
    """Write config.yaml and return its path."""
    path = folder / "config.yaml"
    path.write_text(text)
    return path
