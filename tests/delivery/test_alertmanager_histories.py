"""State machine: whatever happens, no failure is lost to Alertmanager and none stays active."""

import asyncio
import shutil
import tempfile
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from exporter.core.active_alerts import RESOLVED_SECONDS, AlertRow
from exporter.core.events import Event, EventType
from exporter.core.retry import Attempt, Outcome
from exporter.store.receiver_outbox import Backlog, request_retry
from tests.delivery.alertmanager_fixture import (
    AM,
    BUSY,
    GONE,
    HOLD,
    PENDING_AGAIN,
    AlertmanagerFixture,
    FakeMember,
    open_alertmanager,
)
from tests.delivery.delivery_fixture import delivery_settings
from tests.fakes.clock import FakeClock
from tests.store.sample_polls import NOW, fine_tune

REFUSALS = (
    BUSY,
    GONE,
    Attempt(Outcome.THROTTLED, "answered 429", 5.0),
    Attempt(Outcome.PAYLOAD, "answered 400"),
)
FULL_DISK = "CREATE TRIGGER no BEFORE UPDATE ON deliveries BEGIN SELECT RAISE(ABORT, 'no'); END"
MEMBERS = 2

fine_tunes = st.sampled_from(["a", "b", "c", "d", "e"])
members = st.integers(0, MEMBERS - 1)


class AlertmanagerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.members, self.clock = [FakeMember() for _ in range(MEMBERS)], FakeClock(NOW)
        self.failing: dict[str, float] = {}
        self.ever: set[str] = set()
        self.names: dict[int, str] = {}
        self.events = 0
        self.open()

    def open(self) -> None:
        self.context: AbstractAsyncContextManager[AlertmanagerFixture] = open_alertmanager(
            self.folder, self.members, delivery_settings(max_age=1e9), self.clock
        )
        self.fixture = self.runner.run(self.context.__aenter__())

    def close(self) -> None:
        self.runner.run(self.context.__aexit__(None, None, None))

    def execute(self, statement: str) -> None:
        self.runner.run(self.fixture.execute(statement))

    def request_retry(self) -> None:
        self.runner.run(self.fixture.write(lambda connection: request_retry(connection, AM)))

    def record(self, event_type: EventType, name: str, *receivers: str) -> None:
        self.clock.now += 1
        self.events += 1
        failed = fine_tune(name, "failed")
        now = self.clock.clock.now()
        event = Event(f"evt{self.events}", event_type, "default", now, failed)
        self.runner.run(self.fixture.record_event(event, *receivers))

    @rule(name=fine_tunes)
    def fine_tune_fails(self, name: str) -> None:
        if name not in self.failing:
            self.record("fine_tune.failed", name, AM)
            self.failing[name] = self.clock.now
            self.ever.add(name)
            self.names[self.events] = name

    @rule(name=fine_tunes, event_type=st.sampled_from(["fine_tune.changed", "fine_tune.completed"]))
    def fine_tune_leaves_failed(self, name: str, event_type: EventType) -> None:
        if self.failing.pop(name, None) is not None:
            self.record(event_type, name)

    @rule(name=fine_tunes)
    def fine_tune_is_removed(self, name: str) -> None:
        self.record("fine_tune.removed", name)

    @rule(member=members, answers=st.lists(st.sampled_from(REFUSALS), max_size=4))
    def member_has_outage(self, member: int, answers: list[Attempt]) -> None:
        self.members[member].answers.extend(answers)

    @rule(member=members)
    def member_runs_turn(self, member: int) -> None:
        self.runner.run(self.fixture.deliverer.members[member].deliver_due())

    @rule(seconds=st.sampled_from([5.0, 61.0, 900.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(days=st.sampled_from([-4000, -400, -4, -1, 0, 1, 4, 400, 4000]))
    def wall_clock_is_set(self, days: int) -> None:
        self.clock.set_by = days * 86_400.0

    @rule()
    def agent_restarts(self) -> None:
        self.close()
        self.open()

    @rule()
    def retry_is_requested(self) -> None:
        self.request_retry()

    @rule()
    def disk_is_full_for_a_turn(self) -> None:
        self.execute(FULL_DISK)
        for member in range(MEMBERS):
            self.member_runs_turn(member)
        self.execute("DROP TRIGGER no")

    def teardown(self) -> None:
        try:
            for member in self.members:
                member.answers.clear()
            self.retry_dead()
            for _ in range(3):
                self.clock.now += 61
                self.runner.run(self.fixture.post_all())
            self.check()
        finally:
            self.close()
            self.runner.close()
            shutil.rmtree(self.folder)

    def retry_dead(self) -> None:
        """Every member may have refused the same alert, during different outages."""
        self.execute(f"{PENDING_AGAIN} WHERE state = 'dead'")
        self.request_retry()

    def check(self) -> None:
        assert self.runner.run(self.fixture.outbox.backlog()) == Backlog()
        received = {name for member in self.members for name in member.alerts.names()}
        assert received == self.ever
        newest: dict[str, AlertRow] = {}
        for row in self.runner.run(self.fixture.rows()):
            name = self.names[row.number]
            newest[name] = max(newest.get(name, row), row, key=lambda each: each.number)
        for name, row in newest.items():
            assert (row.left is None) == (name in self.failing)
            for member in self.members:
                self.check_end(row, member.ends_of(name))

    def check_end(self, row: AlertRow, held: list[float]) -> None:
        """At every member, an alert ends with its hold, or has ended if its trouble just has."""
        assert row.settled is not None
        end, until = row.settled + HOLD, row.settled + HOLD
        if row.left is not None and row.left < end:
            end, until = row.left, max(row.left, row.settled) + RESOLVED_SECONDS
        # Of the three clocks, the awake one counts: it began at NOW of the monotonic clock.
        if self.clock.now - NOW < until:
            end += NOW + self.clock.set_by
            assert any(abs(each - end) < 0.01 for each in held)


# Each example has thirty steps and its own database.
AlertmanagerMachine.TestCase.settings = settings(
    max_examples=settings().max_examples // 4, stateful_step_count=30
)
TestAlertmanagerMachine = AlertmanagerMachine.TestCase
