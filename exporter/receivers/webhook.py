"""A JSON body POSTed to a URL, signed as Standard Webhooks 1.0 says."""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from exporter.core.message import Message, Pages, links, timestamp
from exporter.core.model import Delivery, Event, FineTune
from exporter.core.retry import Attempt, Outcome
from exporter.core.secret import Secret, SecretError
from exporter.core.text import cut
from exporter.receivers.receiver import Endpoint, attempt


@dataclass(frozen=True, slots=True)
class Webhook:
    """A generic webhook; with ``secret`` each attempt carries a signature per line of it."""

    name: str
    endpoint: Endpoint
    secret: Secret | None = field(default=None, repr=False)

    spacing: ClassVar[float] = 0.0
    most_events: ClassVar[int] = 100

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        """Return the JSON body; the minimal one leaves out what people wrote."""
        bodies = [_body(event, message.pages, minimal=minimal) for event in message.events]
        if message.type == "fine_tune.digest":
            at = max(event.observed_at for event in message.events)
            body = {
                "type": message.type,
                "timestamp": timestamp(at),
                "data": {"title": message.title, "events": bodies},
            }
        else:
            [body] = bodies
        return json.dumps(body, separators=(",", ":")).encode()

    def repeated(self, body: bytes) -> bytes:
        """Return the bytes as they are: ``webhook-id`` tells a repeat."""
        return body

    async def send(self, delivery: Delivery, now: float) -> Attempt:
        """Send the bytes once; the signature is of this attempt's time (Unix seconds)."""
        headers = {"webhook-id": delivery.id, "webhook-timestamp": str(int(now))}
        try:
            secrets = [] if self.secret is None else self.secret().split()
        except SecretError as error:
            return Attempt(Outcome.ENDPOINT, str(error))
        if secrets:
            headers["webhook-signature"] = signature(secrets, delivery, now)
        answer = await self.endpoint.post(delivery.body, headers)
        return answer if isinstance(answer, Attempt) else attempt(answer, now)


def signature(secrets: Sequence[str], delivery: Delivery, now: float) -> str:
    """Return the value of ``webhook-signature``: one ``v1`` signature for each secret.

    Several secrets let a consumer change over from one to the next (Standard Webhooks 1.0,
    "Signature scheme"). A secret is ``whsec_`` and the base64 of the key.
    """
    signed = b"%s.%d.%s" % (delivery.id.encode(), int(now), delivery.body)
    keys = (base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets)
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def _body(event: Event, pages: Pages, *, minimal: bool) -> dict[str, Any]:
    data: dict[str, Any] = {"account": event.account or None}
    if event.fine_tune is not None:
        data["previous_status"] = event.previous_status
        data["observed_at"] = timestamp(event.observed_at)
        data["fine_tune"] = _fine_tune(event.fine_tune, minimal=minimal)
    else:
        facts = event.facts.items()
        plain = {name: value for name, value in facts if not (minimal and isinstance(value, list))}
        data |= {"observed_at": timestamp(event.observed_at), **plain}
    found = {link.name: link.url for link in links(event, pages)}
    data["links"] = {"playground": None, "status_page": None} | found
    return {"type": event.type, "timestamp": timestamp(event.observed_at), "data": data}


def _fine_tune(fine_tune: FineTune, *, minimal: bool) -> dict[str, str]:
    written = () if minimal else ("name", "description")
    names = ("id", *written, "language", "model_id", "dataset", "status")
    return {name: cut(getattr(fine_tune, name)) for name in names}
