"""A receiver that refuses us: the others hear of it once, it is probed, and nothing is lost."""

import json

import pytest
from starlette.responses import PlainTextResponse

from tests.process.agent_process import Agent, until
from tests.process.fake_api import Inbox, agent_config, fake_api, webhook

pytestmark = pytest.mark.usefixtures("unmeasured")


def types(inbox: Inbox, name: str) -> list[str]:
    return [json.loads(a.body)["type"] for a in inbox.requests if a.path == f"/{name}"]


def test_the_others_hear_once_of_a_receiver_that_is_gone_and_once_of_its_return(tmp_path):
    with fake_api() as (api, inbox):
        inbox.answer = lambda arrived: PlainTextResponse(
            "", 404 if arrived.path == "/gone" else 200
        )
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox, "gone"), webhook(inbox, "good")))
        with agent.process() as process:
            process.wait_for_line("baseline taken")
            api.world.add(status="failed")
            until(lambda: "agent.receiver_unhealthy" in types(inbox, "good"))
            process.wait_for_line(
                "receiver unhealthy.*receiver=gone.*answered 404.*told=good", seconds=0
            )
            assert types(inbox, "gone") == ["fine_tune.failed"], "it waits for its first probe"
            assert process.stop() == 0
        with agent.process() as process:
            until(lambda: len(types(inbox, "gone")) == 2)  # a start tries at once
            process.wait_for_line("delivery failed.*receiver=gone")
            inbox.answer = lambda _: PlainTextResponse("")
            assert process.stop() == 0
        with agent.process():
            until(lambda: "agent.receiver_recovered" in types(inbox, "good"))
        assert sorted(types(inbox, "good")) == [
            "agent.receiver_recovered",
            "agent.receiver_unhealthy",
            "fine_tune.failed",
        ]
        first, *again = [a for a in inbox.requests if a.path == "/gone"]
        assert {(a.id, a.body) for a in again} == {(first.id, first.body)}
        recovered = next(a for a in inbox.requests if b"receiver_recovered" in a.body)
        data = json.loads(recovered.body)["data"]
        assert (data["receiver"], data["account"]) == ("gone", None)
