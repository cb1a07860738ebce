"""Histories of polls, and the results computed from them."""

from collections.abc import Iterable, Mapping

from hypothesis import strategies as st

from exporter.core.account import AccountState, FirstRun, PollResult, Rules, apply_snapshot
from exporter.core.events import Event
from exporter.core.model import AccountKey, FineTune, Snapshot, Transition, status_label
from exporter.core.status import canonical_status
from exporter.core.view import SeriesOptions

Poll = Mapping[str, str]
"""The status of each fine-tune in the list, by id."""

KEY = AccountKey("default", "https://api.cartesia.ai")
START = 1_000.0
INTERVAL = 60.0

STATUSES = ("created", "training", "completed", "failed", "paused", "unknown", "")

SAME = "a"
"""The id of one whose texts are the same in every poll, so that all that can change is its status.

The others have another name each time: whatever was read of them is to be stored.
"""

histories = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(STATUSES)), min_size=1, max_size=14
)


def rules(first_run: FirstRun = "summary", max_models: int = 50, stuck_after: float = 1e9) -> Rules:
    return Rules("store", KEY, first_run, max_models, stuck_after)


def snapshot(poll: Poll, number: int = 0) -> Snapshot:
    """The reading of a poll; a fine-tune's model follows from its id."""
    fine_tunes = {
        key: FineTune(key, _name(key, number), model_id=f"model-{key}", status=status)
        for key, status in poll.items()
    }
    return Snapshot(fine_tunes, START + number * INTERVAL)


def _name(fine_tune: str, number: int) -> str:
    return "the same" if fine_tune == SAME else f"poll {number}"


def poll_result(
    state: AccountState | None, read: Snapshot, following: Rules | None = None
) -> PollResult:
    """The result of one poll without receivers."""
    return apply_snapshot(state, read, following or rules(), SeriesOptions(), lambda _: ())


def poll_results(polls: Iterable[Poll], following: Rules | None = None) -> list[PollResult]:
    """The result of each poll, the baseline first."""
    results: list[PollResult] = []
    state: AccountState | None = None
    for number, poll in enumerate(polls):
        results.append(poll_result(state, snapshot(poll, number), following))
        state = results[-1].state
    return results


def events_of(result: PollResult) -> list[Event]:
    """The events of a poll, without the reports of unknown statuses."""
    return [event for event, _ in result.events if event.type != "agent.unknown_status"]


def unknown_statuses_of(result: PollResult) -> list[str]:
    """The unknown statuses that a poll reports."""
    return [
        str(event.facts["status"])
        for event, _ in result.events
        if event.type == "agent.unknown_status"
    ]


def of_one(history: str, fine_tune: str = "ft") -> list[Poll]:
    """The polls of a single fine-tune from words such as ``created - failed``; - is absence."""
    return [{} if status == "-" else {fine_tune: status} for status in history.split()]


def readings(polls: list[Poll], fine_tune: str, upto: int) -> list[str | None]:
    return [poll.get(fine_tune) for poll in polls[: upto + 1]]


def confirmed(seen: list[str | None]) -> str | None:
    """The status that counts after all these readings of one fine-tune; None if it never was."""
    if not seen:
        return None
    before, now = confirmed(seen[:-1]), seen[-1]
    if now is None:
        return before
    if before not in {"failed", "completed"} or now in {before, "failed"}:
        return now
    last = seen[-2]
    return now if last is not None and last != before else before


def transition_of(
    fine_tune: FineTune,
    sequence: int = 2,
    previous: str | None = None,
    removal: int = 0,
    time_in_status: float | None = None,
) -> Transition:
    """A transition, with the labels that follow from its statuses."""
    origin = "none" if previous is None else status_label(canonical_status(previous))
    target = status_label(canonical_status(fine_tune.status))
    return Transition(fine_tune, sequence, previous, origin, target, removal, time_in_status)
