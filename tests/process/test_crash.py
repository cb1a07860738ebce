"""Power cuts and bugs: every failure is told, and twice only where the answer was lost."""

import sqlite3

import pytest

from tests.process.agent_process import Agent, until
from tests.process.fake_api import Api, cloud, watching, webhook

pytestmark = pytest.mark.usefixtures("unmeasured")


def polled_again(api: Api, pages: int = 1) -> None:
    """Wait until a poll that began after this call has ended: another one has begun."""
    asked = api.asked
    until(lambda: api.asked >= asked + 2 * pages)


def event_ids(agent: Agent) -> list[str]:
    with sqlite3.connect(agent.state) as connection:
        rows = connection.execute("SELECT id FROM events ORDER BY number").fetchall()
    connection.close()
    return [row[0] for row in rows]


def test_killed_in_the_middle_of_a_poll_it_sees_the_failure_after_the_restart(tmp_path):
    with cloud() as (api, inbox):
        for _ in range(3):
            api.world.add(status="completed")
        failing = api.world.add(status="training")
        agent = Agent(tmp_path, **watching(api, webhook(inbox), page_size=2))
        with agent.process() as process:
            process.line("baseline taken")
            api.held = lambda scope: b"starting_after" in scope["query_string"]
            api.gate.close()
            until(lambda: api.gate.waiting)
            api.world.set_status(failing.id, "failed")
            asked = api.asked
            until(lambda: api.asked >= asked + 2)
            until(lambda: api.gate.waiting)
            process.kill()
        assert event_ids(agent) == []
        api.gate.open()
        with agent.process():
            told = inbox.got(1)
            polled_again(api, pages=2)
        assert [message.id for message in told] == event_ids(agent)


def test_killed_between_commit_and_send_it_sends_after_the_restart_what_was_committed(tmp_path):
    with cloud() as (api, inbox):
        config = watching(api, webhook(inbox))
        config["alerts"]["group_wait"] = "5m"
        agent = Agent(tmp_path, **config)
        with agent.process() as process:
            process.line("baseline taken")
            api.world.add(status="failed")
            process.line("fine-tune failed")
            process.kill()
        [owed] = event_ids(agent)
        assert inbox.arrived == []
        config["alerts"]["group_wait"] = "0s"
        agent = Agent(tmp_path, **config)
        with agent.process():
            inbox.got(1)
            polled_again(api)
        assert [message.id for message in inbox.arrived] == [owed] == event_ids(agent)


def test_killed_in_the_middle_of_a_send_it_repeats_the_same_bytes_under_the_same_id(tmp_path):
    with cloud() as (api, inbox):
        agent = Agent(tmp_path, **watching(api, webhook(inbox)))
        with agent.process() as process:
            process.line("baseline taken")
            inbox.gate.close()
            api.world.add(status="failed")
            inbox.got(1)
            process.kill()
        inbox.gate.open()
        with agent.process():
            first, second = inbox.got(2)
            polled_again(api)
        assert (second.id, second.body) == (first.id, first.body)
        assert len(inbox.arrived) == 2, "an answer that came back is never asked for again"


BUG = "raise KeyError('the injected bug')"
CANCELLATION = "import asyncio; raise asyncio.CancelledError('the injected bug')"


@pytest.mark.parametrize(
    ("function", "kind", "bug", "said"),
    [
        ("polling.poller.apply_snapshot", "def", BUG, "Raised in service: poll main"),
        (
            "polling.poller.apply_snapshot",
            "def",
            CANCELLATION,
            "Service was cancelled by a bug: poll main",
        ),
        ("http_server.serve", "async def", BUG, "Raised in service: web"),
    ],
)
def test_a_bug_in_a_part_ends_the_process_and_is_told(tmp_path, function, kind, bug, said):
    module, _, name = function.rpartition(".")
    (tmp_path / "sitecustomize.py").write_text(
        f"import exporter.{module} as broken\n"
        f"{kind} injected(*_):\n"
        f"    {bug}\n"
        f"broken.{name} = injected\n",
        encoding="utf-8",
    )
    with cloud() as (api, _):
        agent = Agent(tmp_path, **watching(api))
        with agent.process(PYTHONPATH=str(tmp_path)) as process:
            assert process.end(20) == 1
            process.line(r"level=critical .*bug", seconds=0)
            for text in ("Traceback", "the injected bug", said):
                process.line(text, seconds=0)


def test_a_part_that_ends_by_itself_is_a_bug_too(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import exporter.http_server as broken\n"
        "async def injected(*_):\n"
        "    return\n"
        "broken.serve = injected\n",
        encoding="utf-8",
    )
    with cloud() as (api, _):
        agent = Agent(tmp_path, **watching(api))
        with agent.process(PYTHONPATH=str(tmp_path)) as process:
            assert process.end(20) == 1
            process.line("Service ended without being stopped: web", seconds=0)
