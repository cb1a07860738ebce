"""`send-test`: send one message to one receiver, once."""

import asyncio
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click
from msgspec.structs import replace

from exporter.cli.exits import CONFIGURATION_ERROR, RUNTIME_ERROR, fail, reason, standard_output
from exporter.cli.options import (
    check_external_url,
    config_file_option,
    external_url_option,
    load,
)
from exporter.cli.output import body_lines
from exporter.core.compose import build_message
from exporter.core.event_context import EventContext
from exporter.core.events import Event, poll_failing_event, stable_id, test_event
from exporter.core.facts import baseline_facts
from exporter.core.message import Message, MessageSettings
from exporter.core.model import (
    FAILED,
    TRAINING,
    AccountKey,
    FineTune,
    Outage,
    OutboxMessage,
    Snapshot,
)

if TYPE_CHECKING:
    from exporter.config import Config
    from exporter.config import Receiver as ReceiverSection

_Sample = Literal["failed", "digest", "baseline", "trouble", "long"]

_MODELS: Final = ("sonic-2", "sonic-3", "sonic-turbo")
_DIGEST_SIZE: Final = 30
_TEST_ACCOUNT: Final = "TEST"
_CONTEXT: Final = EventContext(7_800.0, 18_000.0, _DIGEST_SIZE + 3)
_DESCRIPTION: Final = "A test of cartesia-exporter: nothing failed."
_MARKUP: Final = (
    "<!channel> <b>bold</b> *bold* `code` & &amp; <https://example.com|link> {{ braces }} %s "
)
_RIGHT_TO_LEFT: Final = (
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u202eoverride\u202c "
)
_EMOJI: Final = "\U0001f469\u200d\U0001f680\U0001f3f3\ufe0f\u200d\U0001f308 "
_DIFFICULT_TEXT: Final = _MARKUP + _RIGHT_TO_LEFT + _EMOJI


def _fine_tune(number: int, name: str, description: str = _DESCRIPTION) -> FineTune:
    model = _MODELS[number % len(_MODELS)]
    return FineTune(f"test_{number}", name, description, "en", model, "test_dataset", FAILED)


_LONG: Final = _fine_tune(
    1, f"TEST {_DIFFICULT_TEXT * 20}", f"{_DESCRIPTION} {_DIFFICULT_TEXT * 1_000}"
)


def _failures(account: str, now: float, fine_tunes: Iterable[FineTune]) -> list[Event]:
    return [Event("", "fine_tune.failed", account, now, each, TRAINING) for each in fine_tunes]


def _baseline(_account: str, now: float) -> list[Event]:
    listed = [_fine_tune(n, f"TEST voice {n}") for n in range(1, 8)]
    facts = baseline_facts(Snapshot({each.id: each for each in listed}, now), _TEST_ACCOUNT)
    return [Event("", "agent.baseline", _TEST_ACCOUNT, now, facts=facts)]


def _trouble(_account: str, now: float) -> list[Event]:
    error = "this is a test of cartesia-exporter: nothing failed"
    outage = Outage(now - 660, 0.0, has_baseline=True, reason="timeout", error=error)
    return [poll_failing_event("", AccountKey(_TEST_ACCOUNT, ""), outage, now)]


_SAMPLES: Final[Mapping[_Sample, Callable[[str, float], list[Event]]]] = {
    "failed": lambda account, now: _failures(
        account, now, [_fine_tune(1, "TEST Ada for the audiobook")]
    ),
    "digest": lambda account, now: _failures(
        account, now, (_fine_tune(n, f"TEST voice {n}") for n in range(1, _DIGEST_SIZE + 1))
    ),
    "baseline": _baseline,
    "trouble": _trouble,
    "long": lambda account, now: _failures(account, now, [_LONG]),
}


@click.command("send-test")
@config_file_option
@click.argument("receiver")
@click.option(
    "--sample",
    type=click.Choice(tuple(_SAMPLES)),
    help="Send a sample instead of a short text: a failure, a digest, a baseline or another.",
)
@external_url_option
@click.option("--dry-run", is_flag=True, help="Print the body (JSON indented) and send nothing.")
def send_test(
    config_file: Path | None, receiver: str, sample: Any, external_url: str | None, *, dry_run: bool
) -> None:
    """Send one test message to RECEIVER and print the result."""
    check_external_url(external_url)
    config = load(config_file)
    section = next((each for each in config.receivers if each.name == receiver), None)
    if section is None:
        names = ", ".join(each.name for each in config.receivers) or "none"
        fail(
            CONFIGURATION_ERROR,
            f"there is no receiver {receiver} in the configuration; receivers: {names}",
        )
    terminal = standard_output("send the test message").isatty()
    from exporter.agent.build import message_settings

    settings = message_settings(section, config.alerts, external_url)
    create = partial(_message, config.accounts[0].name, sample, settings)
    try:
        text, succeeded = asyncio.run(
            _open_and_send(config, section, create, dry_run=dry_run, terminal=terminal)
        )
    except OSError as error:  # the ca_file cannot be used
        fail(RUNTIME_ERROR, f"cannot send: {reason(error)}")
    click.echo(text)
    if not succeeded:
        sys.exit(RUNTIME_ERROR)


async def _open_and_send(
    config: "Config",
    section: "ReceiverSection",
    create: Callable[[int, float], Message],
    *,
    dry_run: bool,
    terminal: bool,
) -> tuple[str, bool]:
    """Return the text to print, and whether the message was delivered (or only rendered)."""
    from exporter.agent.build import SYSTEM_CLOCK, alert_labels, open_receiver

    async with AsyncExitStack() as resources:
        receiver = await open_receiver(section, alert_labels(config), resources)
        now = SYSTEM_CLOCK.now()
        message = create(receiver.most_events, now)
        body = receiver.render(message)
        if dry_run:
            return "\n".join(body_lines(body, terminal=terminal)), True
        ids = [event.id for event in message.events]
        message_id = ids[0] if len(ids) == 1 else stable_id("test", *ids)
        started = time.monotonic()
        attempt = await receiver.send(
            OutboxMessage(message_id, receiver.name, body, len(ids), now), now
        )
        seconds = time.monotonic() - started
    text = f"{receiver.name}: {attempt.outcome}: {attempt.reason} ({seconds:.2f} s)"
    return text, attempt.outcome == "delivered"


def _message(
    account: str, sample: _Sample | None, settings: MessageSettings, max_events: int, now: float
) -> Message:
    if sample is None:
        return build_message([test_event(account, now, secrets.token_hex(16))], settings)
    # New ids: a receiver that drops repeated ids would drop the second send-test.
    events = [
        replace(event, id=stable_id("test", secrets.token_hex(16)))
        for event in _SAMPLES[sample](account, now)[:max_events]
    ]
    contexts = {event.id: _CONTEXT for event in events if event.fine_tune is not None}
    message = build_message(events, settings, contexts)
    # A digest's title names no fine-tune, and a phone may show nothing but the title.
    return replace(message, title=f"TEST: {message.title}")
