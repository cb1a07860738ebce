"""Any service that the Apprise library knows: e-mail, Teams, Discord, PagerDuty and many more.

The library says whether it could send and nothing else, and it cannot be told to stop. So one call
at a time runs in a thread that nobody has to wait for, and every failure is worth another try.
What it answers to a message is read by it, in a size that it does not bound.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, Final

from exporter.core.message import Message
from exporter.core.model import OutboxMessage
from exporter.core.retry import Attempt, Outcome
from exporter.core.secret import Secret, SecretError
from exporter.core.text import LONGEST, one_line
from exporter.http_client import CONNECT_TIMEOUT_SECONDS
from exporter.receivers.receiver import REPEAT, encoded, left_out

_TITLE: Final = 250
_BODY: Final = 10_000
_MINIMAL: Final = 140  # one SMS, the smallest of the services
_FACT_NAME: Final = 100
_FACT: Final = 300
_FACTS: Final = 10
_LINK: Final = 1_400

# They write URLs, answers and mail addresses, and a receiver's URL is its secret.
for _library in ("apprise", "charset_normalizer", "oauthlib", "requests", "slixmpp", "urllib3"):
    logging.getLogger(_library).setLevel(logging.CRITICAL + 1)


class _Lane:
    """Runs one call at a time in a thread of its own, which neither a loop nor the end awaits."""

    def __init__(self) -> None:
        self.busy = False

    async def run(self, work: Callable[[], Attempt]) -> Attempt:
        """Return what ``work`` comes to; when this is cancelled, ``work`` goes on, and is busy."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Attempt] = loop.create_future()

        def settle(attempt: Attempt) -> None:
            if not done.done():
                done.set_result(attempt)

        def call() -> None:
            try:
                attempt = work()
            finally:
                self.busy = False
            with suppress(RuntimeError):  # the loop is gone, and with it who asked
                loop.call_soon_threadsafe(settle, attempt)

        self.busy = True
        Thread(target=call, name="apprise", daemon=True).start()
        return await done


