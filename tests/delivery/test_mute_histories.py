"""Histories of failures, mutes and restarts: every muted event ends, and is visible until then."""

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from exporter.core.mutes import MuteRequest
from exporter.core.records import DeliveryRecord
from exporter.store.accounts import Accounts
from exporter.store.event_lists import EventFilter, Events
from exporter.store.mutes import UnknownMuteError, add_mute, end_mute
from exporter.store.overview import ReceiverSummary
from exporter.store.pages import PageRequest
from exporter.store.queries import DeliveryFilter, list_deliveries
from exporter.web.view import View, ViewSettings
from tests.delivery.delivery_fixture import (
    BUSY,
    DeliveryFixture,
    FakeReceiver,
    delivery_settings,
    open_delivery,
)
from tests.fakes.clock import FakeClock
from tests.store.sample_polls import KEY, NOW, commit_snapshot, fine_tune, snapshot_of

NAMES = tuple("abcd")
DATASETS = dict(zip(NAMES, "xxyz", strict=True))
INTERVAL = 300.0


class CrashError(Exception):
    """The agent was killed."""


class MuteMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.clock, self.receiver = FakeClock(NOW), FakeReceiver()
        self.mutes: list[str] = []
        self.stack = AsyncExitStack()
        self.delivery = self.start()

    def run(self, work: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(work)

    def start(self) -> DeliveryFixture:
        grouped = delivery_settings(group_interval=INTERVAL, max_age=1e9)
        opening = open_delivery(self.folder, self.receiver, grouped, self.clock)
        delivery: DeliveryFixture = self.run(self.stack.enter_async_context(opening))
        return delivery

    def do(self, work: Callable[..., Any], *arguments: Any) -> Any:
        database = self.delivery.database
        return self.run(database.run(work, database, *arguments))

    @property
    def now(self) -> float:
        return self.clock.clock.now()

    @initialize(name=st.sampled_from(NAMES[:2]))
    def mute_a_failure(self, name: str) -> None:
        self.mute_dataset("x", 1)
        self.poll(name, "failed")

    @rule(name=st.sampled_from(NAMES), status=st.sampled_from(["failed", "failed", "completed"]))
    def poll(self, name: str, status: str) -> None:
        async def commit() -> None:
            for _ in range(2):  # leaving failed takes two polls
                accounts = Accounts(self.delivery.database)
                before = await accounts.load(KEY)
                if before is None:
                    now = snapshot_of(at=self.now)
                    before = await commit_snapshot(self.delivery.database, None, now)
                listed = {key: each.fine_tune for key, each in before.tracked.items()}
                listed[name] = fine_tune(name, status, dataset=DATASETS[name])
                now = snapshot_of(*listed.values(), at=self.now)
                await commit_snapshot(self.delivery.database, before, now, ["slack"])

        self.run(commit())

    @rule(dataset=st.sampled_from("xy"), hours=st.integers(1, 30 * 24))
    def mute_dataset(self, dataset: str, hours: int) -> None:
        request = MuteRequest(hours * 3600.0, "alice", "", {"dataset": dataset})
        self.mutes.append(self.do(add_mute, request, self.now))

    @rule(name=st.sampled_from(NAMES))
    def mute_until_recovered(self, name: str) -> None:
        request = MuteRequest(None, "alice", "", account=KEY.name, fine_tune=name)
        self.mutes.append(self.do(add_mute, request, self.now))

    @rule(place=st.integers(0, 20))
    def end(self, place: int) -> None:
        if self.mutes:
            with suppress(UnknownMuteError):  # it has ended
                self.do(end_mute, self.mutes[place % len(self.mutes)], "bob", self.now)

    @rule(seconds=st.sampled_from([1, 10, 400, 3600, 5 * 86_400]))
    def pass_time(self, seconds: float) -> None:
        self.run(self.delivery.run_for(seconds, look=seconds / 3))

    @rule(seconds=st.sampled_from([-40 * 86_400.0, -3600.0, 3600.0]))
    def set_clock(self, seconds: float) -> None:
        self.clock.set_by += seconds

    @rule()
    def fail_once(self) -> None:
        self.receiver.answers.append(BUSY)

    @rule()
    def restart(self) -> None:
        self.run(self.stack.aclose())
        self.clock.now += 60.0
        self.delivery = self.start()

    @rule()
    def crash_before_the_release_is_stored(self) -> None:
        async def crash(*_: Any, **__: Any) -> None:
            raise CrashError

        outbox = self.delivery.deliverer._outbox
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(outbox, "create_messages", crash)
            try:
                self.run(self.delivery.deliverer.deliver_due())
            except CrashError:
                self.restart()

    def deliveries(self) -> list[DeliveryRecord]:
        def read(database: Any) -> list[DeliveryRecord]:
            with database.read() as connection:
                found = Events(connection, {"slack": INTERVAL}, self.now)
                return found.deliveries(EventFilter(), PageRequest(1_000)).elements

        records: list[DeliveryRecord] = self.do(read)
        return records

    @invariant()
    def lists_commands_and_backlog_agree(self) -> None:
        records = Counter(each.state for each in self.deliveries())
        backlog = self.run(self.delivery.outbox.backlog(INTERVAL))
        assert (records["pending"], records["muted"]) == (backlog.pending, backlog.muted)
        assert backlog.dead == records["dead"] == 0
        listed, _ = self.do(list_deliveries, DeliveryFilter(frozenset({"slack"})), 1_000)
        by_command = Counter[str]()
        for each in listed:
            by_command[each.state] += each.events
        assert by_command == +records

        def shown(database: Any) -> tuple[int, ...]:
            settings = ViewSettings(receivers=(ReceiverSummary("slack", "slack", (), INTERVAL),))
            with database.read() as connection:
                view = View(connection, settings, (), self.now, 0.0)
                [receiver] = view.receivers
                held = sum(each.deliveries for each in view.mutes)
                return receiver.pending, receiver.muted, receiver.dead, held

        assert self.do(shown) == (records["pending"], records["muted"], 0, records["muted"])

    @invariant()
    def no_event_is_sent_twice(self) -> None:
        delivered = [message for message in self.receiver.sent if message.attempts == 0]
        assert len({message.id for message in delivered}) == len(delivered)

    def teardown(self) -> None:
        self.receiver.answers.clear()
        for _ in range(4):
            self.run(self.delivery.run_for(31 * 86_400.0, look=5 * 86_400.0))
        records = self.deliveries()
        assert {each.state for each in records} <= {"delivered", "discarded"}
        discarded = [each for each in records if each.state == "discarded"]
        assert all(each.discarded_by.startswith("mute_") for each in discarded)
        # Newest first: what is failed at the end was notified.
        last: dict[str | None, DeliveryRecord] = {}
        for each in records:
            if each.type in {"fine_tune.failed", "fine_tune.completed"}:
                last.setdefault(each.fine_tune, each)
        failed = [each for each in last.values() if each.type == "fine_tune.failed"]
        assert all(each.state == "delivered" for each in failed)
        self.run(self.stack.aclose())
        self.loop.close()
        shutil.rmtree(self.folder)


def check(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        MuteMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_every_muted_event_ends_as_delivered_or_discarded_by_the_mute():
    check(examples=4, steps=15)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_muted_event_ends_in_long_histories():
    check(examples=100, steps=60)
