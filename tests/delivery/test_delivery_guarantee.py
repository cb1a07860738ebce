"""State machine: no failure is lost, whatever happens to API, receivers, store, clock and process.

Every entry into `failed` that polls see after the baseline is delivered at least once to every
subscribed receiver, or is visibly pending or dead; a repeat carries the same id and bytes.
"""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from exporter.store.location import StoreLocation
from tests.delivery.crashing_pipeline import (
    CRASH_POINTS,
    DIGEST_THRESHOLD,
    ROUTES,
    CrashingPipeline,
    Environment,
    fine_tune,
    oracles,
)
from tests.delivery.delivery_oracle import Fault
from tests.engines import on_postgres, on_sqlite

DAY = 86400.0
NAMES = [f"f{number}" for number in range(8)]
REFUSED_WRITES = (
    "INSERT ON events",
    "INSERT ON deliveries",
    "INSERT ON fine_tunes",
    "INSERT ON messages",
    "UPDATE ON messages",
    "UPDATE OF last_result ON messages",
    "UPDATE OF body ON messages",
    "UPDATE ON deliveries",
    "INSERT ON receivers",
)

jumps = st.sampled_from([0, 1, -1, 4, -4, 400, -400, 4000, -4000])
statuses = st.sampled_from(["created", "training", "completed", "failed", "failed", "odd"])


class DeliveryMachine(RuleBasedStateMachine):
    new_state: Callable[[], StoreLocation]

    def __init__(self) -> None:
        super().__init__()
        self.environment, self.receivers = Environment(), oracles()
        self.environment.fine_tunes = {name: fine_tune(name, "training") for name in NAMES[:4]}
        self.environment.fine_tunes["f3"] = fine_tune("f3", "failed")
        self.pipeline = CrashingPipeline(self.new_state(), self.environment, self.receivers)
        self.pipeline.poll()
        self.more = len(NAMES)

    @rule(changes=st.dictionaries(st.sampled_from(NAMES), st.none() | statuses, max_size=6))
    def fine_tunes_change(self, changes: dict[str, str | None]) -> None:
        for name, status in changes.items():
            if status is None:
                self.environment.fine_tunes.pop(name, None)
            else:
                self.environment.fine_tunes[name] = fine_tune(name, status)
        self.pipeline.poll()

    @rule()
    def all_fail_at_once(self) -> None:
        self.environment.fine_tunes = {name: fine_tune(name, "failed") for name in NAMES}
        self.pipeline.poll()

    @rule(status=statuses)
    def all_get_one_status(self, status: str) -> None:
        self.environment.fine_tunes = {name: fine_tune(name, status) for name in NAMES}
        self.pipeline.poll()
        self.pipeline.poll()

    @rule()
    def api_fails(self) -> None:
        self.environment.api_fails = True
        self.pipeline.poll()
        self.environment.api_fails = False

    @rule(
        name=st.sampled_from([route.receiver for route in ROUTES]),
        faults=st.lists(st.sampled_from(Fault), min_size=1, max_size=4),
    )
    def receiver_fails(self, name: str, faults: list[Fault]) -> None:
        self.receivers[name].faults.extend(faults)
        self.queue_more_failures()

    @rule(name=st.sampled_from([route.receiver for route in ROUTES]), poison=st.text("0123456789"))
    def receiver_refuses_some_events(self, name: str, poison: str) -> None:
        self.receivers[name].poison = poison
        self.all_fail_at_once()
        self.all_get_one_status("training")
        self.all_fail_at_once()
        self.time_passes(4, 3.0)

    def queue_more_failures(self) -> None:
        """Give the pipeline work at once: without any, a fault would test nothing."""
        for name in (f"f{self.more}", f"f{self.more + 1}"):
            self.environment.fine_tunes[name] = fine_tune(name, "failed")
        self.more += 2
        self.pipeline.poll()
        self.time_passes(3, 3.0)

    @rule(turns=st.integers(1, 4), seconds=st.sampled_from([0.0, 2.0, 30.0, 600.0, 3600.0]))
    def time_passes(self, turns: int, seconds: float) -> None:
        for _ in range(turns):
            self.environment.pass_time(seconds)
            self.pipeline.deliver()

    @rule(days=jumps)
    def wall_clock_is_set(self, days: int) -> None:
        self.environment.wall += days * DAY
        self.queue_more_failures()

    @rule(days=jumps)
    def process_restarts(self, days: int) -> None:
        self.pipeline.end()
        self.environment.restarts += 1
        self.environment.wall += days * DAY
        self.pipeline.start()

    @rule(point=st.sampled_from(CRASH_POINTS))
    def process_crashes(self, point: str) -> None:
        self.environment.crash_at = point
        self.queue_more_failures()

    @rule(what=st.sampled_from(REFUSED_WRITES))
    def disk_is_full(self, what: str) -> None:
        self.pipeline.refuse_writes(what)
        self.queue_more_failures()

    @rule()
    def disk_has_room(self) -> None:
        self.pipeline.accept_writes()

    @invariant()
    def every_failure_is_delivered_or_visible(self) -> None:
        deliveries = self.pipeline.failure_deliveries()
        expired = self.pipeline.expired_events()
        for name, oracle in self.receivers.items():
            mine = {key[:2]: state for key, state in deliveries.items() if key[2] == name}
            queued = Counter(fine_tune_id for _, fine_tune_id in mine)
            expected = self.expected(name, self.pipeline.failures.entries)
            assert queued == expected, "not every failure is queued once"
            for (event, _), state in mine.items():
                assert state in {"pending", "delivered", "dead"}
                assert state != "delivered" or event in oracle.accepted_events()
                assert state != "dead" or event in oracle.refused_alone | expired

    @invariant()
    def every_recovery_is_queued_for_those_who_were_notified(self) -> None:
        failures = self.pipeline.failure_deliveries()
        queued: dict[str, Counter[str]] = {name: Counter() for name in self.receivers}
        for _, fine_tune_id, name in self.pipeline.failure_deliveries("fine_tune.recovered"):
            queued[name][fine_tune_id] += 1
        assert not queued["chat"], "it does not subscribe"
        for name in ("hook", "log"):
            expected = self.expected(name, self.pipeline.failures.recoveries)
            assert queued[name] <= expected, "a recovery without a failure, or a second one"
            # A failure that is dead now may have been dead when its fine-tune recovered.
            dead = {key[1] for key, state in failures.items() if key[2] == name and state == "dead"}
            assert {*(expected - queued[name])} <= dead, "a recovery is not queued"

    @invariant()
    def an_outage_creates_few_messages(self) -> None:
        chat = self.receivers["chat"]
        # A refusal shows that the receiver works, so one more message may be created. So does each
        # repeat of a message that was accepted while its result could not be stored.
        limit = 1 + chat.requests.bit_length() + self.environment.restarts + len(chat.refused)
        limit += chat.repeats
        # The store may still show accepted messages as pending.
        waiting = self.pipeline.pending_messages("chat") - chat.accepted_messages()
        assert len(waiting) <= limit

    def expected(self, receiver: str, counts: Counter[str]) -> Counter[str]:
        """Return the counts by fine-tune without those that do not match the receiver's route."""
        if receiver == "hook":
            return Counter({name: n for name, n in counts.items() if n and int(name[1:]) % 2 == 0})
        return +counts

    def teardown(self) -> None:
        self.disk_has_room()
        self.environment.crash_at = None
        for oracle in self.receivers.values():
            oracle.faults.clear()
            oracle.poison = ""
        before = self.pipeline.count_messages("chat").total()
        # All that is queued is due at once: what is due later would be further messages.
        self.environment.pass_time(60.0)
        for _ in range(400):
            if not self.pipeline.count_pending():
                break
            # At least a minute: while one circuit is open for an hour, the others have no wait.
            self.environment.pass_time(max(self.pipeline.deliver(), 60.0))
        assert not self.pipeline.count_pending(), "not delivered although nothing fails"
        self.every_failure_is_delivered_or_visible()
        # The events of the other receivers' circuits are delivered, too.
        assert self.pipeline.count_messages("chat").total() - before <= DIGEST_THRESHOLD + 4
        self.pipeline.close()


