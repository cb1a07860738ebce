"""`deliveries`: output of list and show, and the effects of retry, discard and reassign."""

import csv
import io
import json
import re
import sqlite3

import pytest

from exporter.cli.output import body_lines
from exporter.core.records import DeliveryRecord
from exporter.store.database import Database
from exporter.store.events import DEAD, DELIVERED, PENDING
from exporter.store.outbox import Outbox
from tests.cli.stored_state import CONTROL, HOSTILE, StoredState
from tests.store.sample_outbox import attempt, create_messages, failure, queue, queue_events

EVERY_STATE = {
    ("ops", "evt_1"): "delivered",
    ("ops", "evt_2"): "dead",
    ("ops", "evt_3"): "pending",
    ("chat", "evt_4"): "pending",
    ("gone", "evt_5"): "orphaned",
    ("ops", "evt_6"): "discarded",
}


@pytest.fixture
def state(tmp_path) -> StoredState:
    """A state with one delivery in every state, and two that are pending."""
    stored = StoredState(tmp_path)

    async def fill(database: Database) -> None:
        await queue(database, [1, 2], "ops")
        await create_messages(database, "ops")
        await attempt(database, "ops", DELIVERED, "answered 200")
        await attempt(database, "ops", DEAD, "answered 400")
        await queue(database, [3], "ops")
        await queue(database, [4], "chat")
        await queue(database, [5], "gone")
        await queue(database, [6], "ops")
        await create_messages(database, "ops")

    stored.run(fill)
    assert stored.invoke("deliveries", "discard", "evt_6").exit_code == 0
    return stored


def test_json_has_all_fields_of_every_delivery(state):
    rows = state.rows("deliveries", "--state=all")
    assert state.states() == EVERY_STATE
    assert {tuple(row) for row in rows} == {DeliveryRecord.__struct_fields__}
    assert rows[1] == {
        "id": "evt_2:ops",
        "event": "evt_2",
        "type": "fine_tune.failed",
        "account": "main",
        "fine_tune": "ft_2",
        "name": "Voice 2",
        "status": "failed",
        "observed_at": "2027-01-15T08:00:02Z",
        "receiver": "ops",
        "state": "dead",
        "queued_at": "2027-01-15T08:00:02Z",
        "settled_at": "2027-01-15T08:01:40Z",
        "attempts": 1,
        "last_attempt_at": "2027-01-15T08:01:40Z",
        "next_attempt_at": None,
        "held_until": None,
        "mute": None,
        "muted_until": None,
        "muted_until_recovered": False,
        "muted_by": "",
        "discarded_by": "",
        "answer": "answered 400",
        "message": "evt_2",
        "message_events": 1,
    }
    assert rows[3]["last_attempt_at"] is None


def test_csv_has_one_cell_per_field(state):
    text = state.output("deliveries", "list", "--state=dead", "--output=csv")
    [dead] = state.rows("deliveries", "--state=dead")
    cells = [{None: "", False: "false"}.get(each, str(each)) for each in dead.values()]
    assert list(csv.reader(io.StringIO(text))) == [list(DeliveryRecord.__struct_fields__), cells]


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        ([], [2, 3, 4, 5]),
        (["--state=all"], [1, 2, 3, 4, 5, 6]),
        (["--state=pending"], [3, 4]),
        (["--state=dead"], [2]),
        (["--state=orphaned"], [5]),
        (["--state=delivered"], [1]),
        (["--state=discarded"], [6]),
        (["--receiver=gone"], [5]),
        (["--receiver=ops", "--state=pending"], [3]),
    ],
)
def test_the_table_lists_the_selected_deliveries_with_the_newest_last(state, arguments, numbers):
    *lines, last = state.output("deliveries", "list", *arguments).splitlines()
    found = re.findall(r"  (evt_\d):", "\n".join(lines))
    assert found == [f"evt_{number}" for number in numbers]
    assert len(lines) == 1 + len(numbers)
    assert last == f"{len(numbers)} deliveries"


def test_the_beginning_of_an_id_with_a_receiver_selects_one_delivery(tmp_path):
    state = StoredState(tmp_path)

    async def fill(database: Database) -> None:
        await queue(database, [21], "ops", "chat")
        await queue(database, [22], "ops")
        await create_messages(database, "ops", digest=True)

    state.run(fill)
    assert "receiver: chat" in state.output("deliveries", "show", "evt_21:chat")
    state.output("deliveries", "discard", "evt_2:chat")
    pending = {("ops", "evt_21"): "pending", ("ops", "evt_22"): "pending"}
    assert state.states() == pending | {("chat", "evt_21"): "discarded"}
    # An event within a digest stands for the message that carries it.
    assert "events: 2" in state.output("deliveries", "show", "evt_22…:ops")
    assert state.output("deliveries", "discard", "evt_22:ops").startswith("1 delivery of ops")
    assert set(state.states().values()) == {"discarded"}


