"""Addresses of the project. The first release changes them here; tests name every other place."""

from typing import Final

REPOSITORY_URL: Final = "https://github.com/cartesia-exporter/cartesia-exporter"
DOCUMENTATION_URL: Final = f"{REPOSITORY_URL}/blob/main/docs"

_RUNBOOKS: Final = {
    "CartesiaReceiverUnhealthy": "CartesiaReceiverDown",
    "CartesiaUnknownStatus": "CartesiaStatusUnknown",
}
"""The section of runbooks.md for an alert that has none of its own."""


def runbook_url(alertname: str) -> str:
    """Return the URL of the runbook for an alert."""
    return f"{DOCUMENTATION_URL}/runbooks.md#{_RUNBOOKS.get(alertname, alertname).lower()}"
