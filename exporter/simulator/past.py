"""Simulated past of an account: what an agent would have stored over seven days."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random  # noqa: TID251 - seeded: it makes data, not jitter
from typing import Final

import msgspec

from exporter.core.account import AccountState, Router, Rules, apply_snapshot
from exporter.core.events import Event
from exporter.core.model import (
    COMPLETED,
    CREATED,
    FAILED,
    TRAINING,
    AccountKey,
    FineTune,
    Outage,
    Snapshot,
)
from exporter.core.retry import Attempt, Outcome
from exporter.core.view import SeriesOptions
from exporter.simulator.world import ACTIVE_STATUSES, DATASETS, HOSTILE_TEXTS, USES, VOICES, World
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.events import DEAD, DELIVERED, PENDING
from exporter.store.outbox import NewMessage, Outbox
from exporter.store.receiver_outbox import AttemptResult

HOUR: Final = 3600.0
PAST_SECONDS: Final = 7 * 24 * HOUR

_POLL_SECONDS: Final = 120.0
"""Changes within this time are seen by the same simulated poll, which saves commits."""

_OUTAGE: Final = (63.4 * HOUR, 61.2 * HOUR)
"""How long ago the simulated API could not be read: from, until."""

_STUCK_AFTER: Final = 6 * HOUR

_TRAINING_HOURS: Final = {
    "sonic-2": 1.1,
    "sonic-3-2025-10-27": 1.8,
    "sonic-3-2026-01-12": 2.2,
    "sonic-3.5-2026-05-04": 3.1,
}
_MODELS: Final = tuple(_TRAINING_HOURS)


@dataclass(frozen=True, slots=True)
class _Training:
    """A training: how many hours ago it was created, for how long it waited and trained.

    ``end`` is the status after it; None while it is under way. With ``again`` it is one more
    training of the fine-tune of that name.
    """

    name: str
    model_id: str
    dataset: str
    ago: float
    waited: float
    hours: float
    end: str | None
    again: bool = False


NEXT_FAILURE: Final = "Ada for the audiobook"
"""The name of a fine-tune that is in training at the end of the past, and may fail then."""

_FAILED_TWICE: Final = "Giulia, news desk"

_SCENES: Final = (
    # A dataset that fails again and again, the last time without the webhook being notified.
    _Training("Freja, podcast", _MODELS[2], "dataset_0007", 79.6, 0.12, 0.62, FAILED),
    _Training(_FAILED_TWICE, _MODELS[2], "dataset_0007", 30.2, 0.2, 0.71, FAILED),
    _Training(_FAILED_TWICE, _MODELS[2], "dataset_0007", 6.05, 0.15, 0.66, FAILED, again=True),
    _Training(HOSTILE_TEXTS[1], _MODELS[3], "dataset_0003", 13.4, 0.25, 4.05, FAILED),
    _Training("Emre, support line", _MODELS[1], "dataset_0010", 2.83, 0.11, 2.37, FAILED),
    _Training(HOSTILE_TEXTS[6], _MODELS[0], "dataset_0001", 1.9, 0.1, 1.07, COMPLETED),
    _Training("Jonas, navigation", _MODELS[3], "dataset_0011", 11.7, 0.32, 30.0, None),
    _Training("Ines, game character", _MODELS[3], "dataset_0005", 1.62, 0.2, 9.0, None),
    _Training(NEXT_FAILURE, _MODELS[2], "dataset_0002", 2.55, 0.18, 9.0, None),
)

_Attempts = Sequence[tuple[float, Outcome, str, float]]
"""Attempts of one message: seconds after the event, outcome, answer, seconds until it."""

_REFUSED: Final = (
    (2.0, Outcome.TRANSIENT, "no answer within 10s", 10.0),
    (19.0, Outcome.TRANSIENT, "answered 503", 0.21),
    (88.0, Outcome.TRANSIENT, "answered 503", 0.19),
    (341.0, Outcome.PAYLOAD, "answered 422", 0.24),
    (342.0, Outcome.PAYLOAD, "answered 422", 0.22),
)
_LATE: Final = (
    (1.0, Outcome.TRANSIENT, "answered 502", 0.17),
    (4.0, Outcome.TRANSIENT, "answered 502", 0.16),
    (31.0, Outcome.DELIVERED, "answered 204", 0.2),
)
_WEBHOOK: Final[Mapping[str, Sequence[_Attempts]]] = {
    _FAILED_TWICE: (_LATE, _REFUSED),
    HOSTILE_TEXTS[1]: (_LATE,),
}
"""Attempts of the webhook that differ, by the name of the fine-tune, for each of its failures."""

_ANSWERS: Final[Mapping[str, _Attempts]] = {
    "slack": ((1.0, Outcome.DELIVERED, "answered 200", 0.31),),
    "webhook": ((1.0, Outcome.DELIVERED, "answered 204", 0.08),),
}


@dataclass(frozen=True, slots=True)
class _Change:
    """A status that a training enters, and how many seconds ago."""

    ago: float
    training: _Training
    status: str


async def write_past(path: Path, key: AccountKey, world: World, end: float) -> None:
    """Store what an agent would have stored in the PAST_SECONDS before ``end`` (Unix seconds).

    Every fine-tune of ``world`` has ended before; at the end, the world has those that the past
    added. The receivers are ``slack`` and ``webhook``. Raises StoreError.
    """
    for each in list(world):
        if each.status in ACTIVE_STATUSES:
            world.set_status(each.id, COMPLETED)
    async with Database(path) as database:
        writer = _Writer(database, key, end)
        await writer.poll(world, PAST_SECONDS)
        ids: dict[_Training, str] = {}
        begin, until = _OUTAGE
        is_over = False
        for ago, changes in _polls(_changes(Random(world.population.seed))):  # noqa: S311
            if ago <= until and not is_over:
                await writer.fail(begin)
                await writer.poll(world, until)
                is_over = True
            for change in changes:
                _apply(world, change, ids)
            if not until < ago <= begin:
                await writer.poll(world, ago)
        await writer.poll(world, 0.0)


def _changes(random: Random) -> list[_Change]:
    """Return the changes of all trainings, oldest first."""
    changes = [
        change
        for training in (*_SCENES, *_usual_trainings(random))
        for change in _statuses(training)
        if change.ago > 0
    ]
    return sorted(changes, key=lambda each: -each.ago)


def _usual_trainings(random: Random) -> Iterator[_Training]:
    """Yield trainings over the whole past, most by day; some of them fail."""
    ago = PAST_SECONDS / HOUR - 2.0
    while ago > 5.0:  # noqa: PLR2004 - the scenes fill the hours after it
        model = random.choice(_MODELS)
        failed = random.random() < 0.12  # noqa: PLR2004
        share = random.uniform(0.2, 0.9) if failed else random.gauss(1.0, 0.12)
        yield _Training(
            random.choice(HOSTILE_TEXTS[6:9])
            if random.random() < 0.06  # noqa: PLR2004
            else f"{random.choice(VOICES)}, {random.choice(USES)}",
            model,
            random.choice(DATASETS),
            ago,
            random.uniform(0.05, 0.4),
            _TRAINING_HOURS[model] * max(share, 0.2),
            FAILED if failed else COMPLETED,
        )
        ago -= random.expovariate(1 / 4.2)


def _statuses(training: _Training) -> Iterator[_Change]:
    ago = training.ago * HOUR
    yield _Change(ago, training, CREATED)
    ago -= training.waited * HOUR
    yield _Change(ago, training, TRAINING)
    if training.end is not None:
        yield _Change(ago - training.hours * HOUR, training, training.end)


def _polls(changes: Iterable[_Change]) -> Iterator[tuple[float, list[_Change]]]:
    """Yield the changes that each poll sees, and how many seconds ago it was."""
    seen: list[_Change] = []
    for change in changes:
        if seen and seen[0].ago - change.ago > _POLL_SECONDS:
            yield seen[-1].ago, seen
            seen = []
        seen.append(change)
    if seen:
        yield seen[-1].ago, seen


def _apply(world: World, change: _Change, ids: dict[_Training, str]) -> None:
    training = change.training
    if change.status != CREATED:
        world.set_status(ids[training], change.status)
    elif training.again:
        ids[training] = next(key for each, key in ids.items() if each.name == training.name)
        world.set_status(ids[training], CREATED)
    else:
        ids[training] = world.add(
            name=training.name,
            description=f"Voice of {training.name}",
            model_id=training.model_id,
            dataset=training.dataset,
        ).id


class _Writer:
    """Stores what each simulated poll finds, and the deliveries that follow."""

    def __init__(self, database: Database, key: AccountKey, end: float) -> None:
        self._database = database
        self._key = key
        self._end = end
        self._accounts = Accounts(database)
        self._rules = Rules(database.store_id, key, "summary", 50, _STUCK_AFTER)
        self._state: AccountState | None = None
        self._failures = Counter[str]()

    async def poll(self, world: World, ago: float) -> None:
        fine_tunes = {
            each.id: msgspec.convert(each, FineTune, from_attributes=True) for each in world
        }
        at = self._end - ago
        snapshot = Snapshot(fine_tunes, at)
        result = apply_snapshot(self._state, snapshot, self._rules, SeriesOptions(), _route)
        self._state = result.state
        await self._accounts.commit(result)
        if any(receivers for _, receivers in result.events):
            for receiver in _ANSWERS:
                await self._deliver(receiver, at)

    async def fail(self, ago: float) -> None:
        outage = Outage(
            self._end - ago, self._database.awake.now(), has_baseline=True, reason="server_error"
        )
        await self._accounts.store_outage(self._key, outage, ())

    async def _deliver(self, receiver: str, at: float) -> None:
        outbox = Outbox(self._database, receiver)
        for item in await outbox.unsent():
            await outbox.create_messages([NewMessage(item.event.id, b"{}", (item.number,))], at)
            message = await outbox.next()
            assert message is not None
            attempts = self._attempts(receiver, item.event)
            for number, (after, outcome, answer, seconds) in enumerate(attempts, 1):
                state = DELIVERED if outcome is Outcome.DELIVERED else PENDING
                if outcome is Outcome.PAYLOAD and number == len(attempts):
                    state = DEAD
                attempt = Attempt(outcome, answer)
                awake = self._database.awake.now()
                result = AttemptResult(state, at + after, awake, attempt, seconds=seconds)
                await outbox.record(message, result)

    def _attempts(self, receiver: str, event: Event) -> _Attempts:
        if receiver == "webhook" and event.fine_tune is not None:
            name = event.fine_tune.name
            self._failures[name] += 1
            different = _WEBHOOK.get(name, ())
            if self._failures[name] <= len(different):
                return different[self._failures[name] - 1]
        return _ANSWERS[receiver]


_route: Router = lambda event: (  # noqa: E731
    list(_ANSWERS) if event.type in {"fine_tune.failed", "agent.baseline"} else ()
)
