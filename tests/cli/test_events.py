"""`events list`: output and filters."""

import csv
import io
import json
from dataclasses import replace

import pytest

from exporter.core.events import Event
from exporter.core.records import DeliveryRecord, EventRecord
from exporter.store.database import Database
from exporter.store.events import DELIVERED
from tests.cli.stored_state import CONTROL, HOSTILE, StoredState
from tests.store.sample_outbox import attempt, create_messages, failure, queue_events
from tests.store.sample_polls import NOW

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


def test_json_has_every_event_with_its_deliveries_and_the_newest_last(state):
    rows = state.rows("events")
    assert [tuple(row) for row in rows] == [EventRecord.__struct_fields__] * 3
    deliveries = rows[0].pop("deliveries")
    assert rows[0] == {
        "id": "evt_1",
        "type": "fine_tune.failed",
        "title": "Fine-tune failed",
        "account": "main",
        "observed_at": "2027-01-15T08:00:01Z",
        "fine_tune": "ft_1",
        "name": "Voice 1",
        "model_id": "unknown",
        "dataset": "",
        "status": "failed",
        "previous_status": "training",
        "facts": {},
    }
    assert {tuple(each) for each in deliveries} == {DeliveryRecord.__struct_fields__}
    states = {each["receiver"]: each["state"] for each in deliveries}
    assert states == {"chat": "pending", "gone": "orphaned", "ops": "delivered"}
    assert rows[1]["name"] == HOSTILE
    assert rows[2] | {"name": "", "status": None, "fine_tune": None} == rows[2]
    assert rows[2]["facts"] == {"receiver": "chat", "reason": "x"}


def test_csv_has_one_cell_per_field(state):
    rows = list(csv.DictReader(io.StringIO(state.output("events", "list", "--output=csv"))))
    assert tuple(rows[0]) == EventRecord.__struct_fields__
    assert [each["state"] for each in json.loads(rows[0]["deliveries"])] == [
        *("pending", "orphaned", "delivered")
    ]
    assert [row["previous_status"] for row in rows] == ["training", "training", ""]


def test_the_table_has_one_line_per_event_whatever_its_name(state):
    table = state.output("events", "list")
    assert table.endswith("\n3 events\n")
    assert table.count("\n") == 5
    assert not CONTROL.search(table)
    assert "chat pending, gone orphaned, ops 15 Jan" in table


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


def test_the_newest_are_listed_and_the_others_reported(state):
    done = state.invoke("events", "list", "--limit=1", "--output=csv")
    assert (done.exit_code, done.stderr) == (0, "older ones are not shown: see --limit\n")
    assert done.stdout.count("\n") == 2
    assert "evt_9" in done.stdout
