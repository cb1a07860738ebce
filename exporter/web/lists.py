"""Content of the pages with lists: fine-tunes and notifications."""

from typing import Any, Final

from msgspec.structs import replace

from exporter.core.model import STATUSES
from exporter.core.text import format_duration
from exporter.store.event_lists import EventFilter
from exporter.store.fine_tunes import REMOVED, STUCK, FineTuneFilter, Sort
from exporter.web.mute_list import mutes_section
from exporter.web.query import DELIVERY_STATES, EVENT_WORDS, LONGEST_TEXT, Query
from exporter.web.view import View

FINE_TUNES: Final = "/fine-tunes"
NOTIFICATIONS: Final = "/notifications"

_MOST_MODELS: Final = 200

_TABS: Final = (
    ("failed", "Failed", "failed", "failed"),
    (STUCK, "Stuck", "stuck", "warn"),
    ("training", "Training", "training", "training"),
    ("created", "Created", "created", "created"),
    ("completed", "Completed", "completed", "completed"),
    ("unknown", "Unknown", "unknown", "unknown"),
    (REMOVED, "Removed", "", ""),
)

_COLUMNS: Final[tuple[tuple[str, str, Sort | None], ...]] = (
    ("Status", "c-st", "status"),
    ("Name", "", "name"),
    ("Account, model", "c-mod", "model_id"),
    ("Dataset", "c-set", "dataset"),
    ("Changed", "c-at", "since"),
    ("In training", "c-dur", None),
)


def fine_tune_filter(query: Query, now: float) -> FineTuneFilter:
    """Return the criteria of a query at ``now`` (Unix seconds)."""
    return FineTuneFilter(
        query.account,
        query.status,
        query.model_id,
        query.dataset,
        query.q,
        None if query.since is None else now - query.since,
    )


def event_filter(query: Query, now: float) -> EventFilter:
    """Return the criteria of a query at ``now`` (Unix seconds)."""
    return EventFilter(
        query.account,
        query.fine_tune,
        query.event_types,
        query.status,
        query.q,
        None if query.since is None else now - query.since,
        query.receiver,
        query.state,
    )


def fine_tunes_page(view: View, query: Query) -> dict[str, Any]:
    """Return the variables of the list of fine-tunes. Raises UnknownCursorError."""
    criteria = fine_tune_filter(query, view.now.timestamp())
    page = view.fine_tunes.page(criteria, query.page, query.sort)
    unfiltered = replace(criteria, statuses=()) == FineTuneFilter()
    counts = view.status_counts if unfiltered else view.fine_tunes.counts(criteria)
    next_url = ""
    if page.has_more:
        last = page.elements[-1]
        next_url = query.url(FINE_TUNES, starting_after=last.id, after_account=last.account)
    return {
        "query": _form(query),
        "rows": page.elements,
        "total": sum(view.status_counts.get(each, 0) for each in STATUSES),
        "tabs": _tabs(query, counts),
        "columns": [_column(query, *each) for each in _COLUMNS],
        "accounts": [each.name for each in view.settings.accounts],
        "models": [m for m in view.fine_tunes.model_ids(_MOST_MODELS) if len(m) <= LONGEST_TEXT],
        "filtered": query.url("", sort="-since") != "",
        "first_url": query.url(FINE_TUNES) if query.starting_after else "",
        "next_url": next_url,
    }


def _form(query: Query) -> dict[str, Any]:
    """Return the values of the form's fields."""
    changed = format_duration(query.since) if query.since is not None else ""
    return {
        "q": query.q,
        "account": query.account or "",
        "model_id": query.model_id or "",
        "dataset": query.dataset or "",
        "status": query.status,
        "receiver": query.receiver or "",
        "state": query.state[0] if query.state else "",
        "type": query.type[0] if query.type else "",
        "sort": "" if query.sort == "-since" else query.sort,
        "changed": {"1d": "24h"}.get(changed, changed),
    }


def _tabs(query: Query, counts: dict[str, int]) -> list[dict[str, Any]]:
    tabs: list[dict[str, Any]] = [
        {
            "text": "All",
            "number": sum(counts.get(each, 0) for each in STATUSES),
            "url": query.url(FINE_TUNES, status=()),
            "current": not query.status,
            "sign": "",
            "class": "",
        }
    ]
    for status, text, sign, css in _TABS:
        tabs.append(
            {
                "text": text,
                "number": counts.get(status, 0),
                "url": query.url(FINE_TUNES, status=(status,)),
                "current": query.status == (status,),
                "sign": sign,
                "class": css,
            }
        )
    return tabs


def _column(query: Query, text: str, css: str, sort: Sort | None) -> dict[str, str]:
    if sort is None:
        return {"text": text, "class": css, "url": "", "order": ""}
    descends = query.sort == f"-{sort}"
    order = "descending" if descends else "ascending" if query.sort == sort else ""
    # The newest first by default, names from A on; a second click turns the order.
    turned = sort if descends else f"-{sort}"
    other = turned if order else ("-since" if sort == "since" else sort)
    url = query.url(FINE_TUNES, sort=other)
    return {"text": text, "class": css, "url": url, "order": order}


def notifications_page(view: View, query: Query) -> dict[str, Any]:
    """Return the variables of the page of receivers and deliveries. Raises UnknownCursorError."""
    criteria = event_filter(query, view.now.timestamp())
    page = view.events.deliveries(criteria, query.page)
    next_url = ""
    if page.has_more:
        next_url = query.url(NOTIFICATIONS, starting_after=page.elements[-1].id)
    return {
        "query": _form(query),
        "receivers": view.receivers,
        "replicas": view.replicas,
        "summary": {
            "delivered": sum(each.delivered_7d for each in view.receivers),
            "waiting": view.trust.waiting,
            "muted": sum(each.muted for each in view.receivers),
            "dead": sum(each.dead for each in view.receivers),
        },
        **mutes_section(view, query.added),
        "deliveries": page.elements,
        "delivery_states": DELIVERY_STATES,
        "event_words": tuple(EVENT_WORDS),
        "filtered": query.url("") != "",
        "first_url": query.url(NOTIFICATIONS) if query.starting_after else "",
        "next_url": next_url,
    }
