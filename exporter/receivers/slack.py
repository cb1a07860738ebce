"""Receiver type slack: incoming webhooks of Slack, and of services with the same format.

Limits and escaping: Slack's Block Kit reference and "Formatting text for app surfaces". All blocks
of a message together hold about 13,200 characters (undocumented); messages stay within 10,000.
Slack shows the blocks; Mattermost, other services and notifications show ``text``, which says the
same without Slack's dates.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from exporter.core.mentions import Mentions
from exporter.core.message import Line, Message
from exporter.core.model import OutboxMessage
from exporter.core.retry import Attempt
from exporter.core.text import LONGEST, one_line
from exporter.receivers.payload import variables
from exporter.receivers.receiver import REPEAT, Endpoint, encoded, left_out
from exporter.receivers.slack_answer import slack_attempt

if TYPE_CHECKING:
    from exporter.receivers.template import Template

# Characters.
_MESSAGE: Final = 10_000
_SECTION: Final = 2_900  # the 3,000 of a section, less the line that says what was left out
_TITLE: Final = 150
_LINE: Final = 1_000
_VALUE: Final = 110
_PROSE: Final = 300  # of what people wrote
_LINK: Final = 900  # three of them fit one text
_SHORT_LINK: Final = 300  # in ``text``
_HEAD: Final = 1_300  # of ``text``, between title and lines
_DETAILS: Final = 2_500  # of ``text`` below its first line

_ENTITIES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "'"})
_URL: Final = str.maketrans({"<": "%3C", ">": "%3E", "|": "%7C", "&": "&amp;"})

_Block = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Slack:
    """A Slack channel.

    ``mentions`` and ``text`` are the operator's and are not escaped. ``mentions`` are beside the
    title; ``text`` is the template of a first line that replaces the title.
    """

    name: str
    endpoint: Endpoint
    mentions: Mentions = field(default_factory=Mentions)
    text: "Template | None" = None

    spacing: ClassVar[float] = 1.2  # Slack accepts one message a second per channel
    most_events: ClassVar[int] = 1_000_000_000  # one message, whatever its size

    @property
    def seconds(self) -> float:
        """The timeout of one attempt."""
        return self.endpoint.seconds

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        """Return the JSON body; raise TemplateError if ``text`` fails, unless it is minimal."""
        mention = self.mentions.of(message.events)
        if minimal:
            return _body(f"{mention} {_ascii(message)}".strip())
        line = ""  # the operator's; it can be rendered as nothing
        if self.text is not None:
            text = self.text.render(variables(message, escape_text))
            line = _cut_markup(one_line(text, 2 * _LINE), _LINE)
        first = line or f"{message.sign} {_escaped(message.title, _PROSE)}"
        first = f"{mention} {first}".strip()
        title = first if line else f"{_title(message)} {mention}".strip()
        text = f"{first}\n{_details(message)}"
        room = _MESSAGE - len(text) - 2 * len(REPEAT) - 1
        return _body(text, _blocks(message, title, room))

    def repeated(self, body: bytes) -> bytes:
        """Return the body with the line REPEAT: Slack has no field that identifies a repeat."""
        message = json.loads(body)
        message["text"] += f"\n{REPEAT}"
        if "blocks" in message:
            message["blocks"].append({"type": "context", "elements": [_plain(REPEAT)]})
        return encoded(message)

    async def send(self, delivery: OutboxMessage, now: float) -> Attempt:
        """Send the bytes once and return the outcome."""
        response = await self.endpoint.post(delivery.body, {})
        return response if isinstance(response, Attempt) else slack_attempt(response, now)


def _body(text: str, blocks: Sequence[_Block] = ()) -> bytes:
    body = {"text": text, **({"blocks": blocks} if blocks else {})}
    return encoded(body | {"unfurl_links": False, "unfurl_media": False})


def _title(message: Message) -> str:
    title = _escaped(message.title, _TITLE)
    if 0 < len(url := message.url.translate(_URL)) <= _LINK:
        title = f"<{url}|{title}>"
    return f"{message.sign} *{title}*"


def _head(message: Message) -> list[str]:
    """Return the lines below the title, the most important first."""
    facts = (
        f"{_escaped(fact.name, 60)} {_escaped(fact.value, _VALUE)}"
        for fact in message.facts
        if fact.at is None
    )
    lines = (
        _escaped(message.note, _PROSE),
        _escaped(" · ".join(message.highlights), 2 * _PROSE),
        _cut_markup(" · ".join(facts), _LINE),
        _escaped(message.text, _PROSE if message.id else _LINE),
    )
    return [line for line in lines if line]


def _foot(message: Message, *, with_dates: bool) -> str:
    """Return the id and the times, in the reader's zone if it is ``with_dates``."""
    times = (
        f"{fact.name} {_date(fact.at, fact.value) if with_dates else fact.value}"
        for fact in message.facts
        if fact.at is not None
    )
    return " · ".join([*([_code(message.id)] if message.id else []), *times])


