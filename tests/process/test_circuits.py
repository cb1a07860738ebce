"""The circuit of a receiver that is gone: notifications to the others, probes, recovery."""

import json

import pytest
from starlette.responses import PlainTextResponse

from tests.process.agent_process import Agent, until
from tests.process.fake_api import Inbox, agent_config, fake_api, webhook

pytestmark = pytest.mark.usefixtures("unmeasured")


def types(inbox: Inbox, name: str) -> list[str]:
    return [json.loads(r.body)["type"] for r in inbox.requests if r.path == f"/{name}"]


def test_other_receivers_are_notified_once_of_an_open_circuit_and_once_of_its_recovery(tmp_path):
    with fake_api() as (api, inbox):
        inbox.answer = lambda request: PlainTextResponse(
            "", 404 if request.path == "/gone" else 200
        )
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox, "gone"), webhook(inbox, "good")))
        with agent.process() as process:
            process.wait_for_line("baseline taken")
            api.world.add(status="failed")
            until(lambda: "agent.receiver_unhealthy" in types(inbox, "good"))
            process.wait_for_line(
                "receiver unhealthy.*receiver=gone.*answered 404.*notified=good", seconds=0
            )
            assert types(inbox, "gone") == ["fine_tune.failed"], "the first probe comes later"
            assert process.stop() == 0
        with agent.process() as process:
            until(lambda: len(types(inbox, "gone")) == 2)  # a start probes at once
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
        first, *repeats = [r for r in inbox.requests if r.path == "/gone"]
        assert {(r.id, r.body) for r in repeats} == {(first.id, first.body)}
        recovered = next(r for r in inbox.requests if b"receiver_recovered" in r.body)
        data = json.loads(recovered.body)["data"]
        assert (data["receiver"], data["account"]) == ("gone", None)
