"""Months in minutes: thousands of polls with outages lose nothing, and no memory grows."""

import random
import resource

import pytest
from structlog.testing import capture_logs

from tests.delivery.crashing_pipeline import Agent, Circumstances, fine_tune, witnesses
from tests.delivery.delivery_oracle import Fault, Witness

POLLS = 10_000
VOICES = 40
FAULTS = [fault for fault in Fault if fault is not Fault.REFUSED]


def resident() -> float:
    """The most memory this process ever held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_poll(agent: Agent, around: Circumstances, told: dict[str, Witness], dice: random.Random):
    for name in dice.sample([f"f{number}" for number in range(VOICES)], 2):
        status = dice.choice(["training", "training", "completed", "failed"])
        around.fine_tunes[name] = fine_tune(name, status)
    if dice.random() < 0.02:
        agent.restart()
    if dice.random() < 0.05:
        witness = told[dice.choice([*told])]
        witness.faults.extend(dice.choices(FAULTS, k=dice.randint(1, 8)))
    around.api_fails = dice.random() < 0.05
    agent.poll()
    for _ in range(2):
        around.pass_time(30.0)
        agent.deliver()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_10000_polls_with_outages_tell_each_failure_in_flat_memory(tmp_path):
    dice, around, told = random.Random(7), Circumstances(), witnesses()
    agent = Agent(tmp_path / "state.db", around, told)
    agent.poll()
    with capture_logs() as logs:
        for number in range(POLLS):
            one_poll(agent, around, told, dice)
            logs.clear()
            if number == POLLS // 2:
                half_way = resident()
    grown = resident() - half_way
    around.api_fails = False
    for witness in told.values():
        witness.faults.clear()
    while agent.pending():
        around.pass_time(max(agent.deliver(), 0.5))
    for name in ("chat", "log"):
        sent = [key for key in agent.shown() if key[2] == name]
        assert len(sent) == agent.failures.entries.total() > POLLS / 10
        assert {event for event, _, _ in sent} <= told[name].arrived()
    agent.close()
    assert grown < 30, "what the witnesses remember is some MiB; the agent's memory must not grow"
