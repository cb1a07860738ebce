"""Killed at any step from the poll to the settled delivery, the agent loses nothing.

What arrived before and after the power cut is compared with what failed: each failure at least
once, and more than once only where its answer was lost; then with the same id and the same bytes.
"""

import json
import signal
from collections import Counter
from collections.abc import Sequence

import pytest
from starlette.responses import PlainTextResponse

from exporter.simulator.receiver import slack_refusal
from tests.process.agent_process import Agent, until
from tests.process.failpoints import dying
from tests.process.fake_api import Api, Arrived, Inbox, cloud, watching, webhook
from tests.process.outage_scenario import fail_while_away, settled

pytestmark = pytest.mark.usefixtures("unmeasured")

REPEAT = "possible repeat: the answer to this message was lost"

NOTHING_ARRIVED = [
    "before the poll commits",
    "when the poll has committed",
    "when the messages are frozen",
    "when it is claimed",
    "before the bytes go out",
    "when half the bytes are out",
]
ARRIVED_UNKNOWN = ["before an answer", "when it is answered", "before the result is recorded"]
ALL_KNOWN = ["when the result is recorded"]


def killed_and_started_again(agent: Agent, api: Api, point: str, number: int) -> list[str]:
    """Kill an agent at a point of telling failures, start it again; return their ids once told."""
    failing = fail_while_away(agent, api, number)
    with agent.process(**dying(agent.folder, point)) as process:
        assert process.end(20) == -signal.SIGKILL, f"it was not killed:\n{process.text}"
        assert "baseline taken" not in process.text
    asked = api.asked
    with agent.process() as process:
        until(lambda: api.asked > asked and settled(agent))
        process.line("msg=listening")
        assert process.stop() == 0
        assert "level=error" not in process.text
    return failing


def complete(inbox: Inbox) -> list[Arrived]:
    """What arrived whole: a request that broke off in the middle is none."""
    return [each for each in inbox.arrived if len(each.body) == int(each.headers["content-length"])]


def told_by_webhook(arrived: Sequence[Arrived]) -> Counter[str]:
    return Counter(json.loads(each.body)["data"]["fine_tune"]["id"] for each in arrived)


@pytest.mark.parametrize("point", [*NOTHING_ARRIVED, *ARRIVED_UNKNOWN, *ALL_KNOWN])
def test_killed_at_any_step_a_webhook_is_told_each_failure(tmp_path, point):
    with cloud() as (api, inbox):
        agent = Agent(tmp_path, **watching(api, webhook(inbox)))
        failed = killed_and_started_again(agent, api, point, 2)
        arrived = complete(inbox)
    assert told_by_webhook(arrived).keys() == {*failed}
    again = [each for each in arrived[1:] if each.id == arrived[0].id]
    assert [each.body for each in again] == ([arrived[0].body] if point in ARRIVED_UNKNOWN else [])
    assert len(arrived) == 2 + len(again)


@pytest.mark.parametrize(
    ("point", "times", "says_so"),
    [
        ("before the claim", 1, False),
        ("when it is claimed", 1, True),
        ("before the result is recorded", 2, True),
        ("when the result is recorded", 1, False),
    ],
)
def test_killed_at_any_step_a_chat_is_told_once_or_that_it_may_be_a_repeat(
    tmp_path, point, times, says_so
):
    with cloud() as (api, inbox):
        inbox.answer = lambda _: PlainTextResponse("ok")
        chat = {"name": "team", "type": "slack", "url": f"{inbox.url}/team"}
        config = watching(api, chat)
        config["alerts"]["digest_threshold"] = 1
        agent = Agent(tmp_path, **config)
        failed = killed_and_started_again(agent, api, point, 2)
        messages = [json.loads(each.body) for each in inbox.arrived]
    assert len(messages) == times
    assert [slack_refusal(message) for message in messages] == [None] * times
    for each in failed:
        assert each in json.dumps(messages[0])
    assert (REPEAT in json.dumps(messages[-1])) is says_so
    if times > 1:
        first, again = messages
        assert again["text"] == f"{first['text']}\n{REPEAT}"
        assert again["blocks"][:-1] == first["blocks"]
