"""How long a receiver rests after an attempt, and what it takes to call it unhealthy."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.events import circuit_event
from exporter.core.retry import CIRCUIT_CLOSED, DELIVERIES, PROBES, Attempt, CircuitState, Outcome

NOW = 1_800_000_000.0

chances = st.floats(0, 1, exclude_max=True)
failures = st.integers(1, sys.maxsize)
seconds = st.floats(0, allow_nan=False, allow_infinity=False)
healths = st.one_of(
    st.just(CIRCUIT_CLOSED),
    st.builds(CircuitState, failures, st.just(NOW), st.booleans(), st.just("503")),
)
attempts = st.builds(Attempt, st.sampled_from(Outcome), st.just("404"), st.none() | seconds)
troubled = st.sampled_from([Outcome.THROTTLED, Outcome.TRANSIENT, Outcome.ENDPOINT])


def failed(outcome: Outcome, retry_after: float | None = None) -> Attempt:
    return Attempt(outcome, "", retry_after)


def in_trouble(number: int = 1, since: float = NOW, *, opened: bool = False) -> CircuitState:
    return CircuitState(number, since, opened, "503")


@given(troubled, seconds, failures, chances, st.booleans())
def test_a_wait_that_was_asked_for_is_kept_between_a_second_and_an_hour(
    outcome, asked, number, chance, opened
):
    pause = in_trouble(number, opened=opened).pause(failed(outcome, asked), NOW, chance)
    assert min(max(asked, 1), 3600) <= pause <= 3600


@pytest.mark.parametrize(
    ("asked", "pause"),
    [(None, 60), (0, 1), (0.2, 1), (1, 1), (30, 30), (3600, 3600), (86_400, 3600), (1e308, 3600)],
)
def test_a_throttled_receiver_waits_as_long_as_it_asks_for(asked, pause):
    throttled = failed(Outcome.THROTTLED, asked)
    for health in (in_trouble(40), in_trouble(40, opened=True)):
        assert health.pause(throttled, NOW + 10_000, 0.99) == pause


@given(failures, chances)
def test_without_a_wish_the_back_off_applies(number, chance):
    pause = in_trouble(number).pause(failed(Outcome.TRANSIENT), NOW, chance)
    assert pause == DELIVERIES.delay(number, chance)


def test_a_broken_server_that_asks_for_a_second_each_time_is_not_asked_each_second():
    assert in_trouble(50).pause(failed(Outcome.TRANSIENT, 0), NOW + 1800, 0.5) == 150


@pytest.mark.parametrize(("lasting", "longest"), [(0, 300), (3599.9, 300), (3600, 900), (1e9, 900)])
def test_after_an_hour_of_trouble_the_waits_may_grow_to_a_quarter_of_an_hour(lasting, longest):
    health = in_trouble(10**6)
    assert health.pause(failed(Outcome.TRANSIENT), NOW + lasting, 1) == longest


def test_an_open_circuit_is_probed_after_1_2_5_10_30_and_60_minutes():
    health, pauses = CIRCUIT_CLOSED, []
    for _ in range(8):
        attempt = failed(Outcome.ENDPOINT)
        health = health.after(attempt, NOW)
        pauses.append(health.pause(attempt, NOW, 0.5) / 60)
    assert pauses == [1, 2, 5, 10, 30, 60, 60, 60]


def test_the_probes_begin_anew_where_a_trouble_turns_into_an_open_circuit():
    health = in_trouble(30, NOW - 5000).after(failed(Outcome.ENDPOINT), NOW)
    assert health == CircuitState(1, NOW, open=True)
    assert health.pause(failed(Outcome.ENDPOINT), NOW, 0.5) == PROBES[0]


def test_a_probe_that_is_not_answered_leaves_the_circuit_open():
    health = in_trouble(2, opened=True).after(failed(Outcome.TRANSIENT), NOW + 9)
    assert (health.open, health.failures, health.since) == (True, 3, NOW)
    assert health.pause(failed(Outcome.TRANSIENT), NOW + 9, 0.0) == PROBES[2]


@given(healths, attempts, chances)
def test_only_what_was_read_makes_well_and_only_what_is_well_has_no_pause(health, attempt, chance):
    after = health.after(attempt, NOW)
    read = attempt.outcome in {Outcome.DELIVERED, Outcome.PAYLOAD}
    assert (after == CIRCUIT_CLOSED) == read
    assert (after.failures == 0) == read
    assert 0 <= after.pause(attempt, NOW, chance) <= 3600
    if read:
        assert after.pause(attempt, NOW, chance) == 0


@given(healths, attempts)
def test_opening_and_closing_is_an_event_of_its_own_and_nothing_else_is(health, attempt):
    after = health.after(attempt, NOW)
    event = circuit_event("store", "ops", health, after, NOW)
    if after.open == health.open:
        assert event is None
        return
    assert event is not None
    assert event.subject == "ops"
    assert event.type == ("agent.receiver_unhealthy" if after.open else "agent.receiver_recovered")
    assert event == circuit_event("store", "ops", health, after, NOW), (
        "detected again it is the same"
    )
    later = circuit_event(
        "store", "ops", CIRCUIT_CLOSED, CircuitState(1, NOW + 1, open=True), NOW + 1
    )
    assert later is not None
    assert later.id != event.id
