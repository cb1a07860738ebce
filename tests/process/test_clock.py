"""A clock on the wall that jumps by a day while messages wait: none is lost, none comes twice."""

from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse

from tests.process.agent_process import Agent, until
from tests.process.fake_api import Api, Inbox, cloud, watching, webhook
from tests.process.outage_scenario import fail_in_one_poll, rows, settled
from tests.programs import required

pytestmark = pytest.mark.usefixtures("unmeasured")

HASTY = """
import exporter.core.retry as circuit
from exporter.core.retry import BackOff
circuit.DELIVERIES = BackOff(0.5, 1.0)
circuit.DELIVERIES_LATER = BackOff(0.5, 1.0)
"""
HALF_A_DAY = 43_200


class Wall:
    """The clock on the wall of processes: set by a file that libfaketime reads at each look."""

    def __init__(self, folder: Path) -> None:
        required("faketime", package="faketime")
        [library] = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
        (folder / "sitecustomize.py").write_text(HASTY, encoding="utf-8")
        self._file = folder / "faketime"
        self.jump(0)
        self.env = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # its name before libfaketime 0.9.8
            "PYTHONPATH": str(folder),
        }

    def jump(self, days: int) -> None:
        """Be so many days off."""
        beside = self._file.with_suffix(".new")
        beside.write_text(f"{days:+d}d\n", encoding="utf-8")
        beside.replace(self._file)


def attempts(agent: Agent) -> list[tuple[int, float]]:
    """How often each message was tried, and when it was last."""
    return rows(agent, "SELECT attempts, last_attempt_at FROM messages ORDER BY turn")


def tried_after_the_jump(agent: Agent, before: float, days: int) -> None:
    """Wait for an attempt by the new clock."""

    def told() -> bool:
        at = max((at or 0.0) for _, at in attempts(agent))
        # Of the newest rows by turn: an old attempt may be ahead of the clock now.
        newest = attempts(agent)[-1][1]
        return abs((at if days > 0 else newest) - before - days * 86_400) < HALF_A_DAY

    until(told)


def two_wait(agent: Agent, api: Api, inbox: Inbox) -> list[str]:
    """Have two fail that their receiver does not take; return their ids."""
    inbox.answer = lambda _: PlainTextResponse("down", 503)
    failing = [api.world.add(status="training").id for _ in range(2)]
    fail_in_one_poll(api, failing)
    until(lambda: len(inbox.arrived) >= 2)
    until(lambda: attempts(agent) and attempts(agent)[-1][0] > 0)
    return failing


def all_taken_once(agent: Agent, inbox: Inbox, failed: list[str]) -> None:
    """Have the receiver take messages again, and check that each comes, and once."""
    taken = []

    def take(arrived):
        taken.append(arrived.id)
        return PlainTextResponse("ok")

    inbox.answer = take
    until(lambda: settled(agent))
    events = dict(rows(agent, "SELECT id, subject FROM events WHERE type = 'fine_tune.failed'"))
    assert sorted(events.values()) == sorted(failed)
    assert sorted(taken) == sorted(events)


@pytest.mark.parametrize("days", [1, -1])
def test_a_jump_while_messages_wait_loses_nothing_and_repeats_nothing(tmp_path, days):
    wall = Wall(tmp_path)
    with cloud() as (api, inbox):
        agent = Agent(tmp_path, **watching(api, webhook(inbox, events=["failed"])))
        with agent.process(**wall.env) as process:
            process.line("baseline taken")
            failed = two_wait(agent, api, inbox)
            before = attempts(agent)[-1][1]
            wall.jump(days)
            tried_after_the_jump(agent, before, days)
            # One that fails by the new clock is told too.
            another = api.world.add(status="failed").id
            all_come = [*failed, another]
            until(lambda: len(rows(agent, "SELECT id FROM events WHERE type LIKE '%failed'")) == 3)
            all_taken_once(agent, inbox, all_come)
            assert process.stop() == 0


@pytest.mark.parametrize("days", [1, -1])
def test_a_jump_across_a_restart_loses_nothing_and_repeats_nothing(tmp_path, days):
    wall = Wall(tmp_path)
    with cloud() as (api, inbox):
        agent = Agent(tmp_path, **watching(api, webhook(inbox, events=["failed"])))
        with agent.process(**wall.env) as process:
            process.line("baseline taken")
            failed = two_wait(agent, api, inbox)
            assert process.stop() == 0
        wall.jump(days)
        with agent.process(**wall.env) as process:
            process.line("msg=listening")
            all_taken_once(agent, inbox, failed)
            assert process.stop() == 0
