"""The lists in a terminal of 80 columns: what they are for is readable beside long names."""

import json
import re
import time

import pytest
from msgspec.structs import replace

from exporter.core.mutes import MuteRequest
from exporter.store.database import Database
from exporter.store.events import DEAD, DELIVERED
from exporter.store.mutes import add_mute
from exporter.store.outbox import NewMessage, Outbox
from tests.cli.stored_state import StoredState
from tests.process.agent_process import run_in_terminal
from tests.store.sample_outbox import attempt, create_messages, failure, queue_events
from tests.store.sample_polls import commit_snapshot, fine_tune, snapshot_of

LONG = "Customer Support Voice " + "x" * 177
ID = "evt_0123456789abcdef0123456789abcdef"

pytestmark = pytest.mark.usefixtures("unmeasured")


@pytest.fixture
def state(tmp_path) -> StoredState:
    stored = StoredState(tmp_path)

    async def fill(database: Database) -> None:
        event = replace(failure(1, name=LONG), id=ID, observed_at=time.time() - 7200)
        listed = snapshot_of(fine_tune(f"ft_{ID}", name=LONG, dataset=LONG))
        await commit_snapshot(database, None, listed)
        await queue_events(database, [event], "ops", "chat")
        await create_messages(database, "ops")
        await attempt(database, "ops", DEAD, "answered 404 " + "y" * 200)
        await create_messages(database, "chat")
        await attempt(database, "chat", DELIVERED)

    stored.run(fill)
    return stored


def in_terminal(folder, columns: int, *arguments: str) -> list[str]:
    """Return the lines that a terminal with this width shows, without styles."""
    text = run_in_terminal(folder, columns, *arguments)
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()


def test_events_show_name_age_and_receivers(state, tmp_path):
    lines = in_terminal(tmp_path, 80, "events", "list", f"--storage.path={state.path}")
    heading, line, count = lines
    assert count == "1 events"
    assert all(len(each) <= 80 for each in lines)
    assert heading.split() == ["age", "event", "fine-tune", "account", "notified", "id"]
    assert line.startswith("2 h  failed  Customer Support")
    assert "ops dead, chat 15 Jan" in line
    assert "evt_012" in line


def test_deliveries_show_name_age_state_and_receiver(state, tmp_path):
    flags = ("--state=all", f"--storage.path={state.path}")
    lines = in_terminal(tmp_path, 80, "deliveries", "list", *flags)
    assert all(len(each) <= 80 for each in lines)
    [dead] = [line for line in lines if " dead " in line]
    assert "Customer Sup" in dead
    assert "  ops " in dead
    assert "404 yy" in dead
    assert "evt_012" in dead
    shown = re.search(r"evt_\S+", dead)
    assert shown is not None
    found = in_terminal(
        tmp_path, 80, "deliveries", "show", shown.group(), f"--storage.path={state.path}",
        "--receiver=ops",
    )  # fmt: skip
    assert f"id: {ID}" in found, "an id as the table shows it is enough"


def test_muted_and_held_deliveries_show_until_when(tmp_path):
    state = StoredState(tmp_path)
    config = json.loads(state.config.read_text(encoding="utf-8"))
    config["receivers"][0]["group_interval"] = "24h"
    state.config.write_text(json.dumps(config), encoding="utf-8")

    async def fill(database: Database) -> None:
        events = [replace(failure(n, name=LONG), observed_at=time.time()) for n in range(3)]
        await queue_events(database, events[:1], "ops")
        await Outbox(database, "ops").create_messages(
            [NewMessage("evt_0", b"{}", (1,), starts_interval=True)], time.time()
        )
        await queue_events(database, events[1:], "ops")
        mute = MuteRequest(3600.0, "alice", "known", {"id": "ft_2"})
        await database.run(add_mute, database, mute, time.time())
        await Outbox(database, "ops").apply_mutes({}, time.time())

    state.run(fill)
    flag = f"--config.file={state.config}"
    deliveries, events, mutes = (
        in_terminal(tmp_path, 80, group, "list", flag)
        for group in ("deliveries", "events", "mutes")
    )
    assert all(len(each) <= 80 for each in (*deliveries, *events, *mutes))
    [held] = [line for line in deliveries if "held until" in line]
    [muted] = [line for line in deliveries if " muted " in line]
    assert re.search(r"ops +pending +held until \S", held)
    assert re.search(r"ops +muted +until \S", muted)
    assert re.search(r"ops held until \S", events[2])
    assert re.search(r"ops muted until \S", events[3])
    assert re.match(r"mute_[0-9a-f]{8}  \S.* 1 +id=ft_2 +alice +known", mutes[1])


def test_fine_tunes_show_status_age_and_name(state, tmp_path):
    lines = in_terminal(tmp_path, 80, "list", "--stored", f"--storage.path={state.path}")
    assert all(len(each) <= 80 for each in lines)
    [line] = [line for line in lines if "Customer" in line]
    assert re.match(r"training  \d+ \S+ +Customer Support Voi", line)
    assert "  default  " in line
    assert "sonic-3" in line
    assert "ft_evt_" in line
