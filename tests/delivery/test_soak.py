"""Thousands of polls with outages: no failure is lost, and memory does not grow."""

import random
import resource

import pytest
from structlog.testing import capture_logs

from tests.delivery.crashing_pipeline import CrashingPipeline, Environment, fine_tune, oracles
from tests.delivery.delivery_oracle import DeliveryOracle, Fault

POLLS = 10_000
FINE_TUNES = 40
FAULTS = [fault for fault in Fault if fault is not Fault.REFUSED]


def resident() -> float:
    """Return the most memory that this process ever used, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_poll(
    pipeline: CrashingPipeline,
    environment: Environment,
    receivers: dict[str, DeliveryOracle],
    chance: random.Random,
) -> None:
    for name in chance.sample([f"f{number}" for number in range(FINE_TUNES)], 2):
        status = chance.choice(["training", "training", "completed", "failed"])
        environment.fine_tunes[name] = fine_tune(name, status)
    if chance.random() < 0.02:
        pipeline.restart()
    if chance.random() < 0.05:
        receiver = receivers[chance.choice([*receivers])]
        receiver.faults.extend(chance.choices(FAULTS, k=chance.randint(1, 8)))
    environment.api_fails = chance.random() < 0.05
    pipeline.poll()
    for _ in range(2):
        environment.pass_time(30.0)
        pipeline.deliver()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_10000_polls_with_outages_deliver_every_failure_in_constant_memory(tmp_path):
    chance, environment, receivers = random.Random(7), Environment(), oracles()
    pipeline = CrashingPipeline(tmp_path / "state.db", environment, receivers)
    pipeline.poll()
    with capture_logs() as logs:
        for number in range(POLLS):
            run_poll(pipeline, environment, receivers, chance)
            logs.clear()
            if number == POLLS // 2:
                half_way = resident()
    grown = resident() - half_way
    environment.api_fails = False
    for receiver in receivers.values():
        receiver.faults.clear()
    while pipeline.count_pending():
        environment.pass_time(max(pipeline.deliver(), 0.5))
    for name in ("chat", "log"):
        sent = [key for key in pipeline.failure_deliveries() if key[2] == name]
        assert len(sent) == pipeline.failures.entries.total() > POLLS / 10
        assert {event for event, _, _ in sent} <= receivers[name].accepted_events()
    pipeline.close()
    assert grown < 30, "the oracles keep some MiB; the agent's memory must not grow"
