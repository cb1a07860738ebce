"""Addresses of the project's documentation."""

from typing import Final

DOCUMENTATION_URL: Final = "https://github.com/cartesia-exporter/cartesia-exporter/blob/main/docs"

_RUNBOOKS: Final = {
    "CartesiaReceiverUnhealthy": "CartesiaReceiverDown",
    "CartesiaUnknownStatus": "CartesiaStatusUnknown",
}
"""The section of runbooks.md for an alert that has none of its own."""


def runbook_url(alertname: str) -> str:
    """Return the URL of the runbook for an alert."""
    return f"{DOCUMENTATION_URL}/runbooks.md#{_RUNBOOKS.get(alertname, alertname).lower()}"
