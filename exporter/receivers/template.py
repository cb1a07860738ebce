"""A webhook's body out of the operator's own templates, and what these see of a message.

The names are a promise: docs/webhook.md lists them.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from exporter.core.message import Message
from exporter.core.model import STATUSES
from exporter.core.text import LONGEST, cut
from exporter.receivers.receiver import encoded
from exporter.receivers.sandbox import Budget, Template, TemplateError
from exporter.receivers.standard import (
    MOST_EVENTS,
    event_body,
    last_timestamp,
    standard_body,
)

NAMES: Final = ("type", "timestamp", "title", "text", "data", "events", "count")
"""The variables of a template."""

_FACTS: Final = ("since", "reason", "receiver", "text", "total", *STATUSES)

ABSENT: Final = dict.fromkeys(
    ("previous_status", "fine_tune", *_FACTS, "failed_ones", "failed_unnamed")
)
"""Null where an event has none, so that ``{% if data.fine_tune %}`` can ask."""

Path = tuple[str | int, ...]
Clean = Callable[[str], str]

_LONGEST_BODY: Final = 512 * 1024
_LONGEST_TEXT: Final = 8_000


def variables(
    message: Message, clean: Clean | None = None, *, minimal: bool = False
) -> dict[str, Any]:
    """Return what a template sees of a message; ``clean`` is applied to each text in it.

    There are at most 100 events, and no text that came from outside is longer than 1,000
    characters. The minimal form leaves out what people wrote.
    """
    shown = message.events[:MOST_EVENTS]
    events = [_complete(event_body(event, message.pages, minimal=minimal)) for event in shown]
    found = {
        "type": message.type,
        "timestamp": last_timestamp(message),
        "title": message.type if minimal else cut(message.title),
        "text": "" if minimal else cut(_text(message), _LONGEST_TEXT),
        "data": events[0]["data"],
        "events": events,
        "count": len(message.events),
    }
    return found if clean is None else _cleaned(found, clean)


def _complete(body: dict[str, Any]) -> dict[str, Any]:
    data = ABSENT | body["data"]
    links = data["links"].items()
    data["links"] = {name: url if url and len(url) <= LONGEST else None for name, url in links}
    if data["fine_tune"] is not None:
        data["fine_tune"] = {"name": "", "description": ""} | data["fine_tune"]
    return body | {"data": data}


def _text(message: Message) -> str:
    facts = (f"{name}: {value}" for name, value in message.facts)
    more = (f"and {len(message.rest)} more",) if message.rest else ()
    return "\n".join(filter(None, (*facts, message.text, *message.lines, *more)))


def _cleaned(value: Any, clean: Clean) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {name: _cleaned(item, clean) for name, item in value.items()}
    return [_cleaned(item, clean) for item in value] if isinstance(value, list) else value


class TemplateBody:
    """A webhook's body: the operator's map, with its texts rendered and everything else kept."""

    def __init__(self, template: Mapping[str, Any]) -> None:
        """Compile the texts of a map of JSON's types; raise TemplateError when one can't be."""
        self._template = each_text(template, lambda _, text: Template(text, NAMES))

    def __call__(self, message: Message, *, minimal: bool) -> bytes:
        """Return the map as JSON; raise TemplateError when it can't be rendered within bounds.

        The minimal form never raises: it is the map without what people wrote or, when not even
        that can be rendered, the standard body.
        """
        if not minimal:
            return self._rendered(variables(message))
        try:
            return self._rendered(variables(message, minimal=True))
        except TemplateError:
            return standard_body(message, minimal=True)

    def _rendered(self, seen: Mapping[str, Any]) -> bytes:
        budget = Budget()
        body = encoded(each_text(self._template, lambda _, text: text.render(seen, budget)))
        if len(body) > _LONGEST_BODY:
            raise TemplateError(f"makes a body of more than {_LONGEST_BODY // 1024} KiB")
        return body


def each_text(value: Any, change: Callable[[Path, Any], Any], path: Path = ()) -> Any:
    """Return a copy of a map or a list in which each text, or template, is changed."""
    if isinstance(value, Mapping):
        return {key: each_text(item, change, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [each_text(item, change, (*path, number)) for number, item in enumerate(value)]
    if not isinstance(value, str | Template):
        return value
    try:
        return change(path, value)
    except TemplateError as error:
        raise TemplateError(f"{'.'.join(map(str, path))}: {error}") from None
