"""Many fine-tunes that fail at once: one message to people, and every event to programs."""

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from exporter.simulator.receiver import slack_refusal
from tests.process.agent_process import Agent, until
from tests.process.delivery_scenario import all_delivered, fail_in_one_poll
from tests.process.fake_api import Api, ReceivedRequest, agent_config, fake_api, webhook

pytestmark = pytest.mark.usefixtures("unmeasured")


def texts(payload: dict[str, Any]) -> list[str]:
    """Every text that Slack counts, of all blocks."""
    return [
        text["text"]
        for block in payload["blocks"]
        for text in (block.get("text"), *block.get("fields", ()), *block.get("elements", ()))
        if text
    ]


def storm(tmp_path: Any, number: int) -> tuple[list[str], list[ReceivedRequest]]:
    """Have so many fail in one poll of a running agent; return their ids and what arrived."""
    with fake_api() as (api, inbox):
        inbox.answer = lambda _: PlainTextResponse("ok")
        chat = {"name": "team", "type": "slack", "url": f"{inbox.url}/team"}
        agent = Agent(tmp_path, **agent_config(api, chat, webhook(inbox)))
        failing = [api.world.add(status="training").id for _ in range(number)]
        with agent.process() as process:
            process.wait_for_line("baseline taken", seconds=60)
            fail_in_one_poll(api, failing)
            until(lambda: all_delivered(agent), seconds=60)
            polled_once_more(api)
            assert process.stop() == 0
        return failing, inbox.requests


def polled_once_more(api: Api) -> None:
    api.gate.close()
    until(lambda: api.gate.waiting)
    api.gate.open()


def check_chat(arrived: Sequence[ReceivedRequest], failed: Sequence[str]) -> None:
    """One message: 20 with their names, then ids, then how many more; within Slack's limits."""
    [message] = arrived
    payload = json.loads(message.body)
    assert slack_refusal(payload) is None
    said = texts(payload)
    assert max(map(len, said)) <= 3_000
    assert len(payload["text"]) + sum(map(len, said)) <= 10_000
    assert payload["text"] == f"{len(failed)} fine-tunes failed"
    whole = "\n".join(said)
    lines = [
        line for text in said for line in text.splitlines() if re.search(r"\(sonic.*\)$", line)
    ]
    more = re.search(r"and (\d+) more; `cartesia-exporter events list` shows", whole)
    assert more
    named = [each for each in failed if each in whole]
    assert len(lines) == 20
    assert len(named) + int(more.group(1)) == len(failed)
    assert len(named) > 200, "as many ids as fit"


def check_webhook(arrived: Sequence[ReceivedRequest], failed: Sequence[str]) -> None:
    """Every event, at most 100 a request, and no request more than that takes."""
    told = [json.loads(each.body)["data"]["events"] for each in arrived]
    assert max(map(len, told)) <= 100
    assert len(told) == -(-len(failed) // 100)
    ids = [event["data"]["fine_tune"]["id"] for events in told for event in events]
    assert sorted(ids) == sorted(failed)
    assert len({each.id for each in arrived}) == len(arrived)


def check(tmp_path: Any, number: int) -> None:
    failed, arrived = storm(tmp_path, number)
    check_chat([each for each in arrived if each.path == "/team"], failed)
    check_webhook([each for each in arrived if each.path == "/ops"], failed)


def test_400_failures_in_one_poll_are_one_chat_message_and_400_webhook_events(tmp_path):
    check(tmp_path, 400)


@pytest.mark.soak
def test_5000_failures_in_one_poll_are_one_chat_message_and_5000_webhook_events(tmp_path):
    check(tmp_path, 5_000)
