"""An agent that is killed at any step between a poll and a recorded delivery loses no failure.

Each failure arrives at least once, and twice only if its answer was lost; then with the same id
and the same bytes. One state goes through several kills: the process that recovers from one kill
is the one that is killed next.
"""

import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse

from exporter.simulator.receiver import slack_refusal
from tests.process.agent_process import Agent, until
from tests.process.delivery_scenario import all_delivered, fail_in_one_poll, hold_poll
from tests.process.failpoints import Failpoints
from tests.process.fake_api import Api, Inbox, ReceivedRequest, agent_config, fake_api, webhook

pytestmark = pytest.mark.usefixtures("unmeasured")

REPEAT = "possible repeat: the answer to this message was lost"

NOTHING_ARRIVED = (
    "before the poll commits",
    "after the poll has committed",
    "after the messages are created",
    "after the claim",
    "before the request is sent",
    "when half of the request is sent",
)
ANSWER_LOST = ("before the answer", "after the answer", "before the result is recorded")
RESULT_RECORDED = "after the result is recorded"

Check = Callable[[str, Sequence[str], Sequence[ReceivedRequest]], None]


def kill_at_each(
    failpoints: Sequence[str], agent: Agent, api: Api, inbox: Inbox, check: Check
) -> None:
    """Kill an agent at each failpoint while it delivers two failures, and restart it.

    Calls ``check`` for each failpoint with the ids of the failed fine-tunes and the requests that
    arrived before the kill and after the restart, without requests that were cut off.
    """
    armed = Failpoints(agent.folder)
    killed_at, failed, seen = "", list[str](), 0
    for number, failpoint in enumerate((*failpoints, "")):
        with agent.process(**armed.env) as process:
            if killed_at:
                until(lambda: all_delivered(agent, 2 * number))  # noqa: B023 - called at once
                requests = [each for each in inbox.requests[seen:] if is_complete(each)]
                check(killed_at, failed, requests)
            else:
                process.wait_for_line("baseline taken")
            if failpoint:
                failed = [api.world.add(status="training").id for _ in range(2)]
                seen = len(inbox.requests)
                hold_poll(api)  # the last result is stored a moment before its failpoint
                armed.arm(failpoint)
                fail_in_one_poll(api, failed)
                assert process.wait(20) == -signal.SIGKILL, failpoint
                killed_at = failpoint
            else:
                process.wait_for_line("msg=listening")
                assert process.stop() == 0
            assert "level=error" not in process.output, (killed_at, process.output)


def is_complete(request: ReceivedRequest) -> bool:
    return len(request.body) == int(request.headers["content-length"])


def check_webhook(
    killed_at: str, failed: Sequence[str], requests: Sequence[ReceivedRequest]
) -> None:
    ids = {json.loads(request.body)["data"]["fine_tune"]["id"] for request in requests}
    assert ids == {*failed}, killed_at
    first = requests[0]
    repeats = [request.body for request in requests[1:] if request.id == first.id]
    assert repeats == ([first.body] if killed_at in ANSWER_LOST else []), killed_at
    assert len(requests) == 2 + len(repeats), killed_at


@pytest.mark.parametrize(
    "failpoints", [NOTHING_ARRIVED, (*ANSWER_LOST, RESULT_RECORDED)], ids=["unsent", "sent"]
)
def test_webhook_gets_each_failure_and_repeats_only_a_lost_answer(
    tmp_path: Path, failpoints: Sequence[str]
) -> None:
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        kill_at_each(failpoints, agent, api, inbox, check_webhook)


def check_slack(killed_at: str, failed: Sequence[str], requests: Sequence[ReceivedRequest]) -> None:
    repeated = killed_at == "before the result is recorded"
    says_so = killed_at in {"after the claim", "before the result is recorded"}
    messages = [json.loads(request.body) for request in requests]
    assert len(messages) == 1 + repeated, killed_at
    assert [slack_refusal(message) for message in messages] == [None] * len(messages), killed_at
    for fine_tune_id in failed:
        assert fine_tune_id in json.dumps(messages[0]), killed_at
    assert (REPEAT in json.dumps(messages[-1])) is says_so, killed_at
    if repeated:
        first, second = messages
        assert second["text"] == f"{first['text']}\n{REPEAT}"
        assert second["blocks"][:-1] == first["blocks"]


def test_slack_gets_one_message_or_a_repeat_that_says_so(tmp_path: Path) -> None:
    failpoints = (
        "before the claim",
        "after the claim",
        "before the result is recorded",
        "after the result is recorded",
    )
    with fake_api() as (api, inbox):
        inbox.answer = lambda _: PlainTextResponse("ok")
        slack = {
            "name": "team",
            "type": "slack",
            "url": f"{inbox.url}/team",
            "group_interval": "0s",
        }
        config = agent_config(api, slack)
        config["alerts"]["digest_threshold"] = 1
        kill_at_each(failpoints, Agent(tmp_path, **config), api, inbox, check_slack)
