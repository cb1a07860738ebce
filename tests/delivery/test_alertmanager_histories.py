"""Whatever happens between the agent and an Alertmanager, no failure is lost, and none goes on."""

import asyncio
import shutil
import tempfile
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from exporter.core.active_alerts import RESOLVED_SECONDS, AlertRow
from exporter.core.events import Event, EventType
from exporter.core.retry import Attempt, Outcome
from exporter.store.events import record_events
from exporter.store.outbox import Backlog, request_retry
from tests.delivery.alertmanager_fixture import AM, BUSY, GONE, HOLD, Alerting, FakeMember, alerting
from tests.delivery.delivery_fixture import plan_of
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


class Alarms(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.members, self.clock = [FakeMember() for _ in range(MEMBERS)], FakeClock(NOW)
        self.failing: dict[str, float] = {}
        self.ever: set[str] = set()
        self.names: dict[float, str] = {}
        self.events = 0
        self.open()

    def open(self) -> None:
        plan = plan_of(max_age=1e9)
        self.stack: AbstractAsyncContextManager[Alerting] = alerting(
            self.folder, self.members, plan, self.clock
        )
        self.alerting = self.runner.run(self.stack.__aenter__())

    def close(self) -> None:
        self.runner.run(self.stack.__aexit__(None, None, None))

    def write(self, work: Any) -> None:
        def run() -> None:
            with self.alerting.database.write() as connection:
                work(connection)

        self.runner.run(self.alerting.database.run(run))

    def happens(self, kind: EventType, name: str, *receivers: str) -> None:
        self.clock.now += 1
        self.events += 1
        event = Event(
            f"evt{self.events}", kind, "default", self.clock.now, fine_tune(name, "failed")
        )
        self.write(lambda connection: record_events(connection, [(event, receivers)]))

    @rule(name=fine_tunes)
    def one_fails(self, name: str) -> None:
        if name not in self.failing:
            self.happens("fine_tune.failed", name, AM)
            self.failing[name] = self.clock.now
            self.ever.add(name)
            self.names[self.clock.now] = name

    @rule(name=fine_tunes, kind=st.sampled_from(["fine_tune.changed", "fine_tune.completed"]))
    def one_leaves(self, name: str, kind: EventType) -> None:
        if self.failing.pop(name, None) is not None:
            self.happens(kind, name)

    @rule(name=fine_tunes)
    def one_is_removed(self, name: str) -> None:
        self.happens("fine_tune.removed", name)

    @rule(member=members, answers=st.lists(st.sampled_from(REFUSALS), max_size=4))
    def an_outage(self, member: int, answers: list[Attempt]) -> None:
        self.members[member].answers.extend(answers)

    @rule(member=members)
    def a_turn(self, member: int) -> None:
        self.runner.run(self.alerting.deliverer.members[member].post_due())

    @rule(seconds=st.sampled_from([5.0, 61.0, 900.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def a_restart(self) -> None:
        self.close()
        self.open()

    @rule()
    def a_nudge(self) -> None:
        self.write(lambda connection: request_retry(connection, AM))

    @rule()
    def a_full_disk_for_a_turn(self) -> None:
        self.write(lambda connection: connection.exec_driver_sql(FULL_DISK))
        for member in range(MEMBERS):
            self.a_turn(member)
        self.write(lambda connection: connection.exec_driver_sql("DROP TRIGGER no"))

    def teardown(self) -> None:
        try:
            for member in self.members:
                member.answers.clear()
            self.retry_what_is_dead()
            for _ in range(3):
                self.clock.now += 61
                self.runner.run(self.alerting.turns())
            self.check()
        finally:
            self.close()
            self.runner.close()
            shutil.rmtree(self.folder)

    def retry_what_is_dead(self) -> None:
        """All members may have refused one for good while each was having an outage."""
        again = "UPDATE deliveries SET state = 'pending', settled_at = NULL WHERE state = 'dead'"
        self.write(lambda connection: connection.exec_driver_sql(again))
        self.write(lambda connection: request_retry(connection, AM))

    def check(self) -> None:
        assert self.runner.run(self.alerting.outbox.backlog()) == Backlog()
        told = {name for member in self.members for name in member.alerts.names()}
        assert told == self.ever
        newest: dict[str, AlertRow] = {}
        for alert in self.runner.run(self.alerting.owed()):
            name = self.names[alert.began_at]
            newest[name] = max(newest.get(name, alert), alert, key=lambda each: each.number)
        for name, alert in newest.items():
            assert (alert.left_at is None) == (name in self.failing)
            for member in self.members:
                self.check_end(alert, member.ends_of(name))

    def check_end(self, alert: AlertRow, held: list[float]) -> None:
        """What fires must end with its hold, and what has just left must have ended: everywhere."""
        assert alert.settled_at is not None
        end, until = alert.settled_at + HOLD, alert.settled_at + HOLD
        if alert.left_at is not None and alert.left_at < end:
            end, until = alert.left_at, max(alert.left_at, alert.settled_at) + RESOLVED_SECONDS
        if self.clock.now < until:
            assert any(abs(each - end) < 0.01 for each in held)


# A history is thirty steps on a database of its own.
Alarms.TestCase.settings = settings(
    max_examples=settings().max_examples // 4, stateful_step_count=30
)
TestAlarms = Alarms.TestCase
