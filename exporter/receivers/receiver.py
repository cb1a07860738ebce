"""Interface of all receiver types, and the HTTP POST that they share."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from exporter.core.message import Message
from exporter.core.model import OutboxMessage
from exporter.core.retry import Attempt, Outcome, classify, retry_after
from exporter.core.secret import Secret, SecretError
from exporter.http_client import Bounds, HttpClient, HttpClientError, Request, Response

REPEAT: Final = "possible repeat: the answer to this message was lost"
"""The line that is added to a message for people that may have arrived already."""

_ANSWER_BYTES: Final = 64 * 1024


class Receiver(Protocol):
    """A configured receiver. It sends once and returns the outcome; the deliverer retries."""

    @property
    def name(self) -> str:
        """The name in the configuration, the label ``receiver``."""

    @property
    def spacing(self) -> float:
        """The least time between two messages, in seconds."""

    @property
    def seconds(self) -> float:
        """The timeout of one attempt."""

    @property
    def most_events(self) -> int:
        """The most events of one digest."""

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        """Return the body of a message; a ``minimal`` one has nothing that could be refused."""

    def repeated(self, body: bytes) -> bytes:
        """Return the body to send when ``body`` may have arrived: for people, it says so."""

    async def send(self, delivery: OutboxMessage, now: float) -> Attempt:
        """Send the body once, at ``now`` (Unix seconds), and return the outcome."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL to POST to, which is a secret. ``seconds`` is the timeout of a whole attempt."""

    http_client: HttpClient
    url: Secret = field(repr=False)
    seconds: float

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Response | Attempt:
        """Post JSON; return the response, whatever its status, or the attempt that got none."""
        sent = {"Content-Type": "application/json", **headers}
        try:
            request = Request("POST", self.url(), sent, body)
            return await self.http_client.send(request, Bounds(self.seconds, _ANSWER_BYTES))
        except SecretError as error:
            return Attempt(Outcome.ENDPOINT, str(error))
        except HttpClientError as error:
            return unanswered(error)
        finally:
            # A surplus byte behind a response would fail the next message on this connection after
            # it was sent, and that message would arrive twice.
            await self.http_client.aclose()

    async def attempt(self, body: bytes, headers: Mapping[str, str], now: float) -> Attempt:
        """Post JSON at ``now`` (Unix seconds); return the outcome by the response's status."""
        response = await self.post(body, headers)
        return answered(response, now) if isinstance(response, Response) else response


def unanswered(error: HttpClientError) -> Attempt:
    """Return the outcome of a request without a complete response."""
    outcome = Outcome.ENDPOINT if error.permanent else Outcome.TRANSIENT
    return Attempt(outcome, str(error), ambiguous=error.sent)


def answered(response: Response, now: float) -> Attempt:
    """Return the outcome by the status alone; the body may be hostile and is left out."""
    outcome = classify(response.status)
    return Attempt(outcome, f"answered {response.status}", retry_after(response.headers, now))


def is_page(response: Response) -> bool:
    """Return whether the body is HTML: a proxy, a login or a captive portal answered."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "text/html" or response.body.lstrip()[:1] == b"<"


def encoded(body: object) -> bytes:
    """Return a value of JSON's types as JSON, in ASCII."""
    return json.dumps(body, separators=(",", ":")).encode()


def left_out(number: int) -> str:
    """Return the line that says how much a message had no room for, and where to see it."""
    return f"and {number} more; `cartesia-exporter events list` shows them all"
