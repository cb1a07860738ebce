"""Many accounts on two replicas: equal shares, and everything is owned soon after one is gone."""

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.postgres_server import PostgresServer
from tests.process.agent_process import Agent, get, until
from tests.process.fake_api import agent_config, fake_api
from tests.replicas.pair import Replica

pytestmark = pytest.mark.usefixtures("unmeasured")


def check_shares(
    folder: Path, postgres: PostgresServer, number: int, lease: float, interval: float
) -> None:
    names, database = {f"account-{n}" for n in range(number)}, postgres.new_database()
    # The pages of a thousand accounts are large: reading them must not keep the replicas busy.
    pause = number / 2000
    with fake_api() as (api, _), ExitStack() as stack:
        [account] = agent_config(api)["accounts"]
        config = agent_config(api, interval=f"{interval:g}s") | {
            "accounts": [{**account, "name": name} for name in sorted(names)],
            "storage": {"url": postgres.url(database), "lease": f"{lease:g}s"},
        }
        replicas = []
        for name in ("first", "second"):
            (folder / name).mkdir()
            replica = Replica(Agent(folder / name, **config))
            stack.callback(replica.close)
            replica.launch()
            replicas.append(replica)
        first, second = replicas
        ages = list[float]()

        def are_equal() -> bool:
            owned = [each.owns() for each in replicas]
            return owned[0] | owned[1] == names and abs(len(owned[0]) - len(owned[1])) <= 1

        def are_polled() -> bool:
            ages.append(age_of_oldest_read(postgres, database))
            return polled_of(*(each for each in replicas if each.is_working)) == names

        until(are_equal, 60, pause)
        assert not first.owns() & second.owns()
        first.kill()
        killed = time.monotonic()
        # Asked often, so it is not the page of the metrics, which is large.
        until(lambda: f"owns {number} accounts" in get(f"{second.url}/-/active").text, 60, 0.2)
        assert time.monotonic() - killed < max(1.2 * lease + 2, 11)
        until(lambda: second.owns() == names, 10, pause)  # a page with much is up to 2 s old
        until(are_polled, max(interval + 2, 20), pause)
        ages.clear()
        first.start()
        until(lambda: are_polled() and are_equal(), 60, pause)
        # One interval missed, and when it was read is stored with the renewals.
        assert max(ages) < max(2 * interval + lease / 5 + 2, 15)


def age_of_oldest_read(postgres: PostgresServer, database: str) -> float:
    """The seconds since the last read of the account for which it was longest ago."""
    query = "SELECT max(extract(epoch FROM clock_timestamp()) - read_at) FROM accounts"
    [(age,)] = postgres.execute(query, database)
    return float(age or 0)


def polled_of(*replicas: Replica) -> set[str]:
    """The accounts whose last poll succeeded, by the pages of replicas."""
    lines = (line for replica in replicas for line in replica.metrics().splitlines())
    start = 'cartesia_up{account="'
    ok = (line for line in lines if line.startswith(start) and line.endswith(" 1.0"))
    return {line.removeprefix(start).partition('"')[0] for line in ok}


def test_accounts_are_shared_and_taken_over(tmp_path, postgres):
    check_shares(tmp_path, postgres, 40, lease=5.0, interval=2.0)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_a_thousand_accounts_are_shared_and_taken_over(tmp_path, postgres):
    check_shares(tmp_path, postgres, 1000, lease=15.0, interval=30.0)
