"""A state that cannot be written: nothing is lost, nothing is repeated, and the agent says so.

The errors are SQLite's own, and begin and end under a running agent.
"""

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from starlette.responses import PlainTextResponse, Response

from tests.process.agent_process import Agent, get, until, url_of
from tests.process.fake_api import Api, Arrived, Inbox, cloud, watching, webhook
from tests.process.outage_scenario import rows, settled

# Each transaction begins as a file beside the state says; the waits are not what is looked at.
INJECTED = """
import pathlib
import exporter.core.retry as circuit
import exporter.store.engines.sqlite as engines
from exporter.core.retry import BackOff
from sqlalchemy import event

circuit.DELIVERIES = BackOff(0.2, 0.5)
engines._BUSY_MILLISECONDS = 100
control = pathlib.Path("trouble")
real = engines._create_engine

def engine(path):
    made = real(path)

    @event.listens_for(made, "begin")
    def begin(connection):
        for pragma in control.read_text().splitlines() if control.exists() else ():
            connection.exec_driver_sql("PRAGMA " + pragma)

    return made

engines._create_engine = engine
"""
Trouble = Callable[[Agent], AbstractContextManager[None]]


@contextlib.contextmanager
def pragmas(agent: Agent, during: str, after: str) -> Iterator[None]:
    control = agent.folder / "trouble"
    control.write_text(during, encoding="utf-8")
    yield
    control.write_text(after, encoding="utf-8")


def full(agent: Agent) -> AbstractContextManager[None]:
    """SQLite takes the least possible number for as many pages as there are: not one more."""
    return pragmas(agent, "max_page_count = 1", "max_page_count = 1000000")


def read_only(agent: Agent) -> AbstractContextManager[None]:
    return pragmas(agent, "query_only = 1", "query_only = 0")


@contextlib.contextmanager
def locked(agent: Agent) -> Iterator[None]:
    """Another program writes, and does not come to an end."""
    connection = sqlite3.connect(agent.state, timeout=20, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def storage_failures(url: str) -> float:
    pattern = r'^cartesia_exporter_poll_failures_total{account="main",reason="storage"} (\S+)'
    found = re.search(pattern, get(f"{url}/metrics").text, re.MULTILINE)
    assert found
    return float(found.group(1))


def one_waits(agent: Agent, api: Api, inbox: Inbox, seconds: int) -> str:
    """Have a failure frozen into a message that goes out in so many seconds; return its id."""
    later = {"retry-after": str(seconds)}
    inbox.answer = lambda _: PlainTextResponse("later", 429, later)
    waiting = api.world.add(status="failed").id
    tried = "SELECT id FROM messages WHERE attempts > 0"
    until(lambda: inbox.arrived and rows(agent, tried))
    return waiting


def not_ready(url: str) -> bool:
    answer = get(f"{url}/-/ready")
    return answer.status_code == 503 and "state" in answer.text


@pytest.mark.parametrize(
    ("trouble", "said"),
    [(full, "is full"), (read_only, "readonly"), (locked, "locked")],
    ids=["full", "read-only", "locked"],
)
def test_what_cannot_be_stored_is_seen_again_and_what_is_stored_goes_out(tmp_path, trouble, said):
    (tmp_path / "sitecustomize.py").write_text(INJECTED, encoding="utf-8")
    with cloud() as (api, inbox):
        agent = Agent(tmp_path, **watching(api, webhook(inbox, events=["failed"])))
        with agent.process(PYTHONPATH=str(tmp_path)) as process:
            url = url_of(process)
            process.line("baseline taken")
            waiting = one_waits(agent, api, inbox, seconds=3)
            taken: list[Arrived] = []

            def take(arrived: Arrived) -> Response:
                taken.append(arrived)
                return PlainTextResponse("ok")

            inbox.answer = take
            with trouble(agent):
                # Long, so that a full disk has no room for it in a page that is there.
                missed = api.world.add(status="failed", description="x" * 200_000).id
                until(lambda: taken)
                until(lambda: storage_failures(url) >= 2)
                process.line(f"poll failed.*reason=storage.*{said}", seconds=0)
                until(lambda: not_ready(url))
                assert get(f"{url}/-/healthy").status_code == 200
                assert process.runs
            until(lambda: settled(agent, 2))
            until(lambda: get(f"{url}/-/ready").status_code == 200)
            assert process.stop() == 0
    subjects = dict(rows(agent, "SELECT id, subject FROM events WHERE type LIKE '%failed'"))
    assert [subjects[each.id] for each in taken] == [waiting, missed]


def spoil(agent: Agent) -> None:
    """Write over everything behind the first page, as another program or a bad disk may."""
    connection = sqlite3.connect(agent.state, timeout=10)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    size = agent.state.stat().st_size
    with agent.state.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def test_a_state_that_is_spoilt_while_it_is_in_use_is_named_and_ends_nothing(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(INJECTED, encoding="utf-8")
    # Each transaction reads the file itself, as it does when the state is larger than the memory.
    (tmp_path / "trouble").write_text("cache_size = 0", encoding="utf-8")
    with cloud() as (api, inbox):
        agent = Agent(tmp_path, **watching(api, webhook(inbox)))
        with agent.process(PYTHONPATH=str(tmp_path)) as process:
            url = url_of(process)
            process.line("baseline taken")
            spoil(agent)
            api.world.add(status="failed")
            until(lambda: storage_failures(url) >= 2)
            process.line("poll failed.*reason=storage.*is damaged", seconds=0)
            assert not_ready(url)
            assert get(f"{url}/-/healthy").status_code == 200
            assert process.runs
            assert inbox.arrived == []
            process.kill()
        with agent.process() as again:
            assert again.end(20) == 2
            again.line("is damaged", seconds=0)
