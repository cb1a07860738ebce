"""Receiver type slack: incoming webhooks of Slack, and of services with the same format.

Limits and escaping: Slack's Block Kit reference and "Formatting text for app surfaces". All blocks
of a message together hold about 13,200 characters (undocumented); messages stay within 10,000.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, ClassVar, Final

from exporter.core.message import Link, Message
from exporter.core.model import OutboxMessage
from exporter.core.retry import Attempt, Outcome
from exporter.core.text import LONGEST, cut, one_line
from exporter.http_client import Response
from exporter.receivers.payload import variables
from exporter.receivers.receiver import REPEAT, Endpoint, answered, encoded, left_out, unanswered
from exporter.receivers.template import Template

# Characters, except for _FIELDS.
_MESSAGE: Final = 10_000
_TEXT: Final = 2_900  # the 3,000 of a section, less the line that says what was left out
_HEADER: Final = 150
_LINE: Final = 1_000
_FIELD: Final = 300
_FIELDS: Final = 10
_LINK: Final = 1_400  # two of them fit one text

_SLACK_HOSTS: Final = frozenset({"hooks.slack.com", "hooks.slack-gov.com"})

_ERRORS: Final = {
    **dict.fromkeys(
        (
            "action_prohibited",
            "channel_is_archived",
            "channel_not_found",
            "invalid_token",
            "no_active_hooks",
            "no_service",
            "no_service_id",
            "no_team",
            "posting_to_general_channel_denied",
            "team_disabled",
        ),
        Outcome.ENDPOINT,
    ),
    **dict.fromkeys(
        (
            "invalid_attachments",
            "invalid_blocks",
            "invalid_blocks_format",
            "invalid_payload",
            "missing_text_or_fallback_or_attachments",
            "msg_blocks_too_long",
            "no_text",
            "too_many_attachments",
            "user_not_found",
        ),
        Outcome.PAYLOAD,
    ),
}
"""Outcome by the error that an incoming webhook names; one error comes with different statuses.

Only these names are shown to people: another body could be anything.
"""

_ENTITIES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "'"})

_Block = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Slack:
    """A Slack channel.

    ``mention`` and ``text`` are the operator's and are not escaped. ``mention`` precedes the
    message; ``text`` is the template of a first line that replaces the title.
    """

    name: str
    endpoint: Endpoint
    mention: str = ""
    text: Template | None = None

    spacing: ClassVar[float] = 1.2  # Slack accepts one message a second per channel
    most_events: ClassVar[int] = 1_000_000_000  # one message, whatever its size

    @property
    def seconds(self) -> float:
        """The timeout of one attempt."""
        return self.endpoint.seconds

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        """Return the JSON body; the minimal one is one plain ASCII line without blocks.

        Raises TemplateError when ``text`` cannot be rendered; the minimal form does not use it.
        """
        line = "" if minimal or self.text is None else _first_line(self.text, message)
        first = _ascii(message) if minimal else line or _escaped(message.title, _LINE)
        fallback = f"{self.mention} {first}".strip()
        body: dict[str, Any] = {"text": fallback}
        if not minimal:
            top = [_section(fallback)] if line else _title(message.title, self.mention)
            room = _MESSAGE - len(fallback) - 2 * len(REPEAT) - 1
            body["blocks"] = _blocks(message, top, room)
        body |= {"unfurl_links": False, "unfurl_media": False}
        return encoded(body)

    def repeated(self, body: bytes) -> bytes:
        """Return the body with the line REPEAT: Slack has no field that identifies a repeat."""
        message = json.loads(body)
        message["text"] += f"\n{REPEAT}"
        if "blocks" in message:
            message["blocks"].append({"type": "context", "elements": [_plain(REPEAT, _TEXT)]})
        return encoded(message)

    async def send(self, delivery: OutboxMessage, now: float) -> Attempt:
        """Send the bytes once and return the outcome; Slack itself accepts with ``ok`` only."""
        answer = await self.endpoint.post(delivery.body, {})
        return answer if isinstance(answer, Attempt) else _outcome(answer, now)


def _outcome(answer: Response, now: float) -> Attempt:
    """Return the outcome by the error that Slack names, else by the status."""
    result = answered(answer, now)
    by_slack = answer.host in _SLACK_HOSTS
    if answer.error is not None and by_slack and result.outcome is Outcome.DELIVERED:
        return unanswered(answer.error)
    said = answer.body.strip().decode("ascii", "replace")
    if said in _ERRORS and answer.status != HTTPStatus.TOO_MANY_REQUESTS:
        return replace(result, outcome=_ERRORS[said], reason=f"{result.reason} {said}")
    if result.outcome is Outcome.DELIVERED and by_slack and said != "ok":
        return Attempt(Outcome.PAYLOAD, f"{result.reason}, but not ok")
    return result


def _ascii(message: Message) -> str:
    """Return the message type and the ids in one ASCII line, which no service can refuse."""
    ids = (one_line(event.subject or event.account) for event in message.events)
    listed = _escaped(f"{message.type}: {' '.join(ids)}", 1_000)
    return listed.replace("…", "...").encode("ascii", "replace").decode()


def _first_line(template: Template, message: Message) -> str:
    """Return the operator's first line; it can be empty."""
    text = one_line(template.render(variables(message, escape_text)), 2 * _LINE)
    if len(text) <= _LINE:
        return text
    # Not in the middle of an entity, a mention or a link.
    return re.sub(r"(&[a-z]*|<[^>]*)$", "", text[: _LINE - 1]) + "…"


