"""Receiver type slack: incoming webhooks of Slack, and of services with the same format.

Limits and escaping: Slack's Block Kit reference and "Formatting text for app surfaces". All blocks
of a message together hold about 13,200 characters (undocumented); messages stay within 10,000.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from exporter.core.mentions import Mentions
from exporter.core.message import Message
from exporter.core.model import OutboxMessage
from exporter.core.retry import Attempt
from exporter.core.text import LONGEST, cut, one_line
from exporter.receivers.payload import variables
from exporter.receivers.receiver import REPEAT, Endpoint, encoded, left_out
from exporter.receivers.slack_answer import slack_attempt
from exporter.receivers.template import Template

# Characters, except for _FIELDS.
_MESSAGE: Final = 10_000
_TEXT: Final = 2_900  # the 3,000 of a section, less the line that says what was left out
_HEADER: Final = 150
_LINE: Final = 1_000
_FIELD: Final = 300
_FIELDS: Final = 10
_LINK: Final = 900  # three of them fit one text
_DETAILS: Final = 2_500  # of ``text`` below its first line

_ENTITIES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "'"})
_URL: Final = str.maketrans({"<": "%3C", ">": "%3E", "|": "%7C", "&": "&amp;"})

_Block = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Slack:
    """A Slack channel.

    ``mentions`` and ``text`` are the operator's and are not escaped. ``mentions`` precede the
    message; ``text`` is the template of a first line that replaces the title.
    """

    name: str
    endpoint: Endpoint
    mentions: Mentions = field(default_factory=Mentions)
    text: Template | None = None

    spacing: ClassVar[float] = 1.2  # Slack accepts one message a second per channel
    most_events: ClassVar[int] = 1_000_000_000  # one message, whatever its size

    @property
    def seconds(self) -> float:
        """The timeout of one attempt."""
        return self.endpoint.seconds

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        """Return the JSON body; raise TemplateError if ``text`` fails, unless it is minimal."""
        line = ""  # the operator's; it can be rendered as nothing
        if not minimal and self.text is not None:
            text = self.text.render(variables(message, escape_text))
            line = _cut_markup(one_line(text, 2 * _LINE), _LINE)
        first = _ascii(message) if minimal else line or _escaped(message.title, _LINE)
        mention = self.mentions.of(message.events)
        first = f"{mention} {first}".strip()
        body: dict[str, Any] = {"text": first}
        if not minimal:
            body["text"] = f"{first}\n{_details(message)}"
            top: list[_Block] = [_title(message)]
            if line:
                top = [_section(first)]
            elif mention:
                top.append(_section(mention))
            room = _MESSAGE - len(body["text"]) - 2 * len(REPEAT) - 1
            body["blocks"] = _blocks(message, top, room)
        return encoded(body | {"unfurl_links": False, "unfurl_media": False})

    def repeated(self, body: bytes) -> bytes:
        """Return the body with the line REPEAT: Slack has no field that identifies a repeat."""
        message = json.loads(body)
        message["text"] += f"\n{REPEAT}"
        if "blocks" in message:
            message["blocks"].append({"type": "context", "elements": [_plain(REPEAT, _TEXT)]})
        return encoded(message)

    async def send(self, delivery: OutboxMessage, now: float) -> Attempt:
        """Send the bytes once and return the outcome."""
        response = await self.endpoint.post(delivery.body, {})
        return response if isinstance(response, Attempt) else slack_attempt(response, now)


def _title(message: Message) -> _Block:
    """Return the title, which leads to the fine-tune's page if there is one."""
    details = next((each.url for each in message.links if each.name == "details"), "")
    if not details or len(details) > _LINK:
        return {"type": "header", "text": _plain(message.title, _HEADER)}
    title = _escaped(message.title, _HEADER)
    return _section(f"*<{details.translate(_URL)}|{title}>*")


def _details(message: Message) -> str:
    """Return the message below its title, for services and notifications without blocks."""
    facts = " · ".join(
        f"{_escaped(name, 60)}: {_escaped(value, 110)}" for name, value in message.facts[:_FIELDS]
    )
    head = [facts, _escaped(message.text, 300)]
    links = _links(message, 300)
    room = _DETAILS - sum(map(len, (*head, links, left_out(10**9)))) - 5  # line breaks
    lines, named = _pack(message.lines, "\n", room)
    missing = len(message.lines) - named + len(message.rest)
    return "\n".join(filter(None, (*head, *lines, left_out(missing) if missing else "", links)))


def _links(message: Message, most: int) -> str:
    """Return the links whose markup has at most ``most`` characters."""
    linked = (f"<{link.url.translate(_URL)}|{link.text}>" for link in message.links)
    return " · ".join(text for text in linked if len(text) <= most)


def _ascii(message: Message) -> str:
    """Return the message type and the ids in one ASCII line, which no service can refuse."""
    ids = (one_line(event.subject or event.account) for event in message.events)
    listed = _escaped(f"{message.type}: {' '.join(ids)}", _LINE)
    return listed.replace("…", "...").encode("ascii", "replace").decode()


def escape_text(text: str) -> str:
    """Return text from the API for use in Slack's markup: one line, with nothing that is markup."""
    return _escaped(one_line(text), LONGEST)


def _blocks(message: Message, top: list[_Block], budget: int) -> list[_Block]:
    fields = [
        _markdown(f"*{_escaped(name, 100)}*\n{_escaped(value, _FIELD)}")
        for name, value in message.facts[:_FIELDS]
    ]
    if fields:
        top.append({"type": "section", "fields": fields})
    if message.text:
        top.append({"type": "section", "text": _plain(message.text, _TEXT)})
    links = _links(message, _LINK)
    bottom = [{"type": "context", "elements": [_markdown(links)]}] if links else []
    room = budget - _size([*top, *bottom]) - len(left_out(0)) - 10  # ten digits
    lines, named = _pack(message.lines, "\n", room)
    ids, listed = _pack(message.rest, ", ", room - sum(map(len, lines)))
    missing = len(message.lines) - named + len(message.rest) - listed
    more = [left_out(missing)] if missing else []
    return [*top, *(_section(text) for text in (*lines, *ids, *more)), *bottom]


def _pack(items: Sequence[str], separator: str, room: int) -> tuple[list[str], int]:
    """Return texts of at most _TEXT characters with the items, and the number of items that fit."""
    texts: list[str] = []
    for number, item in enumerate(items):
        added = _escaped(item, _TEXT)
        joined = f"{texts[-1]}{separator}{added}" if texts else added
        if sum(map(len, texts)) + len(separator) + len(added) > room:
            return texts, number
        if texts and len(joined) <= _TEXT:
            texts[-1] = joined
        else:
            texts.append(added)
    return texts, len(items)


def _section(text: str) -> _Block:
    return {"type": "section", "text": _markdown(text)}


def _markdown(text: str) -> _Block:
    # verbatim: else Slack turns names and channels in the text into links and mentions.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _plain(text: str, most: int) -> _Block:
    return {"type": "plain_text", "text": cut(text, most), "emoji": False}


def _escaped(text: str, most: int) -> str:
    """Return at most ``most`` characters in which nothing is a mention, a link or code."""
    return _cut_markup(text.translate(_ENTITIES), most)


def _cut_markup(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    # Not in the middle of an entity, a mention or a link.
    return re.sub(r"(&[a-z]*|<[^>]*)$", "", text[: most - 1]) + "…"


def _size(blocks: Iterable[_Block]) -> int:
    texts = (
        text
        for block in blocks
        for text in (block.get("text"), *block.get("fields", ()), *block.get("elements", ()))
    )
    return sum(len(text["text"]) for text in texts if text)
