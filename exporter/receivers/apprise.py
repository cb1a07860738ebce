"""Receiver type apprise: the services of the Apprise library, such as e-mail, Teams and Discord.

The library returns only whether it could send, so every failure is transient. A call cannot be
cancelled, so one call at a time runs in a daemon thread. The library reads responses without a
limit on their size.
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

# Characters, except for _FACTS.
_TITLE: Final = 250
_BODY: Final = 10_000
_MINIMAL: Final = 140  # one SMS, the shortest of the services
_FACT_NAME: Final = 100
_FACT: Final = 300
_FACTS: Final = 10
_LINK: Final = 1_400

# They log URLs, responses and mail addresses, and a receiver's URL is a secret.
for _library in ("apprise", "charset_normalizer", "oauthlib", "requests", "slixmpp", "urllib3"):
    logging.getLogger(_library).setLevel(logging.CRITICAL + 1)


class _CallThread:
    """Runs one call at a time in a daemon thread, which neither the loop nor the exit waits for."""

    def __init__(self) -> None:
        self.busy = False

    async def run(self, call: Callable[[], Attempt]) -> Attempt:
        """Return the result of ``call``. When this is cancelled, the call goes on (``busy``)."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Attempt] = loop.create_future()

        def settle(attempt: Attempt) -> None:
            if not result.done():
                result.set_result(attempt)

        def run_call() -> None:
            try:
                attempt = call()
            finally:
                self.busy = False
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, attempt)

        self.busy = True
        Thread(target=run_call, name="apprise", daemon=True).start()
        return await result


@dataclass(frozen=True, slots=True)
class Apprise:
    """A service with an Apprise URL, which is a secret as a whole.

    ``seconds`` is the timeout of one attempt. Services over HTTPS use ``ca_file``; e-mail and the
    others use the certificates of the system.
    """

    name: str
    url: Secret = field(repr=False)
    seconds: float
    ca_file: Path | None = None
    _thread: _CallThread = field(default_factory=_CallThread, init=False, repr=False, compare=False)

    # NotifyBase.request_rate_per_sec: the library's own pause between two requests.
    spacing: ClassVar[float] = 5.5
    most_events: ClassVar[int] = 1_000_000_000  # one message, whatever its size

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        """Return title, body and Apprise's notification type as JSON; the texts are plain.

        The minimal body is one ASCII line that fits an SMS.
        """
        title, body = one_line(message.title, _TITLE).translate(_INERT), _body(message)
        if minimal:
            title, body = "", _ascii(message)
        return encoded({"title": title, "body": body, "type": _type(message)})

    def repeated(self, body: bytes) -> bytes:
        """Return the message with the line REPEAT at the top, where no service cuts it off."""
        message = json.loads(body)
        message["body"] = f"{REPEAT}\n{message['body']}"
        return encoded(message)

    async def send(self, delivery: OutboxMessage, now: float) -> Attempt:  # noqa: ARG002 - no time in it
        """Send the message once.

        After the timeout the call goes on in its thread. No other call starts before it ends.
        """
        if self._thread.busy:
            return Attempt(Outcome.TRANSIENT, "the attempt before is still running")
        try:
            call = _Call(self.url(), self.url.source, delivery.body, self.seconds, self.ca_file)
            async with asyncio.timeout(self.seconds):
                return await self._thread.run(call)
        except SecretError as error:
            return Attempt(Outcome.ENDPOINT, str(error))
        except TimeoutError:
            reason = f"Apprise did not end within {self.seconds:.3g} s"
            return Attempt(Outcome.TRANSIENT, reason, ambiguous=True)


