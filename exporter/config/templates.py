"""Templates in the configuration: refused, with their place, before anything is sent."""

from typing import Any

from exporter.config.problems import validation_error
from exporter.receivers import slack
from exporter.receivers.template_check import body_faults, line_fault


def check_template(template: dict[str, Any]) -> dict[str, Any]:
    """Return the map of a webhook's body as it is.

    Raises pydantic's ValidationError, which is a ValueError, with each fault at its place.
    """
    faults = body_faults(template)
    if faults:
        raise validation_error("template", faults)
    return template


def check_line(text: str) -> str:
    """Return the text of a Slack message's first line as it is; ValueError if it is unusable."""
    fault = line_fault(text, slack.shown)
    if fault is not None:
        raise ValueError(fault)
    return text
