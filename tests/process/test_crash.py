"""Kills in the middle of a poll, and bugs that end the process.

test_crash_matrix.py has the kills between a commit and a recorded delivery.
"""

import pytest

from tests.process.agent_process import Agent, injected, until
from tests.process.delivery_scenario import all_delivered, failed_events
from tests.process.fake_api import agent_config, fake_api, webhook

pytestmark = pytest.mark.usefixtures("unmeasured")


def test_a_failure_in_a_poll_that_was_killed_is_seen_after_the_restart(tmp_path):
    with fake_api() as (api, inbox):
        for _ in range(3):
            api.world.add(status="completed")
        failing = api.world.add(status="training")
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox), page_size=2))
        with agent.process() as process:
            process.wait_for_line("baseline taken")
            api.is_held = lambda scope: b"starting_after" in scope["query_string"]
            api.gate.close()
            until(lambda: api.gate.waiting)
            api.world.set_status(failing.id, "failed")
            count = api.request_count
            until(lambda: api.request_count >= count + 2)
            until(lambda: api.gate.waiting)
            process.kill()
        assert failed_events(agent) == {}
        api.gate.open()
        with agent.process():
            until(lambda: all_delivered(agent, 1))
            count = api.request_count
            until(lambda: api.request_count >= count + 4)  # one more poll of two pages
        assert [request.id for request in inbox.requests] == [*failed_events(agent)]


def test_what_was_committed_is_sent_after_a_restart_with_another_group_wait(tmp_path):
    with fake_api() as (api, inbox):
        config = agent_config(api, webhook(inbox))
        config["alerts"]["group_wait"] = "5m"
        agent = Agent(tmp_path, **config)
        with agent.process() as process:
            process.wait_for_line("baseline taken")
            api.world.add(status="failed")
            process.wait_for_line("fine-tune failed")
            process.kill()
        [event_id] = failed_events(agent)
        assert inbox.requests == []
        config["alerts"]["group_wait"] = "0s"
        agent = Agent(tmp_path, **config)
        with agent.process():
            until(lambda: all_delivered(agent, 1))
            count = api.request_count
            until(lambda: api.request_count >= count + 2)  # one more poll
        assert [request.id for request in inbox.requests] == [event_id] == [*failed_events(agent)]


BUG = "raise KeyError('the injected bug')"
CANCELLATION = "import asyncio; raise asyncio.CancelledError('the injected bug')"


@pytest.mark.parametrize(
    ("function", "definition", "body", "text"),
    [
        ("polling.poller.apply_snapshot", "def", BUG, "Raised in service: poll main"),
        (
            *("polling.poller.apply_snapshot", "def", CANCELLATION),
            "Service was cancelled by a bug: poll main",
        ),
        ("http_server.serve", "async def", BUG, "Raised in service: web"),
        ("http_server.serve", "async def", "return", "Service ended without being stopped: web"),
    ],
    ids=["exception", "cancellation", "exception-in-web", "return"],
)
def test_a_bug_in_a_service_ends_the_process_and_is_logged(
    tmp_path, function, definition, body, text
):
    module, _, name = function.rpartition(".")
    code = (
        f"import exporter.{module} as module\n"
        f"{definition} injected(*_):\n"
        f"    {body}\n"
        f"module.{name} = injected\n"
    )
    with fake_api() as (api, _):
        agent = Agent(tmp_path, **agent_config(api))
        with agent.process(**injected(tmp_path, code)) as process:
            assert process.wait(20) == 1
            process.wait_for_line(text, seconds=0)
            if body != "return":
                process.wait_for_line(r"level=critical .*bug", seconds=0)
                process.wait_for_line("Traceback", seconds=0)
                process.wait_for_line("the injected bug", seconds=0)