@dataclass(frozen=True, slots=True)
class _Call:
    """One blocking call of the library."""

    url: str = field(repr=False)
    source: str
    body: bytes = field(repr=False)
    seconds: float
    ca_file: Path | None

    def __call__(self) -> Attempt:
        try:
            return self._notify()
        except Exception as error:  # noqa: BLE001 - a plugin can raise anything; the text may be secret
            reason = f"Apprise could not send it ({type(error).__name__})"
            return Attempt(Outcome.TRANSIENT, reason)

    def _notify(self) -> Attempt:
        import apprise  # noqa: PLC0415 - an extra, and slow to import

        asset = _asset()
        service = apprise.Apprise.instantiate(self.url, asset=asset)
        if service is None:
            reason = f"{self.source} is not a URL that Apprise can use, or needs another package"
            return Attempt(Outcome.ENDPOINT, reason)
        self._configure(service)
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

    def _configure(self, service: Any) -> None:
        """Make the service try once, with our timeouts, and truncate what is too long for it."""
        from apprise import OverflowMode  # noqa: PLC0415

        service.retry = 0
        service.socket_connect_timeout = min(self.seconds, CONNECT_TIMEOUT_SECONDS)
        service.socket_read_timeout = self.seconds
        # By default a message that is too long is refused as a whole, at each attempt.
        if service.overflow_mode is OverflowMode.UPSTREAM:
            service.overflow_mode = OverflowMode.TRUNCATE
        if self.ca_file is not None:
            service.verify_certificate = str(self.ca_file)  # as `verify` of requests takes it


def _asset() -> Any:
    """Return settings of the library: no further thread, disk, redirects or pictures."""
    import apprise  # noqa: PLC0415
    import urllib3  # noqa: PLC0415

    urllib3.disable_warnings()  # the warning about verify=no names the host
    return apprise.AppriseAsset(
        app_id="cartesia-exporter",
        app_desc="cartesia-exporter",
        app_url="",
        async_mode=False,
        http_redirects=False,
        image_path_mask=False,
        image_url_logo="",
        image_url_mask="",
        service_timeout=0,  # a timeout of the library needs another thread
        storage_mode=apprise.PersistentStoreMode.MEMORY.value,
    )


def _type(message: Message) -> str:
    """Return the gravest notification type; services show it as a colour or a severity."""
    found = {event.traits.apprise_type for event in message.events}
    return next(each for each in ("failure", "warning", "info", "success") if each in found)


# Mattermost and others read mentions such as @channel in plain text.
_INERT: Final = str.maketrans({"@": "\uff20", "<": "\u2039", ">": "\u203a"})


def _plain(text: str, most: int = LONGEST) -> str:
    return one_line(text, most).translate(_INERT)


def _ascii(message: Message) -> str:
    """Return the message type and ids in one ASCII line, which no service can refuse."""
    ids = (e.fine_tune.id if e.fine_tune else e.account for e in message.events)
    line = f"{message.type}:"
    for each in ids:
        added = f"{line} {one_line(each, _MINIMAL).encode('ascii', 'replace').decode()}"
        if len(added) > _MINIMAL:
            break
        line = added
    return line.replace("@", "?").replace("<", "?").replace(">", "?")


def _body(message: Message) -> str:
    """Return the text, most important first: each service truncates at another length."""
    facts = "\n".join(
        f"{_plain(name, _FACT_NAME)}: {_plain(value, _FACT)}"
        for name, value in message.facts[:_FACTS]
    )
    text = _plain(message.text)
    # The URLs are the operator's; only an encoded id is inserted.
    links = "\n".join(f"{each.text}: {each.url}" for each in message.links if len(each.url) < _LINK)
    room = _BODY - sum(map(len, (REPEAT, facts, text, links, left_out(10**9)))) - 20  # line breaks
    lines = _fitting(message.lines, "\n", room)
    unnamed = len(message.lines) - len(lines) + len(message.rest)
    more = [left_out(unnamed)] if unnamed else []
    ids = ", ".join(_fitting(message.rest, ", ", room - sum(len(line) + 1 for line in lines)))
    sections = (facts, text, "\n".join([*lines, *more]), links, ids and f"Ids: {ids}")
    return "\n\n".join(section for section in sections if section)


def _fitting(items: Sequence[str], separator: str, room: int) -> list[str]:
    """Return the first items, cleaned, that fit in ``room`` characters with their separators."""
    found: list[str] = []
    for item in items:
        found.append(_plain(item))
        room -= len(found[-1]) + len(separator)
        if room < 0:
            return found[:-1]
    return found
