"""What the log says of a complete poll."""

from collections.abc import Sequence
from typing import Final

from structlog.typing import FilteringBoundLogger

from exporter.core.message import timestamp
from exporter.core.model import Event, Snapshot
from exporter.core.text import one_line

_MOST_LOGGED: Final = 100
"""How many changes of one poll get a log line each; a baseline gone wrong must not fill a disk."""


def tell_poll(log: FilteringBoundLogger, snapshot: Snapshot) -> None:
    """Say what was read, and whether the clock is another than it was."""
    log.debug(
        "polled",
        fine_tunes=len(snapshot.fine_tunes),
        pages=snapshot.pages,
        seconds=round(snapshot.duration, 3),
    )
    if snapshot.clock_jump:
        log.warning(
            "the clock was set, or this machine slept: what waits does not count that time",
            clock=timestamp(snapshot.read_at),
            expected=timestamp(snapshot.read_at - snapshot.clock_jump),
        )


def tell_changes(log: FilteringBoundLogger, events: Sequence[Event]) -> None:
    """Say what became of fine-tunes; of many, how many more there are."""
    changes = [event for event in events if event.fine_tune is not None]
    for event in changes[:_MOST_LOGGED]:
        _tell_change(log, event)
    if len(changes) > _MOST_LOGGED:
        log.info("more fine-tunes changed", number=len(changes) - _MOST_LOGGED)


def _tell_change(log: FilteringBoundLogger, event: Event) -> None:
    assert event.fine_tune is not None
    changed = "fine-tune " + event.type.removeprefix("fine_tune.")
    log.info(
        changed,
        fine_tune=one_line(event.fine_tune.id),
        name=one_line(event.fine_tune.name, 100),
        model=one_line(event.fine_tune.model_id, 100),
        previous=one_line(event.previous_status or "none", 100),
        status=one_line(event.fine_tune.status, 100),
    )
