"""Receiver type apprise: the services of the Apprise library, such as e-mail, Teams and Discord.

The library returns only whether it could send, so every failure is transient. It reads responses
without a limit on their size, and a call cannot be cancelled. So each message is sent by a process
of its own, with limits of memory and time: `exporter.receivers.apprise_child`.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from exporter.core.message import Fact, Message
from exporter.core.model import OutboxMessage
from exporter.core.retry import Attempt, Outcome
from exporter.core.secret import Secret, SecretError
from exporter.core.text import LONGEST, one_line, os_error_text
from exporter.http_client import CONNECT_TIMEOUT_SECONDS
from exporter.receivers.receiver import REPEAT, encoded, left_out

_COMMAND: Final = (sys.executable, "-P", "-m", "exporter.receivers.apprise_child")
_LONGEST_RESULT: Final = 1_000  # bytes

# Characters, except for _FACTS.
_BODY: Final = 10_000
_MINIMAL: Final = 140  # one SMS, the shortest of the services
_FACT: Final = 300
_FACTS: Final = 10
_LINK: Final = 1_400


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

    # NotifyBase.request_rate_per_sec: the library's own pause between two requests.
    spacing: ClassVar[float] = 5.5
    most_events: ClassVar[int] = 1_000_000_000  # one message, whatever its size

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        """Return title, body and type as JSON; the minimal body is an ASCII line for an SMS."""
        title, body = _plain(f"{message.sign} {message.title}", 250), _body(message)
        if minimal:
            title, body = "", _ascii(message)
        found = {event.traits.apprise_type for event in message.events}
        # The gravest: services show it as a colour or a severity.
        gravest = next(each for each in ("failure", "warning", "info", "success") if each in found)
        return encoded({"title": title, "body": body, "type": gravest})

    def repeated(self, body: bytes) -> bytes:
        """Return the message with the line REPEAT at the top, where no service cuts it off."""
        message = json.loads(body)
        message["body"] = f"{REPEAT}\n{message['body']}"
        return encoded(message)

    async def send(self, delivery: OutboxMessage, now: float) -> Attempt:  # noqa: ARG002 - no time in it
        """Send the message once, by a process that ends with this call."""
        try:
            request = self._request(self.url(), delivery.body)
            async with asyncio.timeout(self.seconds):
                return self._attempt(await _run(request))
        except SecretError as error:
            return Attempt(Outcome.ENDPOINT, str(error))
        except TimeoutError:
            reason = f"Apprise did not end within {self.seconds:.3g} s"
            return Attempt(Outcome.TRANSIENT, reason, ambiguous=True)
        except OSError as error:
            reason = f"cannot start a process for Apprise: {os_error_text(error)}"
            return Attempt(Outcome.TRANSIENT, reason)
        except RuntimeError:  # asyncio waits for a process in a thread
            return Attempt(Outcome.TRANSIENT, "cannot start a thread for Apprise")

    def _request(self, url: str, body: bytes) -> bytes:
        limits = {"seconds": self.seconds, "connect_seconds": CONNECT_TIMEOUT_SECONDS}
        ca_file = None if self.ca_file is None else str(self.ca_file)
        return encoded(json.loads(body) | limits | {"url": url, "ca_file": ca_file}) + b"\n"

    def _attempt(self, output: bytes) -> Attempt:
        try:
            found: dict[str, Any] = json.loads(output)
        except ValueError:
            # The kernel ended it, or refused it memory in a library that cannot bear that.
            reason = "Apprise was ended: its memory or time was used up"
            return Attempt(Outcome.TRANSIENT, reason, ambiguous=True)
        match found["result"]:
            case "sent":
                return Attempt(Outcome.DELIVERED, "Apprise sent it")
            case "unusable":
                reason = "is not a URL that Apprise can use, or needs another package"
                return Attempt(Outcome.ENDPOINT, f"{self.url.source} {reason}")
            case "error":
                reason = f"Apprise could not send it ({found['error']})"
                too_much = found["error"] == MemoryError.__name__  # by the answer to a message
                return Attempt(Outcome.TRANSIENT, reason, ambiguous=too_much)
        reason = "Apprise could not send it; check the service, and what its URL says"
        return Attempt(Outcome.TRANSIENT, reason)


async def _run(request: bytes) -> bytes:
    """Return the output of the process; it is killed if this call is cancelled."""
    # Our own keys are none of its business. A group of its own: Ctrl-C ends the agent, which then
    # finishes what is in flight.
    env = {name: text for name, text in os.environ.items() if not name.startswith("CARTESIA_")}
    process = await asyncio.create_subprocess_exec(
        *_COMMAND,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=env,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with suppress(ConnectionError):
            process.stdin.write(request)
            await process.stdin.drain()
        # The pipe stays open meanwhile: its end tells the process that the agent is gone.
        return await process.stdout.read(_LONGEST_RESULT)
    finally:
        # Not process.kill(): it reaps a process that ends by itself just now, which asyncio reports
        # as an unknown process in the log.
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.stdin.close()
        await process.wait()


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
    given = [*message.facts[:_FACTS], *([Fact("Id", message.id)] if message.id else [])]
    facts = "\n".join(f"{_plain(each.name, 100)}: {_plain(each.value, _FACT)}" for each in given)
    head = "\n".join(map(_plain, filter(None, (message.note, *message.highlights))))
    text = _plain(message.text)
    # The URLs are the operator's; only encoded values are inserted.
    links = "\n".join(f"{each.text}: {each.url}" for each in message.links if len(each.url) < _LINK)
    fixed = (REPEAT, head, facts, text, links, left_out(10**9))
    room = _BODY - sum(map(len, fixed)) - 20  # line breaks
    lines = _fitting([str(line) for line in message.lines], "\n", room)
    unnamed = len(message.lines) - len(lines) + len(message.rest)
    more = [left_out(unnamed)] if unnamed else []
    ids = ", ".join(_fitting(message.rest, ", ", room - sum(len(line) + 1 for line in lines)))
    sections = (head, facts, text, "\n".join([*lines, *more]), links, ids and f"Ids: {ids}")
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
