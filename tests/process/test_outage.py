"""Notifications of a long outage of the API and of its end, across a restart."""

import json

import pytest
from starlette.responses import PlainTextResponse

from tests.process.agent_process import Agent, until
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
            process.wait_for_line("account cannot be read for long.*reason=server_error")
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
