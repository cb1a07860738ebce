"""Two agents on one PostgreSQL: every failure arrives, whatever happens to agents and server."""

import time

import pytest

from tests.process.agent_process import get, until
from tests.process.fake_api import fake_api
from tests.replicas.pair import LEASE, Pair, pair

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


FAULTS = (kill_owner, suspend_owner, end_connections, restart_server, cut_network_of_owner)


def test_every_failure_is_notified_whatever_happens(tmp_path, postgres):
    with fake_api() as (api, inbox), pair(tmp_path, postgres, api, inbox) as running:
        running.owner.process.wait_for_line("baseline taken")
        standby = running.standby
        assert get(f"{standby.url}/-/ready").text.startswith("cartesia-exporter is ready: standby")
        assert get(f"{standby.url}/-/active").status_code == 503
        assert get(f"{running.owner.url}/-/active").status_code == 200
        assert "cartesia_up{" not in standby.metrics()
        for fault in FAULTS:
            fault(running)
        running.owner  # noqa: B018 - waits until there is one
        # At most one message of each receiver was under way, or not marked, at each fault.
        running.check_repeats(len(FAULTS))
        assert all(each.process.is_running for each in running.replicas)
