"""Receiver type webhook: a JSON body POSTed to a URL, signed by Standard Webhooks 1.0."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from msgspec.structs import replace

from exporter.core.message import Message
from exporter.core.model import OutboxMessage
from exporter.core.retry import Attempt, Outcome
from exporter.core.secret import Secret, SecretError
from exporter.receivers.payload import MOST_EVENTS, Body, standard_body
from exporter.receivers.receiver import Endpoint


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook; each line of ``secret`` adds a signature to each attempt.

    ``headers`` are additional headers: functions that are called at each attempt and return the
    value or raise SecretError. ``template_secrets`` are filled into the body of each attempt.
    """

    name: str
    endpoint: Endpoint
    secret: Secret | None = field(default=None, repr=False)
    body: Body = standard_body
    headers: Mapping[str, Callable[[], str]] = field(default_factory=dict, repr=False)
    template_secrets: Mapping[str, Secret] = field(default_factory=dict, repr=False)

    spacing: ClassVar[float] = 0.0
    most_events: ClassVar[int] = MOST_EVENTS

    @property
    def seconds(self) -> float:
        """The timeout of one attempt."""
        return self.endpoint.seconds

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        """Return the JSON body; raise TemplateError when its template cannot be rendered."""
        return self.body(message, minimal=minimal)

    def repeated(self, body: bytes) -> bytes:
        """Return the bytes unchanged: a repeat has the same ``webhook-id``."""
        return body

    async def send(self, delivery: OutboxMessage, now: float) -> Attempt:
        """Send the bytes once, signed with ``now`` (Unix seconds), and return the outcome."""
        try:
            if self.template_secrets:
                # Imported already: its template was compiled.
                from exporter.receivers.template import with_secrets  # noqa: PLC0415

                body = with_secrets(delivery.body, self.template_secrets)
                delivery = replace(delivery, body=body)
            headers = {name: value() for name, value in self.headers.items()}
            headers |= {"webhook-id": delivery.id, "webhook-timestamp": str(int(now))}
            if self.secret is not None:
                headers["webhook-signature"] = signature(self.secret().split(), delivery, now)
        except SecretError as error:
            return Attempt(Outcome.ENDPOINT, str(error))
        return await self.endpoint.attempt(delivery.body, headers, now)


def bearer(token: Secret) -> Callable[[], str]:
    """Return an Authorization header with a token (RFC 6750), for ``Webhook.headers``."""
    return lambda: f"Bearer {token()}"


def basic(username: str, password: Secret) -> Callable[[], str]:
    """Return an Authorization header with a user and a password (RFC 7617, in UTF-8)."""
    return lambda: f"Basic {base64.b64encode(f'{username}:{password()}'.encode()).decode()}"


def signature(secrets: Sequence[str], delivery: OutboxMessage, now: float) -> str:
    """Return ``webhook-signature``: a ``v1`` signature for each secret, which allows a rotation.

    A secret is ``whsec_`` and the base64 of the key (Standard Webhooks 1.0, "Signature scheme").
    """
    signed = b"%s.%d.%s" % (delivery.id.encode(), int(now), delivery.body)
    keys = (base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets)
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
