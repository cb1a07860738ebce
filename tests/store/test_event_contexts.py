"""What the store knows about the events of a message."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, event

from exporter.core.account import AccountState
from exporter.core.event_context import EventContext
from exporter.core.events import Event
from exporter.core.model import FineTune
from exporter.store.database import Database
from exporter.store.outbox import Outbox
from tests.store.sample_outbox import failure, queue_events
from tests.store.sample_polls import NOW, commit_snapshot, fine_tune, snapshot_of

HOUR = 3600.0
DAY = 24 * HOUR


class Account:
    """An account whose polls are committed one by one; its events are queued for `slack`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._state: AccountState | None = None

    async def poll(self, at: float, *fine_tunes: FineTune) -> None:
        snapshot = snapshot_of(*fine_tunes, at=NOW + at)
        self._state = await commit_snapshot(self._database, self._state, snapshot, ["slack"])

    async def train(self, fine_tune_id: str, begin: float, seconds: float, ended_as: str) -> None:
        """Have a fine-tune train for so long from ``begin`` on; it is the only one listed."""
        await self.poll(begin, fine_tune(fine_tune_id))
        await self.poll(begin + seconds, fine_tune(fine_tune_id, ended_as))


async def contexts(database: Database, receiver: str = "slack") -> dict[str, EventContext]:
    """Return the contexts of all queued events, as of one message, by type and id."""
    outbox = Outbox(database, receiver)
    queued = await outbox.unsent()
    found = await outbox.contexts(queued)
    return {
        f"{each.event.type.partition('.')[2]} {each.event.subject}": found[each.event.id]
        for each in queued
        if each.event.id in found
    }


async def test_a_failure_after_trainings_of_its_model(database):
    account = Account(database)
    await account.poll(0)
    for number, hours in enumerate((4, 5, 9)):
        await account.train(f"done{number}", DAY * (number + 1), hours * HOUR, "completed")
    await account.train("ft", 5 * DAY, 2 * HOUR, "failed")
    outbox = Outbox(database, "slack")
    ends = {"fine_tune.completed", "fine_tune.failed"}
    ended = [each for each in await outbox.unsent() if each.event.type in ends]
    found = [(await outbox.contexts([each]))[each.event.id] for each in ended]
    # A completed training does not make its own length usual.
    assert found == [
        EventContext(4 * HOUR, None),
        EventContext(5 * HOUR, 4 * HOUR),
        EventContext(9 * HOUR, 4.5 * HOUR),
        EventContext(2 * HOUR, 5 * HOUR),
    ]
    together = await outbox.contexts(ended)
    assert {each.usual_seconds for each in together.values()} == {None}


async def test_a_training_whose_begin_was_not_seen_has_no_length(database):
    account = Account(database)
    await account.poll(0, fine_tune("ft"))
    await account.poll(HOUR, fine_tune("ft", "failed"))
    assert (await contexts(database))["failed ft"].trained_seconds is None


async def test_each_event_has_the_training_that_it_ended(database):
    account = Account(database)
    await account.poll(0)
    await account.train("ft", HOUR, HOUR, "failed")
    await account.poll(3 * HOUR, fine_tune("ft"))
    await account.poll(4 * HOUR, fine_tune("ft"))  # confirms that it left the status failed
    await account.poll(7 * HOUR, fine_tune("ft", "failed"))
    outbox = Outbox(database, "slack")
    failed = [each for each in await outbox.unsent() if each.event.type == "fine_tune.failed"]
    found = await outbox.contexts(failed)
    assert [found[each.event.id].trained_seconds for each in failed] == [HOUR, 3 * HOUR]


async def test_a_failure_without_a_training_has_no_length(database):
    account = Account(database)
    await account.poll(0)
    await account.poll(HOUR, fine_tune("ft", "created"))
    await account.poll(2 * HOUR, fine_tune("ft", "failed"))
    assert (await contexts(database))["failed ft"] == EventContext()


async def test_a_stuck_fine_tune_has_the_length_of_its_training_so_far(database):
    def stuck(fine_tune_id: str, status: str) -> Event:
        tuned = FineTune(fine_tune_id, model_id="sonic-3", status=status)
        facts = {"since": "2027-01-15T08:00:00Z", "seconds": 25_000}
        return Event(f"evt_{fine_tune_id}", "fine_tune.stuck", "main", NOW, tuned, status, facts)

    await queue_events(database, [stuck("a", "Training"), stuck("b", "created")], "slack")
    found = await contexts(database)
    assert found["stuck a"].trained_seconds == 25_000
    assert found["stuck b"].trained_seconds is None


async def test_failures_of_a_dataset_are_counted_up_to_the_message(database):
    old = Event("old", "fine_tune.failed", "main", NOW - 7 * DAY - 1, FineTune("o", dataset="ds"))
    first = [failure(n, dataset="ds") for n in range(3)]
    others = [failure(5, dataset="other"), failure(6, dataset="")]
    elsewhere = Event("else", "fine_tune.failed", "research", NOW, FineTune("e", dataset="ds"))
    last = failure(9, dataset="ds")
    await queue_events(database, [old, *first, *others, elsewhere, last], "slack")
    outbox = Outbox(database, "slack")
    queued = {each.event.id: each for each in await outbox.unsent()}

    async def count(*ids: str) -> int | None:
        found = await outbox.contexts([queued[each] for each in ids])
        return found[ids[0]].failures_of_dataset_7d

    assert await count("evt_0") == 1
    assert await count("evt_1") == 2
    assert await count("evt_2") == 3
    assert await count("evt_9") == 4
    assert await count("evt_0", "evt_1", "evt_2") == 3
    assert await count("evt_5") == 1
    assert await count("evt_6") is None
    assert await count("else") == 1
    assert await count("old") == 1


async def test_events_of_the_agent_have_no_context(database):
    await queue_events(database, [Event("evt", "agent.test", "main", NOW)], "slack")
    outbox = Outbox(database, "slack")
    assert await outbox.contexts(await outbox.unsent()) == {}


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    statements: list[str] = []

    def count(connection, cursor, statement, *_) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    yield statements
    event.remove(Engine, "before_cursor_execute", count)


async def test_the_contexts_of_thousands_take_few_queries(database):
    failures = [
        failure(n, dataset=f"ds_{n % 700}", model_id=f"sonic-{n % 3}") for n in range(3_000)
    ]
    await queue_events(database, failures, "slack")
    outbox = Outbox(database, "slack")
    queued = await outbox.unsent()
    with counted_statements() as statements:
        found = await outbox.contexts(queued)
    assert len([each for each in statements if each.startswith("SELECT")]) <= 10
    assert len(found) == 1_000
    assert found["evt_0"].failures_of_dataset_7d == 5
