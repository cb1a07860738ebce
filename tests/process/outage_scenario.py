"""What the tests of an agent in trouble have in common: failures to tell, and when all is told."""

import asyncio
import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from exporter.core.model import AccountKey, FineTune
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from tests.process.agent_process import Agent, until
from tests.process.fake_api import Api
from tests.store.sample_polls import poll_result, snapshot_of


def fail_in_one_poll(api: Api, ids: Sequence[str]) -> None:
    """Have all of them fail between two polls: the next one waits until they did."""
    api.gate.close()
    until(lambda: api.gate.waiting)
    for each in ids:
        api.world.set_status(each, "failed")
    api.gate.open()


def fail_while_away(agent: Agent, api: Api, number: int) -> list[str]:
    """Have fine-tunes of the baseline fail before the agent looks again; return their ids."""

    async def take_baseline() -> None:
        found = [FineTune(**msgspec.structs.asdict(each)) for each in api.world]
        record = poll_result(None, snapshot_of(*found), key=AccountKey("main", api.url))
        async with Database(agent.state) as database:
            await Accounts(database).commit(record)

    failing = [api.world.add(status="training").id for _ in range(number)]
    asyncio.run(take_baseline())
    for each in failing:
        api.world.set_status(each, "failed")
    return failing


def rows(agent: Agent, query: str) -> list[tuple[Any, ...]]:
    """Ask the agent's state, which is in use."""
    connection = sqlite3.connect(agent.state, timeout=10)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def settled(agent: Agent, number: int | None = None) -> bool:
    """Whether there are deliveries, so many if it is said, and all of them are delivered."""
    states = [state for (state,) in rows(agent, "SELECT state FROM deliveries")]
    return {*states} == {"delivered"} and number in {None, len(states)}