@pytest.mark.parametrize("output", ["table", "json", "csv"])
def test_omitted_deliveries_are_reported_on_standard_error(state, output):
    done = state.invoke("deliveries", "list", "--limit=1", f"--output={output}")
    assert (done.exit_code, done.stderr) == (0, "older records are not shown, see --limit\n")
    assert "evt_5" in done.stdout
    assert "evt_4" not in done.stdout


def test_show_finds_a_delivery_by_the_prefix_of_its_id(state):
    async def digest(database: Database) -> None:
        await queue(database, [7, 8], "chat")
        await create_messages(database, "chat", digest=True)

    state.run(digest)
    output = state.output("deliveries", "show", "msg").splitlines()
    fields = dict(line.split(": ", 1) for line in output if ": " in line and line[0] != " ")
    assert fields["id"].startswith("msg_")
    assert fields | {"state": "pending", "events": "3", "in_flight": "no"} == fields
    assert "last_result:" in output
    assert "  fine_tune.failed  main  ft_7  Voice 7  training → failed  evt_7" in output
    assert "\n".join(output[output.index("body:") + 1 :]) == '{\n  "digest": true\n}'


def test_show_explains_a_missing_body(state):
    assert state.output("deliveries", "show", "evt_5").endswith("(no message carries it yet)\n")

    async def empty_body(database: Database) -> None:
        delivery = await Outbox(database, "ops").next()
        assert delivery is not None
        await Outbox(database, "ops").replace_body(delivery, b"")

    state.run(empty_body)
    assert "(none: it could not be rendered" in state.output("deliveries", "show", "evt_3")


def test_an_id_of_two_receivers_selects_both_or_one_by_receiver(state):
    async def both(database: Database) -> None:
        await queue(database, [9], "ops", "chat")

    state.run(both)
    assert state.output("deliveries", "show", "evt_9").count("receiver: ") == 2
    assert state.output("deliveries", "show", "evt_9", "--receiver=chat").count("receiver: ") == 1
    output = state.output("deliveries", "retry", "evt_9")
    assert output == "1 delivery of chat, 1 delivery of ops will be tried at once\n"
    state.output("deliveries", "discard", "evt_9", "--receiver=chat")
    assert state.states() == EVERY_STATE | {
        ("ops", "evt_9"): "pending",
        ("chat", "evt_9"): "discarded",
    }


def test_hostile_text_is_cleaned_in_tables_and_unchanged_in_json(tmp_path):
    state = StoredState(tmp_path)

    async def fill(database: Database) -> None:
        await queue_events(database, [failure(1, name=HOSTILE)], "ops")
        await create_messages(database, "ops")
        await attempt(database, "ops", PENDING, HOSTILE)

    state.run(fill)
    table = state.output("deliveries", "list")
    output = state.output("deliveries", "show", "evt_1")
    assert not CONTROL.search(table + output)
    assert table.count("\n") == 3
    assert "[bold]markup[/]" in table
    assert "[bold]markup[/]" in output
    assert state.rows("deliveries")[0]["answer"] == HOSTILE


@pytest.mark.parametrize(
    ("arguments", "output", "changed"),
    [
        (["--state=dead"], "1 delivery of ops", {("ops", "evt_2"): "pending"}),
        (["--receiver=ops"], "2 deliveries of ops", {("ops", "evt_2"): "pending"}),
        (["--all"], "1 delivery of chat, 2 deliveries of ops", {("ops", "evt_2"): "pending"}),
        (["evt_2", "evt_3"], "2 deliveries of ops", {("ops", "evt_2"): "pending"}),
        (["--receiver=chat"], "1 delivery of chat", {}),
    ],
)
def test_retry_changes_selected_pending_and_dead_deliveries(state, arguments, output, changed):
    line = state.output("deliveries", "retry", *arguments)
    assert line == f"{output} will be tried at once\n"
    assert state.states() == EVERY_STATE | changed


@pytest.mark.parametrize(
    ("arguments", "output", "discarded"),
    [
        (["evt_3"], "1 delivery of ops", [3]),
        (["--state=orphaned"], "1 delivery of gone", [5]),
        (["--receiver=ops", "--state=dead"], "1 delivery of ops", [2]),
        (["--receiver=ops"], "2 deliveries of ops", [2, 3]),
        (["--all"], "1 delivery of chat, 1 delivery of gone, 2 deliveries of ops", [2, 3, 4, 5]),
    ],
)
def test_discard_changes_selected_unsettled_deliveries(state, arguments, output, discarded):
    line = state.output("deliveries", "discard", *arguments)
    assert (
        line == f"{output} discarded; see `cartesia-exporter deliveries list --state discarded`\n"
    )
    changed = {key: "discarded" for key in EVERY_STATE if int(key[1][-1]) in discarded}
    assert state.states() == EVERY_STATE | changed


