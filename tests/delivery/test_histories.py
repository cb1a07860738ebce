"""Whatever happens between the agent and a receiver, every event arrives, or is still owed."""

import asyncio
import shutil
import tempfile
from collections import Counter
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from exporter.core.model import Delivery
from exporter.core.retry import Attempt, Outcome
from exporter.store.records import Backlog
from tests.delivery.bench import TAKEN, Bench, FakeReceiver, bench, plan_of
from tests.fakes.clock import FakeClock
from tests.store.examples import NOW

REFUSALS = (
    Attempt(Outcome.TRANSIENT, "answered 503"),
    Attempt(Outcome.THROTTLED, "answered 429", 5.0),
    Attempt(Outcome.ENDPOINT, "answered 404"),
)


class Recorder(FakeReceiver):
    """Remembers what it took, and whether it ever took something without saying so."""

    def __init__(self) -> None:
        super().__init__(most_events=3)
        self.taken: list[Delivery] = []
        self.answer_was_lost = False

    async def send(self, delivery: Delivery, now: float) -> Attempt:
        attempt = await super().send(delivery, now)
        if attempt.outcome is Outcome.DELIVERED:
            self.taken.append(delivery)
        return attempt

    def lose(self, delivery: Delivery) -> Attempt:
        self.taken.append(delivery)
        self.answer_was_lost = True
        return Attempt(Outcome.TRANSIENT, "timeout")

    def arrived(self) -> Counter[str]:
        return Counter(name for each in self.taken for name in each.body.decode().split()[1:])


class Deliveries(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.receiver, self.clock = Recorder(), FakeClock(NOW)
        self.failed = 0
        self.open()

    def open(self) -> None:
        path, plan = self.folder / "state.db", plan_of(group_wait=2, digest_threshold=2)
        self.stack: AbstractAsyncContextManager[Bench] = bench(
            path, self.receiver, plan, self.clock
        )
        self.bench = self.runner.run(self.stack.__aenter__())

    def close(self) -> None:
        self.runner.run(self.stack.__aexit__(None, None, None))

    @rule(number=st.integers(1, 8))
    def some_fail(self, number: int) -> None:
        names = [f"f{self.failed + n}" for n in range(number)]
        self.failed += number
        self.runner.run(self.bench.fail(*names))

    @rule(answers=st.lists(st.sampled_from(REFUSALS), max_size=4))
    def an_outage(self, answers: list[Attempt]) -> None:
        self.receiver.answers.extend(answers)

    @rule()
    def an_answer_is_lost(self) -> None:
        self.receiver.answers.append(self.receiver.lose)

    @rule(turns=st.integers(1, 5), seconds=st.sampled_from([0.0, 1.0, 30.0, 600.0]))
    def time_passes(self, turns: int, seconds: float) -> None:
        for _ in range(turns):
            self.clock.now += seconds
            self.runner.run(self.bench.deliverer.deliver_due())

    @rule()
    def a_restart(self) -> None:
        self.close()
        self.open()

    @invariant()
    def each_event_is_owed_or_has_arrived(self) -> None:
        backlog = self.runner.run(self.bench.outbox.backlog())
        arrived = self.receiver.arrived()
        assert len(arrived) + backlog.pending >= self.failed
        assert backlog.dead == 0
        if not self.receiver.answer_was_lost:
            assert len(arrived) + backlog.pending == self.failed
            assert set(arrived.values()) <= {1}

    @invariant()
    def an_id_has_one_payload(self) -> None:
        payloads = {(each.id, each.body) for each in self.receiver.sent}
        assert len(payloads) == len({each.id for each in self.receiver.sent})

    def teardown(self) -> None:
        self.receiver.answers = type(self.receiver.answers)([TAKEN])
        self.runner.run(self.bench.settle())
        assert self.receiver.arrived().keys() == {f"f{n}" for n in range(self.failed)}
        assert self.runner.run(self.bench.outbox.backlog()) == Backlog(0, 0)
        self.close()
        self.runner.close()
        shutil.rmtree(self.folder)


TestDeliveries = Deliveries.TestCase
TestDeliveries.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)
