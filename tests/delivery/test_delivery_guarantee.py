"""The promise, whatever happens: to the fine-tunes, the API, the receivers, the store, the clock.

Every entry into `failed` that polls see after the baseline is delivered at least once to every
receiver that wants it, or is visibly pending or dead; a repeat carries the same id and bytes.
"""

import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.delivery.crashing_pipeline import (
    DIGEST_THRESHOLD,
    INTERESTS,
    POINTS,
    Agent,
    Circumstances,
    fine_tune,
    witnesses,
)
from tests.delivery.delivery_oracle import Fault

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

statuses = st.sampled_from(["created", "training", "completed", "failed", "failed", "odd"])


class Promise(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.around, self.told = Circumstances(), witnesses()
        self.around.fine_tunes = {name: fine_tune(name, "training") for name in NAMES[:4]}
        self.around.fine_tunes["f3"] = fine_tune("f3", "failed")
        self.agent = Agent(self.folder / "state.db", self.around, self.told)
        self.agent.poll()
        self.a_day_ahead = False
        self.more = len(NAMES)

    @rule(changes=st.dictionaries(st.sampled_from(NAMES), st.none() | statuses, max_size=6))
    def fine_tunes_change_and_are_polled(self, changes: dict[str, str | None]) -> None:
        for name, status in changes.items():
            if status is None:
                self.around.fine_tunes.pop(name, None)
            else:
                self.around.fine_tunes[name] = fine_tune(name, status)
        self.agent.poll()

    @rule()
    def all_fail_at_once(self) -> None:
        self.around.fine_tunes = {name: fine_tune(name, "failed") for name in NAMES}
        self.agent.poll()

    @rule(status=statuses)
    def all_leave_for_good(self, status: str) -> None:
        self.around.fine_tunes = {name: fine_tune(name, status) for name in NAMES}
        self.agent.poll()
        self.agent.poll()

    @rule()
    def the_api_fails(self) -> None:
        self.around.api_fails = True
        self.agent.poll()
        self.around.api_fails = False

    @rule(
        name=st.sampled_from([interest.receiver for interest in INTERESTS]),
        faults=st.lists(st.sampled_from(Fault), min_size=1, max_size=4),
    )
    def a_receiver_has_trouble(self, name: str, faults: list[Fault]) -> None:
        self.told[name].faults.extend(faults)
        self.some_more_fail_and_are_told()

    def some_more_fail_and_are_told(self) -> None:
        """Have something to do at once: trouble that meets nothing to tell finds nothing out."""
        for name in (f"f{self.more}", f"f{self.more + 1}"):
            self.around.fine_tunes[name] = fine_tune(name, "failed")
        self.more += 2
        self.agent.poll()
        self.time_passes(3, 3.0)

    @rule(turns=st.integers(1, 4), seconds=st.sampled_from([0.0, 2.0, 30.0, 600.0, 3600.0]))
    def time_passes(self, turns: int, seconds: float) -> None:
        for _ in range(turns):
            self.around.pass_time(seconds)
            self.agent.deliver()

    @rule()
    def the_clock_on_the_wall_jumps(self) -> None:
        self.around.wall += -DAY if self.a_day_ahead else DAY
        self.around.latest = max(self.around.latest, self.around.wall)
        self.a_day_ahead = not self.a_day_ahead

    @rule()
    def it_is_started_again(self) -> None:
        self.agent.restart()

    @rule(point=st.sampled_from(POINTS))
    def it_will_die(self, point: str) -> None:
        self.around.dies_at = point
        self.some_more_fail_and_are_told()

    @rule(what=st.sampled_from(REFUSED_WRITES))
    def the_disk_is_full(self, what: str) -> None:
        self.there_is_room()
        self.agent.execute(
            f"CREATE TRIGGER no BEFORE {what} BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
        self.some_more_fail_and_are_told()

    @rule()
    def there_is_room(self) -> None:
        self.agent.execute("DROP TRIGGER IF EXISTS no")

    @invariant()
    def each_failure_is_delivered_or_visible(self) -> None:
        shown, too_old = self.agent.shown(), self.agent.too_old()
        for interest in INTERESTS:
            witness = self.told[interest.receiver]
            mine = {key[:2]: state for key, state in shown.items() if key[2] == interest.receiver}
            told = Counter(name for _, name in mine)
            assert told == self.wanted(interest.receiver), "not every failure is owed once"
            for (event, _), state in mine.items():
                assert state in {"pending", "delivered", "dead"}
                assert state != "delivered" or event in witness.arrived()
                assert state != "dead" or event in witness.refused | too_old

    @invariant()
    def what_is_held_up_is_few_messages(self) -> None:
        chat = self.told["chat"]
        # A refusal shows that the receiver reads: it is well, and one more message may be made.
        limit = 1 + chat.requests.bit_length() + self.around.deaths + len(chat.refused)
        # What was taken and cannot be marked is not held up, whatever the store still shows.
        held_up = self.agent.pending_messages("chat") - chat.taken()
        assert len(held_up) <= limit

    def wanted(self, receiver: str) -> Counter[str]:
        entries = +self.agent.failures.entries
        if receiver == "hook":
            return Counter({name: n for name, n in entries.items() if int(name[1:]) % 2 == 0})
        return entries

    def teardown(self) -> None:
        self.there_is_room()
        self.around.dies_at = None
        for witness in self.told.values():
            witness.faults.clear()
        before = self.agent.messages("chat").total()
        for _ in range(400):
            if not self.agent.pending():
                break
            # By minutes: an open circuit rests for an hour, in which the others have no wait.
            self.around.pass_time(max(self.agent.deliver(), 60.0))
        assert not self.agent.pending(), "it is not delivered though nothing stands in its way"
        self.each_failure_is_delivered_or_visible()
        # What came of the other receivers' troubles is told too.
        assert self.agent.messages("chat").total() - before <= DIGEST_THRESHOLD + 4
        self.agent.close()
        shutil.rmtree(self.folder)


def check(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Promise,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_promise_is_kept():
    check(examples=8, steps=25)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_promise_is_kept_for_long():
    check(examples=400, steps=80)