def test_reassign_moves_unsettled_deliveries(state):
    output = state.output("deliveries", "reassign", "--from=ops", "--to=chat")
    assert output == "2 events of ops will be sent to chat at once\n"
    output = state.output("deliveries", "reassign", "--from=gone", "--to=chat")
    assert output == "1 event of gone will be sent to chat at once\n"
    pending = {("chat", f"evt_{number}"): "pending" for number in (2, 3, 4, 5)}
    settled = {("ops", "evt_1"): "delivered", ("ops", "evt_6"): "discarded"}
    assert state.states() == pending | settled


def test_reassign_reports_events_that_the_target_has_already(state):
    async def both(database: Database) -> None:
        await queue(database, [9], "gone", "chat")

    state.run(both)
    output = state.output("deliveries", "reassign", "--from=gone", "--to=chat")
    assert output == (
        "1 event of gone will be sent to chat at once; 1 discarded because chat has them already\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["retry"], "select deliveries by ID"),
        (["discard"], "select deliveries by ID"),
        (["discard", "--all", "evt_2"], "--all excludes IDs, --receiver and --state"),
        (["retry", "--all", "--receiver=ops"], "--all excludes IDs, --receiver and --state"),
        (["retry", "--state=orphaned"], "'orphaned' is not one of"),
        (["list", "--limit=0"], "not in the range"),
        (["show"], "Missing argument 'ID'"),
        (["reassign", "--from=ops"], "Missing option '--to'"),
        (["reassign", "--from=ops", "--to=ops"], "the same receiver"),
        (["reassign", "--from=ops", "--to=gone"], "no receiver gone in the configuration"),
        (["reassign", "--from=opps", "--to=ops"], "no receiver opps; receivers: chat, gone"),
        (["list", "--receiver=opps"], "no receiver opps; receivers: chat, gone, ops"),
        (["retry", "--receiver=opps"], "no receiver opps"),
    ],
)  # fmt: skip
def test_an_invalid_selection_ends_with_2_and_changes_nothing(state, arguments, words):
    done = state.invoke("deliveries", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert state.states() == EVERY_STATE


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "evt_9"], "no delivery has the id evt_9; see `cartesia-exporter deliveries list"),
        (["show", "evt_2", "--receiver=chat"], "no delivery of chat has the id evt_2"),
        (["show", "evt_"], "the beginning of evt_1, evt_2, evt_3"),
        (["retry", "evt_2", "evt_9"], "no delivery has the id evt_9"),
        (["retry", "evt_1"], "found no delivery to retry; see `cartesia-exporter"),
        (["retry", "evt_5"], "`cartesia-exporter deliveries reassign --from gone --to NAME`"),
        (["discard", "--receiver=ops", "--state=orphaned"], "found no delivery to discard"),
    ],
)
def test_an_empty_selection_ends_with_1_and_a_hint(state, arguments, words):
    done = state.invoke("deliveries", *arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert words in done.stderr
    assert state.states() == EVERY_STATE


def test_reassign_without_deliveries_ends_with_1(state):
    state.output("deliveries", "discard", "--receiver=gone")
    done = state.invoke("deliveries", "reassign", "--from=gone", "--to=ops")
    assert done.exit_code == 1
    assert "gone has no pending or dead deliveries" in done.stderr


def test_a_locked_state_ends_with_1_and_one_line(state, monkeypatch):
    monkeypatch.setattr("exporter.store.engines.sqlite._BUSY_MILLISECONDS", 50)
    writer = sqlite3.connect(state.path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    assert state.states() == EVERY_STATE, "a read needs no lock"
    done = state.invoke("deliveries", "retry", "--all")
    writer.close()
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"cannot retry deliveries: the state file {state.path}" in done.stderr
    assert "locked by another process" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [["deliveries", "list"], ["events", "list"]])
def test_a_missing_or_damaged_state_ends_with_2(tmp_path, command):
    state = StoredState(tmp_path)
    done = state.invoke(*command)
    assert done.exit_code == 2
    assert f"there is no state file {state.path}" in done.stderr
    state.path.write_bytes(b"no database " * 100)
    done = state.invoke(*command)
    assert done.exit_code == 2
    assert "is damaged" in done.stderr


def test_a_text_body_is_unchanged_and_cleaned_for_a_terminal():
    body = f"{HOSTILE}\xff".encode()
    assert "\n".join(body_lines(body, terminal=False)) == f"{HOSTILE}\xff"
    cleaned = body_lines(body, terminal=True)
    assert len(cleaned) == 2
    assert not CONTROL.search("".join(cleaned))
    body = json.dumps({"name": f"{HOSTILE}\u2028\x85\u05e9"}).encode()
    escaped = json.dumps(f"{HOSTILE}\u2028\x85")[:-1]
    for terminal in (False, True):
        assert body_lines(body, terminal=terminal) == ["{", f'  "name": {escaped}\u05e9"', "}"]