@dataclass(frozen=True, slots=True)
class Apprise:
    """A service behind an Apprise URL, which is a secret as a whole.

    ``seconds`` bounds one attempt. ``ca_file`` is used by the services that speak HTTPS; what
    e-mail and the others trust is the system's affair.
    """

    name: str
    url: Secret = field(repr=False)
    seconds: float
    ca_file: Path | None = None
    _lane: _Lane = field(default_factory=_Lane, init=False, repr=False, compare=False)

    # NotifyBase.request_rate_per_sec: what the library itself leaves between two requests.
    spacing: ClassVar[float] = 5.5
    most_events: ClassVar[int] = 1_000_000_000  # one message, whatever its size

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        """Return title, body and kind (in Apprise's words) as JSON; the texts are plain.

        The minimal body is one ASCII line that fits an SMS.
        """
        title, body = one_line(message.title, _TITLE).translate(_INERT), _body(message)
        if minimal:
            title, body = "", _ascii(message)
        return encoded({"title": title, "body": body, "type": _kind(message)})

    def repeated(self, body: bytes) -> bytes:
        """Return the message with one more line, at the top, where no service cuts it off."""
        message = json.loads(body)
        message["body"] = f"{REPEAT}\n{message['body']}"
        return encoded(message)

    async def send(self, delivery: OutboxMessage, now: float) -> Attempt:  # noqa: ARG002 - no time in it
        """Have the library send the message once.

        At the deadline the call is left to itself, and until it has ended no other is begun.
        """
        if self._lane.busy:
            return Attempt(Outcome.TRANSIENT, "the attempt before is still running")
        try:
            call = _Call(self.url(), self.url.source, delivery.body, self.seconds, self.ca_file)
            async with asyncio.timeout(self.seconds):
                return await self._lane.run(call)
        except SecretError as error:
            return Attempt(Outcome.ENDPOINT, str(error))
        except TimeoutError:
            reason = f"Apprise did not end within {self.seconds:.3g} s"
            return Attempt(Outcome.TRANSIENT, reason, ambiguous=True)


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of the library, to be made in a thread: it blocks."""

    url: str = field(repr=False)
    source: str
    body: bytes = field(repr=False)
    seconds: float
    ca_file: Path | None

    def __call__(self) -> Attempt:
        try:
            return self._notify()
        except Exception as error:  # noqa: BLE001 - a plugin's, of any kind; its text may be secret
            kind = type(error).__name__
            return Attempt(Outcome.TRANSIENT, f"Apprise could not send it ({kind})")

    def _notify(self) -> Attempt:
        import apprise  # noqa: PLC0415 - an extra, and slow: it is for those who use it

        asset = _asset()
        service = apprise.Apprise.instantiate(self.url, asset=asset)
        if service is None:
            reason = f"{self.source} is not a URL that Apprise can use, or needs another package"
            return Attempt(Outcome.ENDPOINT, reason)
        self._bound(service)
        message = json.loads(self.body)
        sent = apprise.Apprise(service, asset=asset).notify(
            message["body"],
            message["title"],
            message["type"],
            body_format=apprise.NotifyFormat.TEXT,
            interpret_escapes=False,
        )
        if sent:
            return Attempt(Outcome.DELIVERED, "Apprise sent it")
        reason = "Apprise could not send it; check the service, and what its URL says"
        return Attempt(Outcome.TRANSIENT, reason)

    def _bound(self, service: Any) -> None:
        """Have the service try once, for so long, and cut what is too long for it."""
        from apprise import OverflowMode  # noqa: PLC0415

        service.retry = 0
        service.socket_connect_timeout = min(self.seconds, CONNECT_TIMEOUT_SECONDS)
        service.socket_read_timeout = self.seconds
        # What is too long is refused in whole by default, however often it is sent.
        if service.overflow_mode is OverflowMode.UPSTREAM:
            service.overflow_mode = OverflowMode.TRUNCATE
        if self.ca_file is not None:
            service.verify_certificate = str(self.ca_file)  # as `verify` of requests takes it


def _asset() -> Any:
    """Return how the library is to work: in this thread, without disk, redirects and pictures."""
    import apprise  # noqa: PLC0415
    import urllib3  # noqa: PLC0415

    urllib3.disable_warnings()  # what it says of verify=no names the host
    return apprise.AppriseAsset(
        app_id="cartesia-exporter",
        app_desc="cartesia-exporter",
        app_url="",
        async_mode=False,
        http_redirects=False,
        image_path_mask=False,
        image_url_logo="",
        image_url_mask="",
        service_timeout=0,  # it would be kept by yet another thread
        storage_mode=apprise.PersistentStoreMode.MEMORY.value,
    )


def _kind(message: Message) -> str:
    """Return the gravest kind of the events; services make a colour or a severity of it."""
    found = {event.traits.apprise_type for event in message.events}
    return next(kind for kind in ("failure", "warning", "info", "success") if kind in found)


# Plain text is not inert everywhere: Mattermost and others notify who is named, as in @channel.
_INERT: Final = str.maketrans({"@": "\uff20", "<": "\u2039", ">": "\u203a"})


def _plain(text: str, most: int = LONGEST) -> str:
    return one_line(text, most).translate(_INERT)


def _ascii(message: Message) -> str:
    """Return one line that nothing can refuse: the kind of message, then ids while they fit."""
    ids = (e.fine_tune.id if e.fine_tune else e.account for e in message.events)
    line = f"{message.type}:"
    for each in ids:
        added = f"{line} {one_line(each, _MINIMAL).encode('ascii', 'replace').decode()}"
        if len(added) > _MINIMAL:
            break
        line = added
    return line.replace("@", "?").replace("<", "?").replace(">", "?")


def _body(message: Message) -> str:
    """Return the text, most important first: the services cut it at very different lengths."""
    facts = "\n".join(
        f"{_plain(name, _FACT_NAME)}: {_plain(value, _FACT)}"
        for name, value in message.facts[:_FACTS]
    )
    text = _plain(message.text)
    # The URLs are the operator's, with an encoded id in it at most.
    links = "\n".join(f"{each.text}: {each.url}" for each in message.links if len(each.url) < _LINK)
    room = _BODY - sum(map(len, (REPEAT, facts, text, links, left_out(10**9)))) - 20  # line breaks
    lines = _fitting(message.lines, "\n", room)
    unnamed = len(message.lines) - len(lines) + len(message.rest)
    more = [left_out(unnamed)] if unnamed else []
    ids = ", ".join(_fitting(message.rest, ", ", room - sum(len(line) + 1 for line in lines)))
    sections = (facts, text, "\n".join([*lines, *more]), links, ids and f"Ids: {ids}")
    return "\n\n".join(section for section in sections if section)


def _fitting(items: Sequence[str], separator: str, room: int) -> list[str]:
    """Return the first items, cleaned, that fit ``room`` characters with their separators."""
    found: list[str] = []
    for item in items:
        found.append(_plain(item))
        room -= len(found[-1]) + len(separator)
        if room < 0:
            return found[:-1]
    return found
