"""`events list`: output and filters."""

import csv
import io
from dataclasses import replace

import pytest

from exporter.core.events import Event
from exporter.store.database import Database
from exporter.store.events import DELIVERED
from tests.cli.stored_state import CONTROL, HOSTILE, StoredState
from tests.store.sample_outbox import attempt, create_messages, failure, queue_events
from tests.store.sample_polls import NOW

COLUMNS = (
    *("observed_at", "type", "account", "subject", "name"),
    *("previous_status", "status", "receivers", "id"),
)
RECOVERED = Event(
    "evt_9", "agent.receiver_recovered", "", NOW + 9, facts={"receiver": "chat", "reason": "x"}
)


@pytest.fixture
def state(tmp_path) -> StoredState:
    stored = StoredState(tmp_path)

    async def fill(database: Database) -> None:
        await queue_events(database, [failure(1)], "ops", "chat", "gone")
        await create_messages(database, "ops")
        await attempt(database, "ops", DELIVERED)
        completed = failure(2, name=HOSTILE, status="completed")
        await queue_events(
            database, [replace(completed, type="fine_tune.completed", account="lab")]
        )
        await queue_events(database, [RECOVERED], "ops")

    stored.run(fill)
    return stored


def test_json_has_every_event_with_its_receivers_and_the_newest_last(state):
    rows = state.rows("events")
    assert [tuple(row) for row in rows] == [COLUMNS] * 3
    assert rows[0] == {
        "observed_at": "2027-01-15T08:00:01Z",
        "type": "fine_tune.failed",
        "account": "main",
        "subject": "ft_1",
        "name": "Voice 1",
        "previous_status": "training",
        "status": "failed",
        "receivers": {"chat": "pending", "gone": "orphaned", "ops": "delivered"},
        "id": "evt_1",
    }
    assert rows[1]["name"] == HOSTILE
    assert rows[2] | {"subject": "chat", "name": "", "status": None} == rows[2]


def test_csv_has_one_cell_per_field(state):
    rows = list(csv.DictReader(io.StringIO(state.output("events", "list", "--output=csv"))))
    assert rows[0]["receivers"] == "chat pending, gone orphaned, ops delivered"
    assert [row["previous_status"] for row in rows] == ["training", "training", ""]


def test_the_table_has_one_line_per_event_whatever_its_name(state):
    table = state.output("events", "list")
    assert table.endswith("\n3 events\n")
    assert table.count("\n") == 5
    assert not CONTROL.search(table)
    assert "chat pending, gone orphaned, ops delivered" in table


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--account=lab"], ["evt_2"]),
        (["--type=failed"], ["evt_1"]),
        (["--type=agent"], ["evt_9"]),
        (["--type=changed"], []),
        (["--fine-tune=ft_2"], ["evt_2"]),
        (["--fine-tune=ft_2", "--type=failed"], []),
    ],
)
def test_filters_by_account_type_and_fine_tune(state, arguments, found):
    assert [row["id"] for row in state.rows("events", *arguments)] == found


def test_the_newest_are_listed_and_the_others_counted(state):
    done = state.invoke("events", "list", "--limit=1", "--output=csv")
    assert (done.exit_code, done.stderr) == (0, "2 older ones are not shown: see --limit\n")
    assert done.stdout.count("\n") == 2
    assert "evt_9" in done.stdout
