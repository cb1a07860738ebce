"""Notifications of a long outage of the API and of its end, across a restart."""

import json
import signal

import pytest
from starlette.responses import PlainTextResponse

from tests.process.agent_process import Agent, until
from tests.process.delivery_scenario import query_state
from tests.process.fake_api import agent_config, fake_api, webhook


@pytest.mark.usefixtures("unmeasured")
def test_an_outage_is_notified_once_and_its_end_after_a_restart(tmp_path):
    with fake_api() as (api, inbox):
        api.world.add(status="completed")
        api.answer = lambda request: PlainTextResponse("down", 500)
        config = agent_config(api, webhook(inbox))
        config["alerts"] |= {"poll_failing_after": "1s", "first_run": "summary"}
        agent = Agent(tmp_path, **config)
        with agent.process() as process:
            process.wait_for_line("account cannot be read.*reason=server_error")
            inbox.wait_for(1)
            assert process.stop() == 0
        with agent.process() as process:
            process.wait_for_line("poll failed")
            count = api.request_count
            until(lambda: api.request_count > count)
            api.answer = lambda request: None
            inbox.wait_for(3)
            assert process.stop() == 0
    messages = [json.loads(request.body) for request in inbox.requests]
    assert [message["type"] for message in messages] == [
        "agent.poll_failing",
        "agent.poll_recovered",
        "agent.baseline",
    ]
    failing, recovered = messages[0]["data"], messages[1]["data"]
    assert failing["reason"] == "server_error"
    assert " answered 500" in failing["text"]
    assert recovered["since"] == failing["since"]
    assert recovered["seconds"] >= 2


@pytest.mark.long
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.usefixtures("unmeasured")
def test_an_outage_that_is_short_in_each_process_is_notified(tmp_path, end):
    with fake_api() as (api, inbox):
        api.answer = lambda request: PlainTextResponse("down", 500)
        config = agent_config(api, webhook(inbox))
        config["alerts"] |= {"poll_failing_after": "5s"}
        agent = Agent(tmp_path, **config)
        reported = "SELECT type FROM events"
        processes = 0
        while processes < 12 and not (processes and query_state(agent, reported)):
            processes += 1
            with agent.process("--log.level=debug") as process:  # one line per failed poll
                process.wait_for_line("poll failed", times=3)
                process.stop(end)
    assert query_state(agent, reported) == [("agent.poll_failing",)]


@pytest.mark.parametrize("how", ["reload", "restart"])
@pytest.mark.usefixtures("unmeasured")
def test_an_account_that_was_removed_during_an_outage_starts_without_it(tmp_path, how):
    with fake_api() as (api, inbox):
        api.answer = lambda request: PlainTextResponse("down", 500)
        config = agent_config(api, webhook(inbox))
        config["alerts"] |= {"poll_failing_after": "1s"}
        without = {**config, "accounts": [{**config["accounts"][0], "name": "another"}]}
        agent = Agent(tmp_path, **config)
        with agent.process() as process:
            process.wait_for_line("account cannot be read.*account=main")
            first = outages(agent)["main"]
            Agent(tmp_path, **without)
            if how == "reload":
                process.send_signal(signal.SIGHUP)
                process.wait_for_line("configuration reloaded")
                assert "main" not in outages(agent)
                Agent(tmp_path, **config)
                process.send_signal(signal.SIGHUP)
                process.wait_for_line("configuration reloaded", times=2)
                process.wait_for_line("account cannot be read.*account=main", times=2)
            assert process.stop() == 0
        if how == "restart":
            with agent.process() as process:
                process.wait_for_line("msg=listening")
                assert process.stop() == 0
            assert "main" not in outages(agent)
            Agent(tmp_path, **config)
            with agent.process() as process:
                process.wait_for_line("account cannot be read.*account=main")
                assert process.stop() == 0
        assert outages(agent)["main"] > first


def outages(agent: Agent) -> dict[str, float]:
    """Return the start of each stored outage in Unix seconds, by account."""
    return dict(query_state(agent, "SELECT name, since FROM poll_outages"))
