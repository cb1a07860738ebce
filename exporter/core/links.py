"""Links of messages: to a fine-tune, to a dashboard and to the status page."""

import re
from typing import Final
from urllib.parse import quote

from msgspec import Struct

from exporter.core.events import Event
from exporter.core.text import cut

_LONGEST_URL: Final = 2_000
"""Longest link in characters, which any browser and proxy accepts. The Playground's is cut."""

_LABELS: Final = {
    "runbook": "Runbook",
    "details": "Details",
    "status_page": "Status page",
    "playground": "Playground",
    "grafana": "Grafana",
}

_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+)\}")
_HALF_HOUR: Final = 1800.0


class LinkTemplates(Struct, frozen=True):
    """URLs that messages link to.

    ``playground`` has ``{id}``; ``status_page`` is where users reach the agent's pages; ``grafana``
    has ``{account}``, ``{model_id}``, ``{id}``, ``{from_ms}`` and ``{to_ms}``.
    """

    playground: str
    status_page: str | None = None
    grafana: str | None = None


class Link(Struct, frozen=True):
    """A link; ``name`` is its key in JSON, ``text`` its label."""

    name: str
    text: str
    url: str


def fine_tune_path(account: str, fine_tune_id: str) -> str:
    """Return the path of a fine-tune's page, below the URL of the status page."""
    if fine_tune_id in {".", ".."}:  # browsers would remove it from a path
        return f"/fine-tunes/{quote(account, safe='')}/?fine_tune={fine_tune_id}"
    return f"/fine-tunes/{quote(account, safe='')}/{quote(fine_tune_id, safe='')}"


def details_url(event: Event | None, templates: LinkTemplates) -> str | None:
    """Return the URL of the page of an event's fine-tune; None if there is none."""
    if event is None or event.fine_tune is None or templates.status_page is None:
        return None
    path = fine_tune_path(event.account, event.fine_tune.id)
    url = f"{templates.status_page.rstrip('/')}{path}"
    return url if len(url) <= _LONGEST_URL else None  # a cut id is that of another fine-tune


def failures_url(templates: LinkTemplates) -> str | None:
    """Return the URL of the list of failed fine-tunes; None if there is none."""
    page = templates.status_page
    return None if page is None else f"{page.rstrip('/')}/fine-tunes?status=failed"


def playground_url(event: Event | None, templates: LinkTemplates) -> str:
    """Return the URL of an event's fine-tune in the Playground."""
    fine_tune_id = event.fine_tune.id if event is not None and event.fine_tune is not None else ""
    return templates.playground.replace("{id}", quote(cut(fine_tune_id), safe=""))


def grafana_url(
    event: Event, templates: LinkTemplates, trained_seconds: float | None
) -> str | None:
    """Return the URL of a dashboard at the time of an event; None if there is none.

    The time is that of the training that ended with the event, else the hour around the event. An
    event that has no value for a placeholder has no such URL.
    """
    begin, end = event.observed_at - _HALF_HOUR, event.observed_at + _HALF_HOUR
    if trained_seconds is not None:
        begin, end = event.observed_at - trained_seconds, event.observed_at
    values = {"account": event.account, "from_ms": str(int(begin * 1000))}
    values["to_ms"] = str(int(end * 1000))
    if event.fine_tune is not None:
        values |= {"id": event.fine_tune.id, "model_id": event.fine_tune.model_id}
    template = templates.grafana or ""
    if not all(values.get(name) for name in _PLACEHOLDER.findall(template)):
        return None
    url = _PLACEHOLDER.sub(lambda found: quote(values[found[1]], safe=""), template)
    return url if 0 < len(url) <= _LONGEST_URL else None


def labelled_links(**urls: str | None) -> tuple[Link, ...]:
    """Return links for people out of URLs by name, in this order, without those that are None."""
    return tuple(Link(name, _LABELS[name], url) for name, url in urls.items() if url)


def links(event: Event | None, templates: LinkTemplates) -> dict[str, str]:
    """Return the URLs of an event by their names in JSON; None stands for several events."""
    found = {
        "details": details_url(event, templates),
        "playground": playground_url(event, templates),
        "status_page": templates.status_page,
    }
    return {name: url for name, url in found.items() if url}
