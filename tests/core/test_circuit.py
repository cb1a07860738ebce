"""Delays after failed attempts, and when a circuit opens and closes."""

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
    st.builds(CircuitState, failures, st.just(NOW), st.booleans(), st.just("503"), st.just(NOW)),
)
attempts = st.builds(Attempt, st.sampled_from(Outcome), st.just("404"), st.none() | seconds)
troubled = st.sampled_from([Outcome.THROTTLED, Outcome.TRANSIENT, Outcome.ENDPOINT])


def failed(outcome: Outcome, retry_after: float | None = None) -> Attempt:
    return Attempt(outcome, "", retry_after)


def failing(number: int = 1, since: float = NOW, *, opened: bool = False) -> CircuitState:
    return CircuitState(number, since, opened, "503", since)


@given(troubled, seconds, failures, chances, st.booleans())
def test_requested_wait_is_bounded_to_1s_and_1h(outcome, requested, number, random, opened):
    pause = failing(number, opened=opened).pause(failed(outcome, requested), NOW, random)
    assert min(max(requested, 1), 3600) <= pause <= 3600


@pytest.mark.parametrize(
    ("requested", "pause"),
    [(None, 60), (0, 1), (0.2, 1), (1, 1), (30, 30), (3600, 3600), (86_400, 3600), (1e308, 3600)],
)
def test_throttled_receiver_gets_the_requested_wait(requested, pause):
    throttled = failed(Outcome.THROTTLED, requested)
    for circuit in (failing(40), failing(40, opened=True)):
        assert circuit.pause(throttled, NOW + 10_000, 0.99) == pause


@given(failures, chances)
def test_back_off_applies_without_a_requested_wait(number, random):
    pause = failing(number).pause(failed(Outcome.TRANSIENT), NOW, random)
    assert pause == DELIVERIES.delay(number, random)


def test_back_off_applies_if_it_exceeds_the_requested_wait():
    assert failing(50).pause(failed(Outcome.TRANSIENT, 0), NOW + 1800, 0.5) == 150


@pytest.mark.parametrize(("seconds", "longest"), [(0, 300), (3599.9, 300), (3600, 900), (1e9, 900)])
def test_back_off_grows_to_15_minutes_after_an_hour(seconds, longest):
    circuit = failing(10**6)
    assert circuit.pause(failed(Outcome.TRANSIENT), NOW + seconds, 1) == longest


def test_open_circuit_is_probed_after_1_2_5_10_30_and_60_minutes():
    circuit, pauses = CIRCUIT_CLOSED, []
    for _ in range(8):
        attempt = failed(Outcome.ENDPOINT)
        circuit = circuit.after(attempt, NOW, NOW)
        pauses.append(circuit.pause(attempt, NOW, 0.5) / 60)
    assert pauses == [1, 2, 5, 10, 30, 60, 60, 60]


def test_probe_delays_restart_when_the_circuit_opens():
    circuit = failing(30, NOW - 5000).after(failed(Outcome.ENDPOINT), NOW, NOW)
    assert circuit == CircuitState(1, NOW, open=True, since_awake=NOW)
    assert circuit.pause(failed(Outcome.ENDPOINT), NOW, 0.5) == PROBES[0]


def test_unanswered_probe_leaves_the_circuit_open():
    circuit = failing(2, opened=True).after(failed(Outcome.TRANSIENT), NOW + 9, NOW + 9)
    assert (circuit.open, circuit.failures, circuit.since) == (True, 3, NOW)
    assert circuit.pause(failed(Outcome.TRANSIENT), NOW + 9, 0.0) == PROBES[2]


@given(healths, attempts, chances)
def test_only_delivered_and_payload_outcomes_close_the_circuit(circuit, attempt, random):
    after = circuit.after(attempt, NOW, NOW)
    read = attempt.outcome in {Outcome.DELIVERED, Outcome.PAYLOAD}
    assert (after == CIRCUIT_CLOSED) == read
    assert (after.failures == 0) == read
    assert 0 <= after.pause(attempt, NOW, random) <= 3600
    if read:
        assert after.pause(attempt, NOW, random) == 0


@given(healths, attempts)
def test_only_opening_and_closing_have_events(circuit, attempt):
    after = circuit.after(attempt, NOW, NOW)
    event = circuit_event("store", "ops", circuit, after, NOW)
    if after.open == circuit.open:
        assert event is None
        return
    assert event is not None
    assert event.subject == "ops"
    assert event.type == ("agent.receiver_unhealthy" if after.open else "agent.receiver_recovered")
    assert event == circuit_event("store", "ops", circuit, after, NOW), (
        "detected again it is the same"
    )
    later = circuit_event(
        "store", "ops", CIRCUIT_CLOSED, CircuitState(1, NOW + 1, open=True), NOW + 1
    )
    assert later is not None
    assert later.id != event.id
