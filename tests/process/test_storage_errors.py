"""A state that cannot be written: no message is lost or repeated, and the agent reports it.

The errors are SQLite's own; they begin and end while the agent runs.
"""

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from starlette.responses import PlainTextResponse, Response

from tests.process.agent_process import Agent, get, injected, until, url_of
from tests.process.delivery_scenario import all_delivered, failed_events, query_state
from tests.process.fake_api import (
    Api,
    Inbox,
    ReceivedRequest,
    agent_config,
    fake_api,
    webhook,
)

pytestmark = pytest.mark.usefixtures("unmeasured")

# Each transaction begins with the PRAGMAs in a file. The delays are short.
INJECTED = """
import pathlib
import exporter.core.retry as retry
import exporter.store.engines.sqlite as sqlite
from exporter.core.retry import BackOff
from sqlalchemy import event

retry.DELIVERIES = BackOff(0.2, 0.5)
sqlite._BUSY_MILLISECONDS = 100
pragmas = pathlib.Path("pragmas")
real = sqlite._create_engine

def engine(path):
    engine = real(path)

    @event.listens_for(engine, "begin")
    def begin(connection):
        for pragma in pragmas.read_text().splitlines() if pragmas.exists() else ():
            connection.exec_driver_sql("PRAGMA " + pragma)

    return engine

sqlite._create_engine = engine
"""
StorageError = Callable[[Agent], AbstractContextManager[None]]


@contextlib.contextmanager
def pragmas(agent: Agent, during: str, after: str) -> Iterator[None]:
    file = agent.folder / "pragmas"
    file.write_text(during, encoding="utf-8")
    yield
    file.write_text(after, encoding="utf-8")


def full(agent: Agent) -> AbstractContextManager[None]:
    """Limit the file to its present size: SQLite raises a limit below that to the size."""
    return pragmas(agent, "max_page_count = 1", "max_page_count = 1000000")


def read_only(agent: Agent) -> AbstractContextManager[None]:
    return pragmas(agent, "query_only = 1", "query_only = 0")


@contextlib.contextmanager
def locked(agent: Agent) -> Iterator[None]:
    """Hold a write transaction, as another program may."""
    connection = sqlite3.connect(agent.state, timeout=20, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def storage_failures(url: str) -> float:
    pattern = r'^cartesia_exporter_poll_failures_total{account="main",reason="storage"} (\S+)'
    match = re.search(pattern, get(f"{url}/metrics").text, re.MULTILINE)
    assert match
    return float(match.group(1))


def throttle_one(agent: Agent, api: Api, inbox: Inbox, seconds: int) -> str:
    """Let a fine-tune fail whose message is retried after ``seconds``; return its id."""
    headers = {"retry-after": str(seconds)}
    inbox.answer = lambda _: PlainTextResponse("later", 429, headers)
    throttled = api.world.add(status="failed").id
    attempted = "SELECT id FROM messages WHERE attempts > 0 AND state = 'pending'"
    until(lambda: query_state(agent, attempted))
    return throttled


def is_not_ready(url: str) -> bool:
    answer = get(f"{url}/-/ready")
    return answer.status_code == 503 and "state" in answer.text


@pytest.mark.long
def test_stored_messages_are_sent_and_failures_that_were_not_stored_are_seen_again(tmp_path):
    cases = ((full, "is full"), (read_only, "readonly"), (locked, "locked"))
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox, events=["failed"])))
        with agent.process(**injected(tmp_path, INJECTED)) as process:
            url = url_of(process)
            process.wait_for_line("baseline taken")
            for number, (storage_error, reason) in enumerate(cases, 1):
                before = storage_failures(url)
                throttled = throttle_one(agent, api, inbox, seconds=3)
                accepted: list[ReceivedRequest] = []

                def accept(
                    request: ReceivedRequest, accepted: list[ReceivedRequest] = accepted
                ) -> Response:
                    accepted.append(request)
                    return PlainTextResponse("ok")

                inbox.answer = accept
                with storage_error(agent):
                    # Long, so that it does not fit into a free page of a full disk.
                    missed = api.world.add(status="failed", description="x" * 200_000).id
                    until(lambda: accepted)  # noqa: B023 - called at once
                    until(lambda: storage_failures(url) >= before + 2)  # noqa: B023
                    process.wait_for_line(f"poll failed.*reason=storage.*{reason}", seconds=0)
                    until(lambda: is_not_ready(url))
                    assert get(f"{url}/-/healthy").status_code == 200
                    assert process.is_running
                until(lambda: all_delivered(agent, 2 * number))  # noqa: B023
                until(lambda: get(f"{url}/-/ready").status_code == 200)
                subjects = failed_events(agent)
                assert [subjects[each.id] for each in accepted] == [throttled, missed], reason
            assert process.stop() == 0


def overwrite(agent: Agent) -> None:
    """Overwrite all pages but the first, as another program or a bad disk may."""
    connection = sqlite3.connect(agent.state, timeout=10)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    size = agent.state.stat().st_size
    with agent.state.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def test_damage_to_a_state_in_use_is_reported_and_does_not_end_the_agent(tmp_path):
    # Without a cache each transaction reads the file, as with a state larger than the cache.
    (tmp_path / "pragmas").write_text("cache_size = 0", encoding="utf-8")
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        with agent.process(**injected(tmp_path, INJECTED)) as process:
            url = url_of(process)
            process.wait_for_line("baseline taken")
            overwrite(agent)
            api.world.add(status="failed")
            until(lambda: storage_failures(url) >= 2)
            process.wait_for_line("poll failed.*reason=storage.*is damaged", seconds=0)
            assert is_not_ready(url)
            assert get(f"{url}/-/healthy").status_code == 200
            assert process.is_running
            assert inbox.requests == []
            process.kill()
        with agent.process() as restarted:
            assert restarted.wait(20) == 2
            restarted.wait_for_line("is damaged", seconds=0)