def escape_text(text: str) -> str:
    """Return text from the API for use in Slack's markup: one line, with nothing that is markup."""
    return _escaped(one_line(text), LONGEST)


def _title(title: str, mention: str) -> list[_Block]:
    header: _Block = {"type": "header", "text": _plain(title, _HEADER)}
    return [header, _section(mention)] if mention else [header]


def _blocks(message: Message, top: list[_Block], budget: int) -> list[_Block]:
    if message.facts:
        top.append(_fields(message.facts[:_FIELDS]))
    if message.text:
        top.append({"type": "section", "text": _plain(message.text, _TEXT)})
    bottom: list[_Block] = []
    if linked := _links(message.links):
        bottom.append({"type": "context", "elements": [_markdown(linked)]})
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


def _fields(facts: Sequence[tuple[str, str]]) -> _Block:
    texts = (f"*{_escaped(name, 100)}*\n{_escaped(value, _FIELD)}" for name, value in facts)
    return {"type": "section", "fields": [_markdown(text) for text in texts]}


def _links(links: Sequence[Link]) -> str:
    encoded = str.maketrans({"<": "%3C", ">": "%3E", "|": "%7C", "&": "&amp;"})
    linked = (f"<{link.url.translate(encoded)}|{link.text}>" for link in links)
    return " · ".join(text for text in linked if len(text) <= _LINK)


def _section(text: str) -> _Block:
    return {"type": "section", "text": _markdown(text)}


def _markdown(text: str) -> _Block:
    # verbatim: else Slack turns names and channels in the text into links and mentions.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _plain(text: str, most: int) -> _Block:
    return {"type": "plain_text", "text": cut(text, most), "emoji": False}


def _escaped(text: str, most: int) -> str:
    """Return at most ``most`` characters in which nothing is a mention, a link or code."""
    escaped = text.translate(_ENTITIES)
    if len(escaped) <= most:
        return escaped
    # Not in the middle of an entity.
    return re.sub(r"&[a-z]*$", "", escaped[: most - 1]) + "…"


def _size(blocks: Iterable[_Block]) -> int:
    texts = (
        text
        for block in blocks
        for text in (block.get("text"), *block.get("fields", ()), *block.get("elements", ()))
    )
    return sum(len(text["text"]) for text in texts if text)
