"""A snapshot that an owner read before another replica took the account over."""

import json
import signal

import psycopg
import pytest

from exporter.simulator.world import Population, World
from tests.process.agent_process import until
from tests.process.fake_api import fake_api
from tests.replicas.pair import Replica, pair

pytestmark = pytest.mark.usefixtures("unmeasured")

HOLDER = "(SELECT holder FROM ownership WHERE kind = 'account')"
END_LEASE = f"UPDATE replicas SET until = clock_timestamp() WHERE id = {HOLDER}"
HOLD_LEASE = f"SELECT until <= clock_timestamp() FROM replicas WHERE id = {HOLDER} FOR UPDATE"
FAILURES = "SELECT sum(total) FROM transitions WHERE to_status = 'failed'"


def poll_now(replica: Replica, interval: str) -> None:
    """Reload another interval: the poller is replaced, and the new one polls at once."""
    config = json.loads(replica.agent.file.read_text(encoding="utf-8"))
    config["poll"]["interval"] = interval
    replica.agent.file.write_text(json.dumps(config), encoding="utf-8")
    replica.process.send_signal(signal.SIGHUP)


def end_lease(connection: psycopg.Connection) -> None:
    """End the lease of the owner; it cannot renew it, nor learn of its end, until a rollback."""
    while True:
        connection.execute(END_LEASE)
        connection.commit()
        if connection.execute(HOLD_LEASE).fetchall() == [(True,)]:
            return
        connection.rollback()  # renewed in between


def test_a_snapshot_from_before_a_takeover_is_not_stored(tmp_path, postgres):
    world = World(Population(fine_tunes=0))
    first, second = (world.add(status="training").id for _ in range(2))
    # The owner may wait for the answer for 5 s, and trusts its lease for 8 s.
    times = {"poll": {"interval": "20s"}, "storage": {"lease": "10s"}}
    with (
        fake_api(world=world) as (api, inbox),
        pair(tmp_path, postgres, api, inbox, **times) as running,
        psycopg.connect(running.server.url(running.database)) as connection,
    ):
        owner, standby = running.owner, running.standby
        owner.process.wait_for_line("baseline taken")
        world.set_status(first, "failed")
        api.gate.close()
        api.is_held = lambda _: False
        api.holds_answer = lambda _: True
        poll_now(owner, "21s")
        until(lambda: api.gate.waiting)
        api.holds_answer = lambda _: False
        world.set_status(second, "failed")
        end_lease(connection)
        until(lambda: running.execute(FAILURES) == [(2,)])
        api.gate.open()
        owner.process.wait_for_line("ownership lost.* name=main")
        connection.rollback()
        running.failed |= {first, second}
        running.wait_until_notified()
        assert (owner.owns(), standby.owns()) == (set(), {"main"})
        assert running.execute(FAILURES) == [(2,)]
        assert "fine-tune failed" not in owner.process.output
        running.check_repeats(0)
