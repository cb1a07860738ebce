"""Delivery of each failure through kills of the agent and beside receivers that fail."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse, Response

from tests.process.agent_process import Agent, injected, until
from tests.process.delivery_scenario import all_delivered, fail_in_one_poll, failed_events
from tests.process.fake_api import (
    Api,
    Inbox,
    ReceivedRequest,
    agent_config,
    fake_api,
    webhook,
)

pytestmark = pytest.mark.usefixtures("unmeasured")

SHORT_DELAYS = """
import exporter.core.retry as retry
from exporter.core.retry import BackOff
retry.DELIVERIES = BackOff(0.05, 0.5)
"""


def reject_each_third(inbox: Inbox) -> list[ReceivedRequest]:
    """Answer each third request with 503; return the list of the requests that are accepted."""
    accepted: list[ReceivedRequest] = []
    number = itertools.count(1)

    def answer(request: ReceivedRequest) -> Response:
        if next(number) % 3 == 0:
            return PlainTextResponse("busy", 503)
        accepted.append(request)
        return PlainTextResponse("ok")

    inbox.answer = answer
    return accepted


def kill_repeatedly(
    agent: Agent, api: Api, inbox: Inbox, kills: int, failures: int, **env: str
) -> list[str]:
    """Let ``failures`` fine-tunes fail in each process, kill it meanwhile; return their ids."""
    failed: list[str] = []
    for number in range(kills):
        with agent.process(**env) as process:
            process.wait_for_line("msg=listening" if number else "baseline taken")
            failing = [api.world.add(status="training").id for _ in range(failures)]
            fail_in_one_poll(api, failing)
            failed += failing
            # Before its first message, after the first, after the second ...
            expected = len(inbox.requests) + number % failures
            until(lambda: len(inbox.requests) >= expected)  # noqa: B023 - called at once
            process.kill()
    return failed


def check_kills(folder: Path, kills: int, failures: int) -> None:
    env = injected(folder, SHORT_DELAYS)
    with fake_api() as (api, inbox):
        accepted = reject_each_third(inbox)
        config = agent_config(api, webhook(inbox))
        config["alerts"] |= {"digest_threshold": 1000}
        agent = Agent(folder, **config)
        failed = kill_repeatedly(agent, api, inbox, kills, failures, **env)
        with agent.process(**env) as process:
            until(lambda: all_delivered(agent, len(failed)), seconds=60)
            process.wait_for_line("msg=listening")
            assert process.stop() == 0
    events = failed_events(agent)
    assert sorted(events.values()) == sorted(failed)
    assert {request.id for request in accepted} == events.keys()
    contents = {(request.id, request.body) for request in inbox.requests}
    assert len(contents) == len(failed), "a repeat has other bytes"
    # At most one request is in flight at each kill.
    assert len(accepted) <= len(failed) + kills


def test_60_failures_arrive_through_kills_at_a_receiver_that_rejects_each_third(tmp_path):
    check_kills(tmp_path, kills=6, failures=10)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_600_failures_arrive_through_60_kills(tmp_path):
    check_kills(tmp_path, kills=60, failures=10)


def test_a_good_receiver_is_notified_within_3_s_beside_failing_ones(tmp_path):
    answers: dict[str, Callable[[], Response]] = {
        "/gone": lambda: PlainTextResponse("no_service", 404),
        "/throttles": lambda: PlainTextResponse("slow down", 429, {"retry-after": "60"}),
    }
    with fake_api() as (api, inbox):
        inbox.is_held = lambda request: request.path == "/hangs"
        inbox.gate.close()
        inbox.answer = lambda request: answers.get(request.path, lambda: PlainTextResponse("ok"))()
        names = ("hangs", "gone", "throttles", "good")
        receivers = [webhook(inbox, name, events=["failed"]) for name in names]
        agent = Agent(tmp_path, **agent_config(api, *receivers))
        with agent.process() as process:
            process.wait_for_line("baseline taken")
            for number in range(1, 4):
                api.world.add(status="failed")
                started = time.monotonic()
                until(lambda: [r.path for r in inbox.requests].count("/good") >= number)  # noqa: B023 - called at once
                assert time.monotonic() - started < 3
            assert {request.path for request in inbox.requests} == {f"/{name}" for name in names}
            process.kill()
