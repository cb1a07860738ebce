"""`events list`: output and filters."""

import csv
import io
import json
import time

import pytest
from msgspec.structs import replace

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
        (["--fine-tune=ft_"], ["evt_1", "evt_2"]),
        (["--fine-tune=FT_"], []),
        (["--fine-tune=t_1"], []),
        (["--receiver=gone"], ["evt_1"]),
        (["--receiver=ops"], ["evt_1", "evt_9"]),
        (["--status=completed"], ["evt_2"]),
        (["--status=completed", "--status=failed"], ["evt_1", "evt_2"]),
        (["--type=failed", "--type=agent.receiver_recovered"], ["evt_1", "evt_9"]),
    ],
)
def test_filters_by_account_type_and_fine_tune(state, arguments, found):
    assert [row["id"] for row in state.rows("events", *arguments)] == found


def test_the_newest_are_listed_and_the_others_reported(state):
    done = state.invoke("events", "list", "--limit=1", "--output=csv")
    assert (done.exit_code, done.stderr) == (0, "older records are not shown, see --limit\n")
    assert done.stdout.count("\n") == 2
    assert "evt_9" in done.stdout


def test_an_id_is_not_taken_for_the_beginning_of_another(state):
    async def longer(database: Database) -> None:
        await queue_events(database, [failure(10)])

    state.run(longer)
    assert [row["id"] for row in state.rows("events", "--fine-tune=ft_1")] == ["evt_1"]


def test_events_of_the_last_hours_are_listed(tmp_path):
    state = StoredState(tmp_path)
    now = time.time()

    async def fill(database: Database) -> None:
        ages = {1: 25 * 3600, 2: 23 * 3600, 3: 60}
        recent = [replace(failure(n), observed_at=now - age) for n, age in ages.items()]
        await queue_events(database, recent, "ops")

    state.run(fill)
    for since, numbers in (("24h", [2, 3]), ("1h30m", [3]), ("2d", [1, 2, 3])):
        for group, field in (("events", "id"), ("deliveries", "event")):
            found = [row[field] for row in state.rows(group, f"--since={since}")]
            assert found == [f"evt_{number}" for number in numbers]
