"""Many accounts on two replicas: equal shares, and everything is owned soon after one is gone."""

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.postgres_server import PostgresServer
from tests.process.agent_process import Agent, until
from tests.process.fake_api import agent_config, fake_api
from tests.replicas.pair import Replica

pytestmark = pytest.mark.usefixtures("unmeasured")


def check_shares(
    folder: Path, postgres: PostgresServer, number: int, lease: float, interval: str
) -> None:
    names = {f"account-{n}" for n in range(number)}
    with fake_api() as (api, _), ExitStack() as stack:
        [account] = agent_config(api)["accounts"]
        config = agent_config(api, interval=interval) | {
            "accounts": [{**account, "name": name} for name in sorted(names)],
            "storage": {"url": postgres.url(postgres.new_database()), "lease": f"{lease:g}s"},
        }
        replicas = []
        for name in ("first", "second"):
            (folder / name).mkdir()
            replica = Replica(Agent(folder / name, **config))
            stack.callback(replica.close)
            replica.launch()
            replicas.append(replica)
        first, second = replicas

        def are_equal() -> bool:
            owned = [each.owns() for each in replicas]
            return owned[0] | owned[1] == names and abs(len(owned[0]) - len(owned[1])) <= 1

        until(are_equal, 60)
        assert not first.owns() & second.owns()
        first.kill()
        killed = time.monotonic()
        until(lambda: second.owns() == names, 60)
        assert time.monotonic() - killed < max(1.2 * lease + 2, 11)
        until(lambda: polled_of(second) == names, 60)
        first.start()
        until(are_equal, 90)


def polled_of(replica: Replica) -> set[str]:
    """The accounts whose last poll succeeded, by the replica's page."""
    lines = replica.metrics().splitlines()
    start = 'cartesia_up{account="'
    ok = (line for line in lines if line.startswith(start) and line.endswith(" 1.0"))
    return {line.removeprefix(start).partition('"')[0] for line in ok}


def test_accounts_are_shared_and_taken_over(tmp_path, postgres):
    check_shares(tmp_path, postgres, 40, lease=5.0, interval="2s")


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_a_thousand_accounts_are_shared_and_taken_over(tmp_path, postgres):
    check_shares(tmp_path, postgres, 1000, lease=15.0, interval="30s")
