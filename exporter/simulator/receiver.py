"""The demo's receiver: takes what the agent sends to Slack and to webhooks, and shows it.

It refuses what Slack would refuse, by the limits of docs.slack.dev/reference/block-kit/blocks.
"""

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
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
    """A message that was accepted: where, its headers (names in lower case), its body as sent.

    `payload` is the body's JSON, None when it is none.
    """

    kind: Literal["slack", "webhook"]
    headers: dict[str, str]
    body: bytes
    payload: Any


class Inbox:
    """The last `keep` messages, oldest first; `on_message` is called with each as it arrives."""

    def __init__(
        self, on_message: Callable[[Message], None] | None = None, keep: int = 1000
    ) -> None:
        self.messages: deque[Message] = deque(maxlen=keep)
        self._on_message = on_message

    def take(self, message: Message) -> None:
        """Keep a message and tell whoever listens."""
        self.messages.append(message)
        if self._on_message is not None:
            self._on_message(message)


def create_receiver(inbox: Inbox) -> Starlette:
    """Return an application that puts what is posted to /slack and /webhook into `inbox`.

    /slack answers as an incoming webhook of Slack does: 200 `ok`, or 400 and the name of the error
    (docs.slack.dev/messaging/sending-messages-using-incoming-webhooks). /webhook answers 204 to
    everything. Both answer 413 to a body above 1 MiB.
    """

    async def slack(request: Request) -> Response:
        body = await _body(request)
        payload = _parsed(body)
        refusal = slack_refusal(payload)
        if refusal is not None:
            return PlainTextResponse(refusal, 400)
        inbox.take(Message("slack", dict(request.headers), body, payload))
        return PlainTextResponse("ok")

    async def webhook(request: Request) -> Response:
        body = await _body(request)
        inbox.take(Message("webhook", dict(request.headers), body, _parsed(body)))
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route("/slack", slack, methods=["POST"]),
            Route("/webhook", webhook, methods=["POST"]),
        ]
    )


def slack_refusal(payload: Any) -> str | None:
    """Return the name of the error with which Slack would refuse a payload, or None."""
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
    """Return one line about a message for a terminal, with nothing in it that a terminal obeys."""
    payload = message.payload if isinstance(message.payload, dict) else {}
    if message.kind == "slack":
        text = payload.get("text") or _first_text(payload["blocks"])
    elif isinstance(payload.get("type"), str):
        text = f"{payload['type']} {_subject(payload.get('data'))}"
    else:
        text = message.body[: 4 * MAX_LINE].decode(errors="replace")
    line = _printable(f"{message.kind}: {text.strip()}")
    return line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "\u2026"


async def _body(request: Request) -> bytes:
    """Read the body; raise HTTPException 413 above MAX_BODY, before the rest is read."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise HTTPException(413)
    return bytes(body)


def _parsed(body: bytes) -> Any:
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
    """Tell whether this is a text object of 1 to `longest` characters."""
    text = value.get("text") if isinstance(value, dict) else None
    return isinstance(text, str) and 1 <= len(text) <= longest


def _first_text(blocks: list[dict[str, Any]]) -> str:
    for block in blocks:
        text = block.get("text")
        if isinstance(text, dict) and "text" in text:
            return str(text["text"])
    return f"{len(blocks)} blocks"


def _subject(data: Any) -> str:
    """Return what an event is about: the fine-tune's name and id, or how many events there are."""
    if not isinstance(data, dict):
        return ""
    if isinstance(data.get("events"), list):
        return f"{len(data['events'])} events"
    fine_tune = data.get("fine_tune")
    if not isinstance(fine_tune, dict):
        return ""
    return f"{fine_tune.get('name')} ({fine_tune.get('id')})"


def _printable(text: str) -> str:
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
