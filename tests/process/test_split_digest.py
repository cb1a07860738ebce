"""A refused digest is split; an agent that is killed meanwhile loses and repeats no event."""

import json
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse, Response

from tests.process.agent_process import Agent, until
from tests.process.delivery_scenario import fail_in_one_poll, hold_poll, query_state
from tests.process.failpoints import Failpoints
from tests.process.fake_api import ReceivedRequest, agent_config, fake_api, webhook

pytestmark = pytest.mark.usefixtures("unmeasured")

FAILPOINTS = (
    "before the parts are stored",
    "after the parts are stored",
    "after the claim",
    "before the result is recorded",
    "",
)


def fine_tunes_of(request: ReceivedRequest) -> list[str]:
    body: dict[str, Any] = json.loads(request.body)
    events = body["data"].get("events", [body])
    return [event["data"]["fine_tune"]["id"] for event in events]


def settled(agent: Agent, failed: Sequence[str]) -> dict[str, str]:
    query = "SELECT subject, state FROM deliveries JOIN events ON number = event"
    states = dict(query_state(agent, query))
    return {each: states[each] for each in failed if states.get(each, "pending") != "pending"}


def test_a_kill_while_a_digest_is_split_loses_and_repeats_nothing(tmp_path: Path) -> None:
    with fake_api() as (api, inbox):
        refused = set[str]()
        accepted = Counter[str]()

        def answer(request: ReceivedRequest) -> Response:
            named = fine_tunes_of(request)
            if refused.intersection(named):
                return PlainTextResponse("no", 422)
            accepted.update((request.id, *named))
            return PlainTextResponse("ok")

        inbox.answer = answer
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        armed = Failpoints(agent.folder)
        for number, failpoint in enumerate(FAILPOINTS):
            with agent.process(**armed.env) as process:
                process.wait_for_line("msg=listening" if number else "baseline taken")
                failed = [api.world.add(status="training").id for _ in range(7)]
                refused.add(failed[number])
                hold_poll(api)  # the last result is stored a moment before its failpoint
                armed.arm(failpoint)
                fail_in_one_poll(api, failed)
                if failpoint:
                    assert process.wait(20) == -signal.SIGKILL, failpoint
            with agent.process(**armed.env) as process:
                until(lambda: len(settled(agent, failed)) == 7)  # noqa: B023 - called at once
                assert process.stop() == 0
            dead = {each for each, state in settled(agent, failed).items() if state == "dead"}
            assert dead == {failed[number]}, failpoint
            assert dead == refused.intersection(failed)
            repeated = {each for each in failed if accepted[each] > 1}
            assert not repeated or failpoint == "before the result is recorded", failpoint
            assert {each for each in failed if accepted[each]} == {*failed} - dead
