"""What every receiver is, and the one bounded POST they share."""

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
"""What people are told of a message that may have arrived already."""

_ANSWER_BYTES = 64 * 1024


class Receiver(Protocol):
    """Who is told. It tries once and says whether trying again can help; it never retries."""

    @property
    def name(self) -> str:
        """The name in the configuration, the label ``receiver``."""
        ...

    @property
    def spacing(self) -> float:
        """The least time between two messages, in seconds."""
        ...

    @property
    def seconds(self) -> float:
        """The longest that one attempt takes."""
        ...

    @property
    def most_events(self) -> int:
        """How many events one digest may carry."""
        ...

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        """Return the bytes of a message; ``minimal`` ones hold nothing that could be refused."""
        ...

    def repeated(self, body: bytes) -> bytes:
        """Return what is sent where ``body`` may have arrived already.

        People are told with one more line; a program tells a repeat by its id.
        """
        ...

    async def send(self, delivery: OutboxMessage, now: float) -> Attempt:
        """Send the bytes once, at ``now`` (Unix seconds), and say what came of it."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a receiver posts: the URL is a secret. ``seconds`` bounds one attempt as a whole."""

    http_client: HttpClient
    url: Secret = field(repr=False)
    seconds: float

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Response | Attempt:
        """Post JSON; return the answer, whatever its status, or the attempt that got none.

        The connection is not kept: a byte too many behind an answer would make the next message
        fail once it was sent, and so arrive twice.
        """
        sent = {"Content-Type": "application/json", **headers}
        try:
            request = Request("POST", self.url(), sent, body)
            return await self.http_client.send(request, Bounds(self.seconds, _ANSWER_BYTES))
        except SecretError as error:
            return Attempt(Outcome.ENDPOINT, str(error))
        except HttpClientError as error:
            return unanswered(error)
        finally:
            await self.http_client.aclose()


def unanswered(error: HttpClientError) -> Attempt:
    """Return what an exchange without a complete answer means."""
    outcome = Outcome.ENDPOINT if error.permanent else Outcome.TRANSIENT
    return Attempt(outcome, str(error), ambiguous=error.sent)


def attempt(response: Response, now: float) -> Attempt:
    """Return what an answer means by its status alone; its body may be hostile and is not told."""
    outcome = classify(response.status)
    return Attempt(outcome, f"answered {response.status}", retry_after(response.headers, now))


def encoded(body: object) -> bytes:
    """Return a value of JSON's types as JSON, in ASCII."""
    return json.dumps(body, separators=(",", ":")).encode()


def left_out(number: int) -> str:
    """Return the line for people about what a message had no room for, and where it is."""
    return f"and {number} more; `cartesia-exporter events list` shows them all"
