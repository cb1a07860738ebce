"""Failures within one poll, and the state of their deliveries."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from tests.process.agent_process import Agent, until
from tests.process.fake_api import Api


def hold_poll(api: Api) -> None:
    """Hold the next poll before its answer, until ``fail_in_one_poll`` releases it."""
    api.gate.close()
    until(lambda: api.gate.waiting)


def fail_in_one_poll(api: Api, ids: Sequence[str]) -> None:
    """Set fine-tunes to ``failed`` between two polls, so that one poll sees all of them."""
    hold_poll(api)
    for fine_tune_id in ids:
        api.world.set_status(fine_tune_id, "failed")
    api.gate.open()


def query_state(agent: Agent, query: str) -> list[tuple[Any, ...]]:
    """Run a query on the state of a running or stopped agent."""
    connection = sqlite3.connect(agent.state, timeout=10)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def failed_events(agent: Agent) -> dict[str, str]:
    """Return the fine-tune of each failure in the state, by the id of the event."""
    query = "SELECT id, subject FROM events WHERE type = 'fine_tune.failed'"
    return dict(query_state(agent, query))


def all_delivered(agent: Agent, number: int | None = None) -> bool:
    """Return whether the state has deliveries (exactly ``number``, if given), all delivered."""
    states = [state for (state,) in query_state(agent, "SELECT state FROM deliveries")]
    return {*states} == {"delivered"} and number in {None, len(states)}