def machine_on(new_state: Callable[[], StoreLocation]) -> type[DeliveryMachine]:
    """Return the machine whose pipeline has its store at ``new_state()``."""
    return type("Machine", (DeliveryMachine,), {"new_state": staticmethod(new_state)})


def check(new_state: Callable[[], StoreLocation], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine_on(new_state),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.long
@on_sqlite
def test_no_failure_is_lost(new_state):
    check(new_state, examples=5, steps=25)


@on_postgres
def test_no_failure_is_lost_in_postgresql(new_state):
    check(new_state, examples=2, steps=20)


@on_sqlite
@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_no_failure_is_lost_in_long_histories(new_state):
    check(new_state, examples=400, steps=80)


@on_postgres
@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_no_failure_is_lost_in_long_histories_in_postgresql(new_state):
    check(new_state, examples=40, steps=80)


@on_sqlite
def test_parts_of_a_digest_that_arrived_without_a_stored_claim_are_not_marked_as_repeats(new_state):
    machine = machine_on(new_state)()
    chat = machine.receivers["chat"]
    chat.faults.extend([Fault.ACCEPTED_AND_KILLED, Fault.REFUSED, Fault.REFUSED])
    machine.pipeline.refuse_writes("UPDATE ON messages")
    machine.all_fail_at_once()
    machine.time_passes(1, 3.0)
    assert [message.accepted for message in chat.messages.values()] == [1]
    machine.disk_has_room()
    machine.time_passes(4, 3.0)
    assert len(chat.messages) > 1
    machine.teardown()


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_every_crash_point_is_reached(new_state, point):
    environment, receivers = Environment(), oracles()
    environment.fine_tunes = {name: fine_tune(name, "training") for name in NAMES}
    pipeline = CrashingPipeline(new_state(), environment, receivers)
    pipeline.poll()
    for receiver in receivers.values():
        # So that bodies are replaced, and messages split.
        receiver.faults.extend([Fault.REFUSED, Fault.REFUSED])
    environment.fine_tunes = {name: fine_tune(name, "failed") for name in NAMES}
    environment.crash_at = point
    pipeline.poll()
    for _ in range(4):
        environment.pass_time(3.0)
        pipeline.deliver()
    assert environment.restarts == 1
    pipeline.close()
