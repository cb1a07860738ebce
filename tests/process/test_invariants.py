"""The promise on the real process: under power cuts, and beside neighbours that fail."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse, Response

from tests.process.agent_process import Agent, until
from tests.process.fake_api import Api, Arrived, Inbox, cloud, watching, webhook
from tests.process.outage_scenario import fail_in_one_poll, rows, settled

pytestmark = pytest.mark.usefixtures("unmeasured")

# The pauses behind a failure are not what is looked at.
HASTY = """
import exporter.core.retry as circuit
from exporter.core.retry import BackOff
circuit.DELIVERIES = BackOff(0.05, 0.5)
"""


def a_third_fails(inbox: Inbox) -> list[Arrived]:
    """Have a receiver refuse each third request; return those that it takes."""
    taken: list[Arrived] = []
    number = itertools.count(1)

    def answer(arrived: Arrived) -> Response:
        if next(number) % 3 == 0:
            return PlainTextResponse("busy", 503)
        taken.append(arrived)
        return PlainTextResponse("ok")

    inbox.answer = answer
    return taken


def killed_again_and_again(
    agent: Agent, api: Api, inbox: Inbox, kills: int, each: int, **env: str
) -> list[str]:
    """Have some more fail under each process, and kill it while it tells of them."""
    failed: list[str] = []
    for number in range(kills):
        with agent.process(**env) as process:
            process.line("msg=listening" if number else "baseline taken")
            failing = [api.world.add(status="training").id for _ in range(each)]
            fail_in_one_poll(api, failing)
            failed += failing
            arrived = len(inbox.arrived)
            # Another step each time: none of its messages, the first, the second...
            until(lambda: len(inbox.arrived) >= arrived + number % each)  # noqa: B023 - at once
            process.kill()
    return failed


def check_power_cuts(folder: Path, kills: int, each: int) -> None:
    (folder / "sitecustomize.py").write_text(HASTY, encoding="utf-8")
    env = {"PYTHONPATH": str(folder)}
    with cloud() as (api, inbox):
        taken = a_third_fails(inbox)
        config = watching(api, webhook(inbox))
        config["alerts"] |= {"digest_threshold": 1000}
        agent = Agent(folder, **config)
        failed = killed_again_and_again(agent, api, inbox, kills, each, **env)
        with agent.process(**env) as process:
            until(lambda: settled(agent, len(failed)), seconds=60)
            process.line("msg=listening")
            assert process.stop() == 0
    events = dict(rows(agent, "SELECT id, subject FROM events WHERE type = 'fine_tune.failed'"))
    assert sorted(events.values()) == sorted(failed)
    assert {each.id for each in taken} == events.keys()
    assert len({(each.id, each.body) for each in inbox.arrived}) == len(failed), "other bytes"
    # At most one is in flight at each power cut.
    assert len(taken) <= len(failed) + kills


def test_60_failures_arrive_through_power_cuts_at_a_receiver_that_fails_a_third_of_the_time(
    tmp_path,
):
    check_power_cuts(tmp_path, kills=6, each=10)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_600_failures_arrive_through_60_power_cuts(tmp_path):
    check_power_cuts(tmp_path, kills=60, each=10)


def test_a_good_receiver_is_told_within_3_s_beside_those_that_fail(tmp_path):
    """One that hangs, one that answers 404 and one that throttles; all of them have been met."""
    answers: dict[str, Callable[[], Response]] = {
        "/gone": lambda: PlainTextResponse("no_service", 404),
        "/throttles": lambda: PlainTextResponse("slow down", 429, {"retry-after": "60"}),
    }
    with cloud() as (api, inbox):
        inbox.held = lambda arrived: arrived.path == "/hangs"
        inbox.gate.close()
        inbox.answer = lambda arrived: answers.get(arrived.path, lambda: PlainTextResponse("ok"))()
        names = ("hangs", "gone", "throttles", "good")
        receivers = [webhook(inbox, name, events=["failed"]) for name in names]
        agent = Agent(tmp_path, **watching(api, *receivers))
        with agent.process() as process:
            process.line("baseline taken")
            for turn in range(1, 4):
                api.world.add(status="failed")
                began = time.monotonic()
                until(lambda: sum(each.path == "/good" for each in inbox.arrived) >= turn)  # noqa: B023 - at once
                assert time.monotonic() - began < 3
            assert {each.path for each in inbox.arrived} == {f"/{name}" for name in names}
            process.kill()
