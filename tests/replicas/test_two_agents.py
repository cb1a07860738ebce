"""Two agents on one PostgreSQL: every failure arrives, whatever happens to agents and server."""

import random
import secrets
import socket
import time

import pytest

from exporter.simulator.world import Population, World
from tests.process.agent_process import get, until
from tests.process.fake_api import fake_api
from tests.replicas.pair import LEASE, MODEL, Pair, Replica, pair

pytestmark = pytest.mark.usefixtures("unmeasured")

FAILOVER_SECONDS = LEASE * 1.2 + 5


def kill_owner(running: Pair) -> None:
    owner = running.owner
    owner.kill()
    running.fail(3)
    started = time.monotonic()
    running.wait_until_notified()
    assert time.monotonic() - started < FAILOVER_SECONDS
    owner.start()


def suspend_owner(running: Pair) -> None:
    owner = running.owner
    owner.suspend()
    running.fail(3)
    running.wait_until_notified()
    owner.resume()


def end_connections(running: Pair) -> None:
    running.fail(3)
    running.server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'"
    )
    running.wait_until_notified()


def restart_server(running: Pair) -> None:
    running.fail(3)
    running.server.stop()
    running.server.start()
    running.wait_until_notified()


def cut_network_of_owner(running: Pair) -> None:
    owner = running.owner
    owner.network.stop()
    running.fail(3)
    running.wait_until_notified()
    until(lambda: not owner.owns())
    owner.network.resume()


def change_password(running: Pair) -> None:
    password = secrets.token_hex()
    running.bouncer.set_password(password)
    for each in running.replicas:
        each.network.cut()
    # Neither can renew its lease with the old password.
    until(lambda: not any(each.owns() for each in running.replicas))
    running.fail(3)
    for each in running.replicas:
        each.set_password(password)
    running.wait_until_notified()


def check_standby(owner: Replica, standby: Replica) -> None:
    """It is ready, serves no series of the account, and shows the data of the owner."""
    assert get(f"{standby.url}/-/ready").text.startswith("cartesia-exporter is ready: standby")
    # Each has one of the two receivers.
    until(lambda: all(len(each.owns("receiver")) == 1 for each in (owner, standby)))
    assert get(f"{standby.url}/-/active").text.startswith("cartesia-exporter is active: owns 1")
    assert "cartesia_up{" not in standby.metrics()
    until(lambda: get(f"{standby.url}/api/v1/status").json()["complete"])
    shown, own = (get(f"{each.url}/api/v1/status").json() for each in (standby, owner))
    [account] = shown["accounts"]
    assert (account["state"], account["fine_tunes"]) == ("current", 2)
    assert account["counts"] == own["accounts"][0]["counts"]
    assert account["owner"] == shown["receivers"][0]["owner"] == socket.gethostname()
    assert [each["live"] for each in shown["replicas"]] == [True, True]
    assert sorted(each["accounts"] for each in shown["replicas"]) == [0, 1]
    page = get(f"{standby.url}/notifications", accept="text/html").text
    assert page.count(" active</span>") == 2
    assert "Data is complete and current" in page


FAULTS = (
    kill_owner,
    suspend_owner,
    end_connections,
    restart_server,
    cut_network_of_owner,
    change_password,
)


@pytest.mark.long
def test_every_failure_is_notified_whatever_happens(tmp_path, postgres):
    world = World(Population(fine_tunes=1))
    world.add(status="completed", model_id=MODEL)  # its series begin at 0
    with (
        fake_api(world=world) as (api, inbox),
        pair(tmp_path, postgres, api, inbox) as running,
        running.scraped(tmp_path) as scrapes,
    ):
        owner = running.owner
        owner.process.wait_for_line("baseline taken")
        check_standby(owner, running.standby)
        scrapes.begin()
        for fault in FAULTS:
            fault(running)
        running.owner  # noqa: B018 - waits until there is one
        # At most one message of each receiver was under way, or not marked, at each fault.
        running.check_repeats(len(FAULTS))
        assert all(each.process.is_running for each in running.replicas)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_600_failures_are_notified_with_random_faults_at_the_default_lease(tmp_path, postgres):
    """A takeover after a kill takes less than 20 s."""
    chosen = random.Random(7)
    rounds, lease = 24, 15.0
    world = World(Population(fine_tunes=1))
    world.add(status="completed", model_id=MODEL)  # its series begin at 0
    with (
        fake_api(world=world) as (api, inbox),
        pair(tmp_path, postgres, api, inbox, storage={"lease": f"{lease:g}s"}) as running,
        running.scraped(tmp_path) as scrapes,
    ):
        running.owner.process.wait_for_line("baseline taken")
        scrapes.begin()
        for number in range(rounds):
            fault = chosen.choice(FAULTS) if number else kill_owner
            running.fail(600 // rounds)
            time.sleep(chosen.uniform(0, 3))  # anywhere within polls and deliveries
            if fault is kill_owner:
                owner = running.owner
                owner.kill()
                killed = time.monotonic()
                until(lambda: len([each for each in running.replicas if each.owns()]) == 1)
                assert time.monotonic() - killed < 20
                running.wait_until_notified()
                owner.start()
            else:
                fault(running)
        running.owner  # noqa: B018 - waits until there is one
        running.check_repeats(rounds)
        assert all(each.process.is_running for each in running.replicas)
