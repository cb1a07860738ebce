"""Alerts as they would be, for `send-test`; each says that it is a test."""

import secrets
from collections.abc import Callable, Mapping
from typing import Final, Literal

from exporter.core.model import FAILED, TRAINING, Event, FineTune, stable_id

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


def word_of_the_agent(account: str, now: float) -> Event:
    """Return the agent's word that alerts arrive, observed at ``now`` (Unix seconds)."""
    text = "If you can read this, alerts of failed fine-tunes will arrive here."
    event_id = stable_id("evt", "test", secrets.token_hex(16))
    return Event(event_id, "agent.test", account, now, facts={"text": text})


def sample_events(sample: Sample, account: str, now: float) -> list[Event]:
    """Return the events of a sample, observed at ``now`` (Unix seconds).

    Their ids begin with ``test_``, as those of the fine-tunes, whose names begin with TEST; and
    they are new each time: a receiver that knows a repeat by its id would drop the second try.
    """
    return [_failed(fine_tune, account, now) for fine_tune in _FINE_TUNES[sample]()]


def _failed(fine_tune: FineTune, account: str, now: float) -> Event:
    event_id = stable_id("test", secrets.token_hex(16))
    return Event(event_id, "fine_tune.failed", account, now, fine_tune, TRAINING)


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
