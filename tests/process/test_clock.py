"""Jumps of the wall clock by a day, in both directions, neither lose nor repeat a message."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse, Response

from tests.process.agent_process import Agent, injected, until
from tests.process.delivery_scenario import (
    all_delivered,
    fail_in_one_poll,
    failed_events,
    query_state,
)
from tests.process.fake_api import (
    Api,
    Inbox,
    ReceivedRequest,
    agent_config,
    fake_api,
    webhook,
)
from tests.programs import required

pytestmark = pytest.mark.usefixtures("unmeasured")

# The agent reads the wall clock by time.time alone: the linter bans all other ways. Most tests
# replace it: libfaketime breaks time.sleep of Python 3.11, so that threads wait without sleeping.
INJECTED = """
import pathlib, time
import exporter.core.retry as retry
from exporter.core.retry import BackOff

retry.DELIVERIES = retry.DELIVERIES_LATER = BackOff(0.5, 1.0)
offset, real = pathlib.Path({offset!r}), time.time
time.time = lambda: real() + int(offset.read_text())
"""
DAY = 86_400


class WallClock:
    """The wall clock of the processes that are started with ``env``."""

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "wall-clock-offset"
        self.set(0)
        self.env = injected(folder, INJECTED.format(offset=str(self._offset)))

    def set(self, days: int) -> None:
        """Set the clock ``days`` after the true time."""
        replacement = self._offset.with_suffix(".new")
        replacement.write_text(str(days * DAY), encoding="utf-8")
        replacement.replace(self._offset)


class FakedSystemClock(WallClock):
    """The wall clock of all system calls of the processes, faked by libfaketime."""

    def __init__(self, folder: Path) -> None:
        required("faketime", package="faketime")
        [library] = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
        super().__init__(folder)  # its injected code shortens the back-off
        self._fake_time = folder / "faketime"
        self._fake_time.write_text("+0d\n", encoding="utf-8")
        self.env |= {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._fake_time),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # its name before libfaketime 0.9.8
        }

    def set_system_clock(self, days: int) -> None:
        """Set the clock ``days`` after the true time."""
        replacement = self._fake_time.with_suffix(".new")
        replacement.write_text(f"{days:+d}d\n", encoding="utf-8")
        replacement.replace(self._fake_time)


def reject_two(agent: Agent, api: Api, inbox: Inbox) -> list[str]:
    """Let two fine-tunes fail while the receiver is down; return their ids after an attempt."""
    inbox.answer = lambda _: PlainTextResponse("down", 503)
    failed = [api.world.add(status="training").id for _ in range(2)]
    fail_in_one_poll(api, failed)
    until(lambda: pending(agent) == 2)
    until(lambda: last_attempt(agent) is not None)
    return failed


def pending(agent: Agent) -> int:
    [(number,)] = query_state(agent, "SELECT count(*) FROM deliveries WHERE state = 'pending'")
    return int(number)


def last_attempt(agent: Agent) -> float | None:
    """Return the time of the last attempt at the newest pending message."""
    rows = query_state(
        agent, "SELECT last_attempt_at FROM messages WHERE state = 'pending' ORDER BY turn"
    )
    return rows[-1][0] if rows else None


def wait_for_attempt_after_jump(agent: Agent, before: float, days: int) -> None:
    def attempted() -> bool:
        at = last_attempt(agent)
        return at is not None and abs(at - before - days * DAY) < DAY / 2

    until(attempted)


def assert_each_accepted_once(agent: Agent, inbox: Inbox, failed: Sequence[str]) -> None:
    """Let the receiver accept messages; check that each of these failures is accepted once."""
    accepted: list[str] = []

    def accept(request: ReceivedRequest) -> Response:
        accepted.append(request.id)
        return PlainTextResponse("ok")

    inbox.answer = accept
    until(lambda: pending(agent) == 0)
    assert all_delivered(agent)
    events = failed_events(agent)
    assert sorted(events[event_id] for event_id in accepted) == sorted(failed)


def test_jumps_while_messages_are_pending(tmp_path):
    clock = WallClock(tmp_path)
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox, events=["failed"])))
        with agent.process(**clock.env) as process:
            process.wait_for_line("baseline taken")
            for days, offset in ((1, 1), (-1, 0), (-1, -1)):
                failed = reject_two(agent, api, inbox)
                before = last_attempt(agent)
                assert before is not None
                clock.set(offset)
                wait_for_attempt_after_jump(agent, before, days)
                failed.append(api.world.add(status="failed").id)
                until(lambda: pending(agent) == 3)
                assert_each_accepted_once(agent, inbox, failed)
            assert process.stop() == 0


def test_a_jump_of_the_system_clock_while_messages_are_pending(tmp_path):
    clock = FakedSystemClock(tmp_path)
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox, events=["failed"])))
        with agent.process(**clock.env) as process:
            process.wait_for_line("baseline taken")
            failed = reject_two(agent, api, inbox)
            before = last_attempt(agent)
            assert before is not None
            clock.set_system_clock(1)
            wait_for_attempt_after_jump(agent, before, 1)
            assert_each_accepted_once(agent, inbox, failed)
            assert process.stop() == 0


def test_jumps_across_restarts(tmp_path):
    clock = WallClock(tmp_path)
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox, events=["failed"])))
        with agent.process(**clock.env) as process:
            process.wait_for_line("baseline taken")
            failed = reject_two(agent, api, inbox)
            assert process.stop() == 0
        clock.set(1)
        with agent.process(**clock.env) as process:
            assert_each_accepted_once(agent, inbox, failed)
            failed = reject_two(agent, api, inbox)
            assert process.stop() == 0
        clock.set(0)
        with agent.process(**clock.env) as process:
            assert_each_accepted_once(agent, inbox, failed)
            process.wait_for_line("msg=listening")
            assert process.stop() == 0