def _date(at: float, fallback: str) -> str:
    return f"<!date^{int(at)}^{{date_short_pretty}} {{time}}|{fallback}>"


def _code(text: str) -> str:
    return f"`{_escaped(text, _VALUE)}`"


def _details(message: Message) -> str:
    """Return the message below its title, for services and notifications without blocks."""
    head = [_cut_markup("\n".join(_head(message)), _HEAD), _foot(message, with_dates=False)]
    links = _links(message, _SHORT_LINK)
    room = _DETAILS - sum(len(each) + 1 for each in (*head, links, left_out(10**9)))
    lines, named = _pack(_lines(message, linked=False), "\n", room)
    missing = len(message.lines) - named + len(message.rest)
    more = [left_out(missing)] if missing else []
    return "\n".join(filter(None, [*head, *lines, *more, links]))


def _lines(message: Message, *, linked: bool) -> list[str]:
    bullet = "• " if len(message.lines) > 1 else ""
    return [f"{bullet}{_line(line, linked=linked)}" for line in message.lines]


def _line(line: Line, *, linked: bool) -> str:
    name, url = _escaped(line.name, _PROSE), line.url.translate(_URL)
    if linked and url and len(url) <= _LINK:
        name = f"<{url}|{name}>"
    details = (_escaped(each, _VALUE) for each in line.details)
    return " · ".join(filter(None, (name, line.id and _code(line.id), *details)))


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


def _blocks(message: Message, title: str, budget: int) -> list[_Block]:
    top = _section(_cut_markup("\n".join([title, *_head(message)]), _SECTION))
    foot = [_foot(message, with_dates=True), _links(message, _LINK)]
    elements = [_markdown(text) for text in foot if text]
    bottom = [{"type": "context", "elements": elements}] if elements else []
    listing = _listing(message, budget - _size([top, *bottom]))
    return [top, *map(_section, listing), *bottom]


def _listing(message: Message, room: int) -> list[str]:
    """Return the lines and ids in texts of sections; lines have links if all of them fit then."""
    room -= len(left_out(10**9))
    texts: list[str] = []
    for linked in (True, False):
        lines = _lines(message, linked=linked)
        texts, named = _pack(lines, "\n", room)
        ids, listed = _pack(
            [_escaped(each, _LINE) for each in message.rest], ", ", room - sum(map(len, texts))
        )
        texts += ids
        missing = len(lines) - named + len(message.rest) - listed
        if not missing:
            return texts
    return [*texts, left_out(missing)]


def _pack(items: Sequence[str], separator: str, room: int) -> tuple[list[str], int]:
    """Return texts of sections with the items, and the number of items that fit in all."""
    texts: list[str] = []
    for number, item in enumerate(items):
        joined = f"{texts[-1]}{separator}{item}" if texts else item
        if sum(map(len, texts)) + len(separator) + len(item) > room:
            return texts, number
        if texts and len(joined) <= _SECTION:
            texts[-1] = joined
        else:
            texts.append(item)
    return texts, len(items)


def _section(text: str) -> _Block:
    return {"type": "section", "text": _markdown(text)}


def _markdown(text: str) -> _Block:
    # verbatim: else Slack turns names and channels in the text into links and mentions.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _plain(text: str) -> _Block:
    return {"type": "plain_text", "text": text, "emoji": False}


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
