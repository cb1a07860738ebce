"""Every form of message, with realistic content; run to look at all of them in Chromium.

``python -m tests.receivers.message_forms FOLDER`` writes messages.html and pictures of it there.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import which
from typing import Any

from msgspec.structs import replace

from exporter.core.compose import build_message
from exporter.core.event_context import EventContext
from exporter.core.events import (
    Event,
    circuit_event,
    poll_failing_event,
    poll_recovered_event,
    test_event,
)
from exporter.core.facts import baseline_facts, recovery_facts, unknown_status_facts
from exporter.core.links import LinkTemplates
from exporter.core.mentions import Mentions, mentioning_types
from exporter.core.message import Message, MessageSettings
from exporter.core.model import AccountKey, FineTune, Outage, Snapshot
from exporter.core.retry import CIRCUIT_CLOSED, CircuitState
from exporter.core.text import timestamp
from exporter.http_client import HttpClient
from exporter.receivers.apprise import Apprise
from exporter.receivers.receiver import Endpoint
from exporter.receivers.slack import Slack
from tests.fakes.secret import FakeSecret
from tests.receivers.block_kit import STYLE, message_html

AT = 1_795_460_580.0
KEY = AccountKey("default", "https://api.cartesia.ai")
SETTINGS = MessageSettings(
    LinkTemplates(
        "https://play.cartesia.ai/pro-voice-cloning",
        "https://cartesia.example.com",
        "https://grafana.example.com/d/cartesia?var-account={account}&from={from_ms}&to={to_ms}",
    ),
    subscriptions=("failed", "stuck", "agent"),
)
SLACK = Slack("team-slack", Endpoint(HttpClient(), FakeSecret("https://hooks.slack.com/x"), 15))
MENTIONS = Mentions(mentioning_types(["failed", "stuck", "agent"]), "<!subteam^S1|@voices>")
MAIL = Apprise("mail", FakeSecret("mailto://user:password@example.com"), 15)

NAMES = (
    "Ada, audiobook", "Giulia, news desk", "Support line, male", "Marek (warm)", "Yuki IVR",
    "Léa, navigation", "Narrator 3", "Sofía, hotline", "Ben, podcast intro", "Priya, e-learning",
    "Old radio", "Trailer voice",
)  # fmt: skip
DATASETS = ("dataset_8QnV2h7kT1", "dataset_Jw5rXc09aZ", "dataset_m3PfLu6dYq")
MODELS = ("sonic-3-2026-01-12", "sonic-2-2025-03-07", "sonic-turbo-2025-03-07")


def fine_tune(number: int, **fields: Any) -> FineTune:
    fields = {
        "name": NAMES[number % len(NAMES)],
        "description": "",
        "language": "en",
        "model_id": MODELS[0],
        "dataset": DATASETS[0],
        "status": "failed",
        **fields,
    }
    return FineTune(f"fine_tune_{number:02}kX7bQz9RvTn", **fields)


def failed(number: int, at: float = AT, **fields: Any) -> Event:
    tuned = fine_tune(number, **fields)
    return Event(f"evt_{number}", "fine_tune.failed", "default", at, tuned, "training")


def failures(number: int, same_dataset: int, seconds: float = 0.0) -> list[Event]:
    """Return failures of which the first ones have the same dataset, in the given time."""
    return [
        failed(
            n,
            AT + seconds * n / number,
            dataset=DATASETS[0] if n < same_dataset else DATASETS[1 + n % 2],
            model_id=MODELS[0] if n < same_dataset else MODELS[n % 3],
        )
        for n in range(number)
    ]


def contexts(reported: Sequence[Event]) -> dict[str, EventContext]:
    return {
        each.id: EventContext(2_400.0 + 611 * n, 18_000.0, len(reported) + 3)
        for n, each in enumerate(reported)
    }


def _failure() -> Message:
    event = failed(0, description="Second attempt, cleaned recordings of March")
    return build_message([event], SETTINGS, {event.id: EventContext(7_810.0, 18_000.0, 3)})


def _stuck() -> Message:
    event = replace(
        failed(1, status="training"),
        type="fine_tune.stuck",
        facts={"since": timestamp(AT - 23_400), "seconds": 23_400},
    )
    return build_message([event], SETTINGS, {event.id: EventContext(23_400.0, 18_000.0, 0)})


def _completed() -> Message:
    event = replace(failed(2, status="completed"), type="fine_tune.completed")
    return build_message([event], SETTINGS, {event.id: EventContext(17_310.0, 18_000.0, 0)})


def _recovered(status: str) -> Message:
    tuned = fine_tune(2, status=status)
    event = Event("evt", "fine_tune.recovered", "default", AT, tuned, "failed")
    return build_message([event], SETTINGS)


def _baseline(**changed: Any) -> Message:
    listed = [fine_tune(n, status="completed") for n in range(200)]
    listed += [fine_tune(200 + n) for n in range(9)]
    listed += [fine_tune(300 + n, status="training") for n in range(5)]
    snapshot = Snapshot({each.id: each for each in listed}, AT)
    event = Event("evt", "agent.baseline", "default", AT, facts=baseline_facts(snapshot, "default"))
    return build_message([event], replace(SETTINGS, **changed))


OUTAGE = Outage(
    AT - 660, 0.0, has_baseline=True, reason="dns", error="no address for api.cartesia.ai"
)


def _recovered_account() -> Message:
    changes = {"failed": 2, "completed": 5, "created": 1, "removed": 0}
    facts = recovery_facts(OUTAGE, 4_260, changes)
    return build_message([poll_recovered_event("store", KEY, OUTAGE, facts, AT)], SETTINGS)


def _circuit(*, opened: bool) -> Message:
    broken = CircuitState(1, AT - 5_400 * (not opened), open=True, reason="answered 404 no_service")
    states = (CIRCUIT_CLOSED, broken) if opened else (broken, CIRCUIT_CLOSED)
    event = circuit_event("store", "team-slack", *states, AT)
    assert event is not None
    return build_message([event], SETTINGS)


def _unknown_status() -> Message:
    facts = unknown_status_facts("paused", 3, last=False)
    event = Event("evt", "agent.unknown_status", "default", AT, facts=facts)
    return build_message([event], SETTINGS)


def _released() -> Message:
    reported = failures(3, 3, 7_200)
    note = "Muted until 14:00 by alice (dataset is being repaired): still failed"
    return build_message(reported, SETTINGS, contexts(reported), note)


def _mixed() -> Message:
    done = replace(failed(7, status="completed"), type="fine_tune.completed")
    late = replace(
        failed(8, status="created"),
        type="fine_tune.stuck",
        facts={"since": timestamp(AT - 30_000), "seconds": 30_000},
    )
    reported = [*failures(2, 2), done, late]
    return build_message(reported, SETTINGS, contexts(reported))


_HOSTILE = "<!channel> *b* _i_ `c` & <https://evil.example|x> \u202egnp.exe \n" + "\U0001f600" * 60


def _hostile() -> Message:
    tuned = FineTune("ft_<!here>`", _HOSTILE * 3, _HOSTILE * 40, *[_HOSTILE] * 4)
    event = Event("evt", "fine_tune.failed", "default", AT, tuned, _HOSTILE)
    return build_message([event], SETTINGS, {event.id: EventContext(1.0, 2.0, 11)}, note=_HOSTILE)


def _hostile_digest() -> Message:
    tuned = [FineTune(f"ft_{n}_{_HOSTILE}", _HOSTILE, "", *[_HOSTILE] * 4) for n in range(50)]
    reported = [
        Event(f"evt_{n}", "fine_tune.failed", "default", AT, each) for n, each in enumerate(tuned)
    ]
    return build_message(reported, SETTINGS, contexts(reported), note=_HOSTILE)


def _plain_failure() -> Message:
    return build_message([failed(3)], MessageSettings(LinkTemplates("https://play.cartesia.ai/")))


def _digest(number: int, same_dataset: int, seconds: float = 0.0) -> Message:
    reported = failures(number, same_dataset, seconds)
    return build_message(reported, SETTINGS, contexts(reported))


def forms() -> Mapping[str, Message]:
    """Return a message of each form, by what it shows."""
    return {
        "one failure with history": _failure(),
        "one failure without history and without pages": _plain_failure(),
        "a digest of 3": _digest(3, 1),
        "a digest of 14, most of one dataset": _digest(14, 12, 240),
        "a digest of 36": _digest(36, 10, 1_500),
        "a digest of several types": _mixed(),
        "a stuck fine-tune": _stuck(),
        "a completed fine-tune": _completed(),
        "a fine-tune that completed after it had failed": _recovered("completed"),
        "a fine-tune that trains again": _recovered("training"),
        "released after a mute": _released(),
        "a baseline": _baseline(),
        "a baseline for a receiver with match": _baseline(has_match=True),
        "an account that cannot be read": build_message(
            [poll_failing_event("store", KEY, OUTAGE, AT)], SETTINGS
        ),
        "an account that can be read again": _recovered_account(),
        "a receiver that rejects notifications": _circuit(opened=True),
        "a receiver that accepts notifications again": _circuit(opened=False),
        "an unknown status": _unknown_status(),
        "a test message": build_message([test_event("default", AT, "x")], SETTINGS),
        "hostile text": _hostile(),
        "a digest of hostile texts": _hostile_digest(),
    }


def page() -> str:
    """Return a page with every form as Slack shows it, as plain ``text``, and as mail."""
    rows, mentioning = [], dataclasses.replace(SLACK, mentions=MENTIONS)
    for name, message in forms().items():
        slack, mail = json.loads(mentioning.render(message)), json.loads(MAIL.render(message))
        text = _escaped(slack["text"])
        rows.append(
            f"<h2>{name}</h2><div class=row>{message_html(slack)}"
            f"<pre>{text}</pre><pre>{_escaped(mail['title'])}\n\n{_escaped(mail['body'])}</pre></div>"
        )
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}{_PAGE}</style>{''.join(rows)}"


_PAGE = """
body { margin: 16px; background: #fff; } h2 { font: 700 13px sans-serif; margin: 18px 0 4px; }
.row { display: grid; grid-template-columns: 680px 400px 400px; gap: 12px; align-items: start; }
.row > * { border: 1px solid #ddd; border-radius: 8px; }
pre { font: 11px/1.4 "DejaVu Sans Mono", "Noto Color Emoji", monospace; margin: 0; padding: 8px;
  white-space: pre-wrap; overflow-wrap: anywhere; max-height: 420px; overflow: hidden; }
"""


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def main() -> None:
    from playwright.sync_api import sync_playwright

    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "messages.html").write_text(page(), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        shown = browser.new_page(viewport={"width": 1560, "height": 900})
        shown.goto((folder / "messages.html").resolve().as_uri())
        height = shown.evaluate("document.documentElement.scrollHeight")
        for number, top in enumerate(range(0, height, 1500)):
            clip: Any = {"x": 0, "y": top, "width": 1560, "height": min(1500, height - top)}
            shown.screenshot(path=folder / f"messages-{number}.png", full_page=True, clip=clip)
        browser.close()


if __name__ == "__main__":
    main()
