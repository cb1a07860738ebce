"""Many failures in one poll: one chat message, and one webhook event for each."""

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from exporter.core.compose import WARNING
from exporter.simulator.receiver import slack_refusal
from tests.process.agent_process import Agent, until
from tests.process.delivery_scenario import all_delivered, fail_in_one_poll
from tests.process.fake_api import Api, ReceivedRequest, agent_config, fake_api, webhook

pytestmark = pytest.mark.usefixtures("unmeasured")


def texts(payload: dict[str, Any]) -> list[str]:
    """Return all texts of all blocks, which Slack counts."""
    return [
        text["text"]
        for block in payload["blocks"]
        for text in (block.get("text"), *block.get("fields", ()), *block.get("elements", ()))
        if text
    ]


def deliver_failures(tmp_path: Any, number: int) -> tuple[list[str], list[ReceivedRequest]]:
    """Let ``number`` fine-tunes fail in one poll; return their ids and the requests."""
    with fake_api() as (api, inbox):
        inbox.answer = lambda _: PlainTextResponse("ok")
        chat = {"name": "team", "type": "slack", "url": f"{inbox.url}/team", "group_interval": "0s"}
        agent = Agent(tmp_path, **agent_config(api, chat, webhook(inbox)))
        failing = [api.world.add(status="training").id for _ in range(number)]
        with agent.process() as process:
            process.wait_for_line("baseline taken", seconds=60)
            fail_in_one_poll(api, failing)
            until(lambda: all_delivered(agent), seconds=60)
            wait_for_next_poll(api)
            assert process.stop() == 0
        return failing, inbox.requests


def wait_for_next_poll(api: Api) -> None:
    api.gate.close()
    until(lambda: api.gate.waiting)
    api.gate.open()


def check_chat(requests: Sequence[ReceivedRequest], failed: Sequence[str]) -> None:
    """Expect one message within Slack's limits: 20 names, then ids, then a count of the rest."""
    [message] = requests
    payload = json.loads(message.body)
    assert slack_refusal(payload) is None
    all_texts = texts(payload)
    assert max(map(len, all_texts)) <= 3_000
    assert len(payload["text"]) + sum(map(len, all_texts)) <= 10_000
    assert payload["text"].startswith(f"{WARNING} {len(failed)} fine-tunes failed\n")
    whole = "\n".join(all_texts)
    lines = re.findall(r"^• .*`fine_tune_", whole, re.MULTILINE)
    more = re.search(r"and (\d+) more; `cartesia-exporter events list` shows", whole)
    assert more
    named = [each for each in failed if each in whole]
    assert len(lines) == 20
    assert len(named) + int(more.group(1)) == len(failed)
    assert len(named) > 150, "as many ids as fit"


def check_webhook(requests: Sequence[ReceivedRequest], failed: Sequence[str]) -> None:
    """Expect every event once, in the fewest requests of at most 100 events."""
    batches = [json.loads(each.body)["data"]["events"] for each in requests]
    assert max(map(len, batches)) <= 100
    assert len(batches) == -(-len(failed) // 100)
    ids = [event["data"]["fine_tune"]["id"] for events in batches for event in events]
    assert sorted(ids) == sorted(failed)
    assert len({each.id for each in requests}) == len(requests)


def check(tmp_path: Any, number: int) -> None:
    failed, requests = deliver_failures(tmp_path, number)
    check_chat([each for each in requests if each.path == "/team"], failed)
    check_webhook([each for each in requests if each.path == "/ops"], failed)


def test_400_failures_in_one_poll_are_one_chat_message_and_400_webhook_events(tmp_path):
    check(tmp_path, 400)


@pytest.mark.soak
def test_5000_failures_in_one_poll_are_one_chat_message_and_5000_webhook_events(tmp_path):
    check(tmp_path, 5_000)
