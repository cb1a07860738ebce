"""Setting the wall clock neither loses, repeats nor expires a message or an alert."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse, Response

from tests.fakes.alertmanager import seconds
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
from msgspec.structs import force_setattr
from exporter.agent.build import SYSTEM_CLOCK
from exporter.core.retry import BackOff

retry.DELIVERIES = retry.DELIVERIES_LATER = BackOff(0.5, 1.0)
offset, real = pathlib.Path({offset!r}), time.time
time.time = lambda: real() + int(offset.read_text())
force_setattr(SYSTEM_CLOCK, "now", time.time)
"""
DAY = 86_400


class WallClock:
    """The wall clock of the processes that are started with ``env``."""

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "wall-clock-offset"
        self.set(0)
        code = INJECTED.format(offset=str(self._offset))
        self.env = injected(folder, code)

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


@pytest.mark.long
def test_jumps_while_messages_are_pending(tmp_path):
    clock = WallClock(tmp_path)
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox, events=["failed"])))
        with agent.process(**clock.env) as process:
            process.wait_for_line("baseline taken")
            for days, offset in ((4, 4), (-8, -4), (4004, 4000), (-8000, -4000)):
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
            clock.set_system_clock(4)
            wait_for_attempt_after_jump(agent, before, 4)
            assert_each_accepted_once(agent, inbox, failed)
            assert process.stop() == 0


@pytest.mark.long
@pytest.mark.parametrize("kill", [False, True])
def test_jumps_across_restarts(tmp_path, kill):
    clock = WallClock(tmp_path)
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox, events=["failed"])))
        failed: list[str] = []
        for days in (0, 4, 4000, -4000, 0):
            clock.set(days)
            with agent.process(**clock.env) as process:
                process.wait_for_line("baseline taken" if days == 0 and not failed else "listening")
                if failed:
                    reject_again(agent, inbox)
                    assert_each_accepted_once(agent, inbox, failed)
                failed = reject_two(agent, api, inbox)
                if not kill:
                    assert process.stop() == 0


def reject_again(agent: Agent, inbox: Inbox) -> None:
    """Reject one more attempt: only after a failed one a message may expire."""
    seen = len(inbox.requests)
    inbox.answer = lambda _: PlainTextResponse("down", 503)
    inbox.wait_for(seen + 2)
    assert pending(agent) == 2


def test_an_alert_keeps_its_hold_and_ends_after_jumps_and_restarts(tmp_path):
    clock = WallClock(tmp_path)
    with fake_api() as (api, inbox):
        receiver = {"name": "am", "type": "alertmanager", "urls": [inbox.url], "events": ["failed"]}
        agent = Agent(tmp_path, **agent_config(api, receiver))
        clock.set(4000)
        with agent.process(**clock.env) as process:
            process.wait_for_line("baseline taken")
            failed = api.world.add(status="failed").id
            assert posted(inbox, 1, 4000) == pytest.approx((0, 3600), abs=60)
            clock.set(0)
            assert process.stop() == 0
        for number, days in enumerate((0, -4000, 4), 2):
            clock.set(days)
            with agent.process(**clock.env) as process:
                start, end = posted(inbox, number, days)
                assert start <= 60, "it does not start in the future"
                assert end == pytest.approx(3600, abs=60)
                assert process.stop() == 0
        clock.set(0)
        with agent.process(**clock.env) as process:
            posted(inbox, 5)
            api.world.set_status(failed, "training")
            start, end = posted(inbox, 6)
            assert start <= end <= 0
            assert process.stop() == 0


def posted(inbox: Inbox, number: int, days: int = 0) -> tuple[float, float]:
    """Return start and end of the alert in a request, in seconds from now on a clock so set."""
    inbox.wait_for(number)
    request = inbox.requests[number - 1]
    [alert] = json.loads(request.body)
    now = time.time() + days * DAY
    return seconds(alert["startsAt"]) - now, seconds(alert["endsAt"]) - now
