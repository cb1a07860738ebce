"""What the API answered about fine-tunes, poll after poll, and the account that follows from it."""

from collections.abc import Iterable, Mapping

from exporter.core.account import AccountState, FirstRun, Rules, Step, advance
from exporter.core.model import AccountKey, FineTune, Snapshot

Poll = Mapping[str, str]
"""The status of each fine-tune in the list, by id."""

KEY = AccountKey("default", "https://api.cartesia.ai")
START = 1_000.0
INTERVAL = 60.0


def rules(first_run: FirstRun = "summary", max_models: int = 50) -> Rules:
    return Rules("store", KEY, first_run, max_models)


def snapshot(poll: Poll, number: int = 0) -> Snapshot:
    """The reading of a poll; a fine-tune's model follows from its id."""
    fine_tunes = {
        key: FineTune(key, name=f"poll {number}", model_id=f"model-{key}", status=status)
        for key, status in poll.items()
    }
    return Snapshot(fine_tunes, START + number * INTERVAL)


def steps(polls: Iterable[Poll], following: Rules | None = None) -> list[Step]:
    """What each poll leads to, the baseline first."""
    taken: list[Step] = []
    state: AccountState | None = None
    for number, poll in enumerate(polls):
        taken.append(advance(state, snapshot(poll, number), following or rules()))
        state = taken[-1].state
    return taken


def of_one(history: str) -> list[Poll]:
    """The polls of a single fine-tune from words such as ``created - failed``; - is absence."""
    return [{} if status == "-" else {"ft": status} for status in history.split()]
