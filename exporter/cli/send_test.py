"""`send-test`: one message to one receiver, once, and what came of it."""

import asyncio
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from exporter.cli.exits import CONFIGURATION, RUNTIME, fail, reason
from exporter.cli.options import config_file_option, load
from exporter.core.events import Event, sample_failure, stable_id, test_event
from exporter.core.message import LinkTemplates, Message, build_message
from exporter.core.model import FAILED, FineTune, OutboxMessage
from exporter.core.retry import Attempt

if TYPE_CHECKING:
    from exporter.config import Config
    from exporter.config import Receiver as ReceiverSection
    from exporter.receivers.receiver import Receiver

Sample = Literal["failed", "digest", "long"]

_MODELS: Final = ("sonic-2", "sonic-3", "sonic-turbo")
_MANY: Final = 30
_NOTHING_FAILED: Final = "A test of cartesia-exporter: nothing failed."
_MARKUP: Final = (
    "<!channel> <b>bold</b> *bold* `code` & &amp; <https://example.com|link> {{ braces }} %s "
)
_RIGHT_TO_LEFT: Final = (
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u202eoverride\u202c "
)
_EMOJI: Final = "\U0001f469\u200d\U0001f680\U0001f3f3\ufe0f\u200d\U0001f308 "


def sample_events(sample: Sample, account: str, now: float) -> list[Event]:
    """Return the events of a sample, observed at ``now`` (Unix seconds).

    Their ids begin with ``test_``, as those of the fine-tunes, whose names begin with TEST; and
    they are new each time: a receiver that knows a repeat by its id would drop the second try.
    """
    return [
        sample_failure(fine_tune, account, now, secrets.token_hex(16))
        for fine_tune in _FINE_TUNES[sample]()
    ]


def _one() -> list[FineTune]:
    return [_fine_tune(1, "TEST Ada for the audiobook", _NOTHING_FAILED)]


def _many() -> list[FineTune]:
    return [_fine_tune(n, f"TEST voice {n}", _NOTHING_FAILED) for n in range(1, _MANY + 1)]


def _long() -> list[FineTune]:
    piece = _MARKUP + _RIGHT_TO_LEFT + _EMOJI
    return [_fine_tune(1, f"TEST {piece * 20}", f"{_NOTHING_FAILED} {piece * 1_000}")]


_FINE_TUNES: Final[Mapping[Sample, Callable[[], list[FineTune]]]] = {
    "failed": _one,
    "digest": _many,
    "long": _long,
}

SAMPLES: Final = tuple(_FINE_TUNES)


def _fine_tune(number: int, name: str, description: str) -> FineTune:
    model = _MODELS[number % len(_MODELS)]
    return FineTune(f"test_{number}", name, description, "en", model, "test_dataset", FAILED)


@dataclass(frozen=True, slots=True)
class Sent:
    """The body of the test message, the attempt (None for a dry run) and its time in seconds."""

    body: bytes
    attempt: Attempt | None
    seconds: float


@click.command("send-test")
@config_file_option
@click.argument("receiver")
@click.option(
    "--sample",
    type=click.Choice(SAMPLES),
    help="What an alert looks like, in place of a word of the agent: one, many, or a long one.",
)
@click.option("--dry-run", is_flag=True, help="Print the body, send nothing.")
def send_test(config_file: Path | None, receiver: str, sample: Any, *, dry_run: bool) -> None:
    """Send RECEIVER one test message, once, and say what came of it."""
    config = load(config_file)
    section = _receiver_named(config, receiver)
    try:
        sent = asyncio.run(send(config, section, sample, dry_run=dry_run))
    except OSError as error:
        fail(RUNTIME, f"cannot send: {reason(error)}")
    if sent.attempt is None:
        click.echo(sent.body.decode())
        return
    click.echo(f"{receiver}: {sent.attempt.outcome}: {sent.attempt.reason} ({sent.seconds:.2f} s)")
    if sent.attempt.outcome != "delivered":
        sys.exit(RUNTIME)


def _receiver_named(config: "Config", name: str) -> "ReceiverSection":
    sections = {section.name: section for section in config.receivers}
    if name not in sections:
        names = ", ".join(sections) or "none is configured"
        fail(CONFIGURATION, f"there is no receiver {name} to send to; the receivers: {names}")
    return sections[name]


async def send(
    config: "Config", section: "ReceiverSection", sample: Sample | None, *, dry_run: bool
) -> Sent:
    """Send a test message to a receiver once, without a retry; a dry run only renders it.

    Raises OSError when its ca_file can't be used.
    """
    from exporter.agent.build import SYSTEM_CLOCK, open_receiver

    async with AsyncExitStack() as resources:
        receiver = await open_receiver(section, resources)
        told = _message(config, sample, receiver.most_events, SYSTEM_CLOCK.now())
        if dry_run:
            return Sent(receiver.render(told), None, 0.0)
        return await _send(receiver, told, SYSTEM_CLOCK.now())


def _message(config: "Config", sample: Sample | None, most: int, now: float) -> Message:
    account = config.accounts[0].name
    pages = LinkTemplates(config.alerts.playground_url)
    if sample is None:
        return build_message([test_event(account, now, secrets.token_hex(16))], pages)
    told = build_message(sample_events(sample, account, now)[:most], pages)
    # A digest's title names no fine-tune, and may be all that a telephone shows.
    return replace(told, title=f"TEST: {told.title}")


async def _send(receiver: "Receiver", told: Message, now: float) -> Sent:
    ids = [event.id for event in told.events]
    message_id = ids[0] if len(ids) == 1 else stable_id("test", *ids)
    queued = OutboxMessage(message_id, receiver.name, receiver.render(told), len(ids), now)
    started = time.monotonic()
    attempt = await receiver.send(queued, now)
    return Sent(queued.body, attempt, time.monotonic() - started)
