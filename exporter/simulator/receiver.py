"""Receiver of the demo: accepts messages for Slack and webhooks, and describes them.

It refuses what Slack would refuse, by the limits of docs.slack.dev/reference/block-kit/blocks.
"""

import html
import json
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

MAX_BODY = 1024 * 1024
MAX_LINE = 200

MAX_BLOCKS = 50
MAX_SECTION_TEXT = 3000
MAX_HEADER_TEXT = 150
MAX_FIELDS = 10
MAX_FIELD_TEXT = 2000
MAX_CONTEXT_ELEMENTS = 10


@dataclass(frozen=True, slots=True)
class Message:
    """An accepted message, with the names of its headers in lower case.

    `payload` is the parsed JSON of the body, None when the body is not JSON.
    """

    receiver_type: Literal["slack", "webhook"]
    headers: dict[str, str]
    body: bytes
    payload: Any


class Inbox:
    """The last 1000 messages, oldest first; calls `on_message` with each new one."""

    def __init__(self, on_message: Callable[[Message], None] | None = None) -> None:
        self.messages: deque[Message] = deque(maxlen=1000)
        self._on_message = on_message

    def add(self, message: Message) -> None:
        """Append a message and call `on_message` with it."""
        self.messages.append(message)
        if self._on_message is not None:
            self._on_message(message)


def create_receiver(inbox: Inbox) -> Starlette:
    """Return an application that adds the messages posted to /slack and /webhook to `inbox`.

    /slack responds as an incoming webhook of Slack does: 200 `ok`, or 400 and the name of the error
    (docs.slack.dev/messaging/sending-messages-using-incoming-webhooks). /webhook responds 204 to
    everything. Both respond 413 to a body above 1 MiB.
    """

    async def slack(request: Request) -> Response:
        body = await _body(request)
        payload = _parse_json(body)
        refusal = slack_refusal(payload)
        if refusal is not None:
            return PlainTextResponse(refusal, HTTPStatus.BAD_REQUEST)
        inbox.add(Message("slack", dict(request.headers), body, payload))
        return PlainTextResponse("ok")

    async def webhook(request: Request) -> Response:
        body = await _body(request)
        inbox.add(Message("webhook", dict(request.headers), body, _parse_json(body)))
        return Response(status_code=HTTPStatus.NO_CONTENT)

    return Starlette(
        routes=[
            Route("/slack", slack, methods=["POST"]),
            Route("/webhook", webhook, methods=["POST"]),
        ]
    )


def slack_refusal(payload: Any) -> str | None:
    """Return the name of the error that Slack would respond with, or None."""
    if not isinstance(payload, dict):
        return "invalid_payload"
    text, blocks = payload.get("text") or "", payload.get("blocks") or []
    if not text and not blocks:
        return "no_text"
    if not isinstance(text, str):
        return "invalid_payload"
    if not isinstance(blocks, list) or len(blocks) > MAX_BLOCKS:
        return "invalid_blocks"
    return None if all(_is_block(block) for block in blocks) else "invalid_blocks"


def describe(message: Message) -> str:
    """Return one printable line about a message, without characters that control a terminal."""
    payload = message.payload if isinstance(message.payload, dict) else {}
    if message.receiver_type == "slack":
        text = payload.get("text") or _first_text(payload["blocks"])
        text = text.strip().partition("\n")[0]  # the title
    elif isinstance(payload.get("type"), str):
        text = f"{payload['type']} {_subject(payload.get('data'))}"
    else:
        text = message.body[: 4 * MAX_LINE].decode(errors="replace")
    return _printable(f"{message.receiver_type}: {text.strip()}")


def slack_text(message: Message) -> list[str]:
    """Return the printable lines of a message for Slack, as a person reads them there.

    A link is its text and its URL, except in the title; a time is the one in UTC.
    """
    blocks = message.payload.get("blocks") if isinstance(message.payload, dict) else None
    lines: list[str] = []
    for block in blocks or []:
        title = _lines(block.get("text"))
        lines += title if lines else [re.sub(r": https?://\S*$", "", line) for line in title]
        for element in block.get("elements", ()):
            lines += [part for line in _lines(element) for part in line.split(" \u00b7 ")]
    return [_printable(line) for line in lines]


def _lines(text: Any) -> list[str]:
    return _plain_text(text).split("\n") if text else []


def _plain_text(text: Any) -> str:
    """Return a text object without markup."""
    shown = str(text.get("text", "")) if isinstance(text, dict) else ""
    if not isinstance(text, dict) or text.get("type") != "mrkdwn":
        return shown
    shown = re.sub(r"<!date\^[^|>]*\|([^>]*)>", r"\1", re.sub(r"\*([^*\n]*)\*", r"\1", shown))
    shown = re.sub(r"<(https?://[^|>]*)\|([^>]*)>", r"\2: \1", shown)
    return html.unescape(shown)


def _printable(text: str) -> str:
    line = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
    return line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "\u2026"


async def _body(request: Request) -> bytes:
    """Return the body; raise HTTPException 413 as soon as it exceeds MAX_BODY."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return bytes(body)


def _parse_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _is_block(block: Any) -> bool:
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        return False
    if block["type"] == "section":
        return _is_section(block)
    if block["type"] == "header":
        return _is_text(block.get("text"), MAX_HEADER_TEXT)
    if block["type"] == "context":
        elements = block.get("elements")
        return isinstance(elements, list) and 1 <= len(elements) <= MAX_CONTEXT_ELEMENTS
    return True


def _is_section(block: dict[str, Any]) -> bool:
    fields = block.get("fields", [])
    if not isinstance(fields, list) or len(fields) > MAX_FIELDS:
        return False
    if "text" not in block and not fields:
        return False
    return ("text" not in block or _is_text(block["text"], MAX_SECTION_TEXT)) and all(
        _is_text(text, MAX_FIELD_TEXT) for text in fields
    )


def _is_text(value: Any, longest: int) -> bool:
    """Return whether a value is a text object of 1 to `longest` characters."""
    text = value.get("text") if isinstance(value, dict) else None
    return isinstance(text, str) and 1 <= len(text) <= longest


def _first_text(blocks: list[dict[str, Any]]) -> str:
    for block in blocks:
        text = block.get("text")
        if isinstance(text, dict) and "text" in text:
            return str(text["text"])
    return f"{len(blocks)} blocks"


def _subject(data: Any) -> str:
    """Return the fine-tune's name and id, or the number of events of a digest."""
    if not isinstance(data, dict):
        return ""
    if isinstance(data.get("events"), list):
        return f"{len(data['events'])} events"
    fine_tune = data.get("fine_tune")
    if not isinstance(fine_tune, dict):
        return ""
    return f"{fine_tune.get('name')} ({fine_tune.get('id')})"
