"""Replicas with different configurations, and one that is stopped."""

import json
import signal
import time
from contextlib import ExitStack

from tests.process.agent_process import Agent, until
from tests.process.fake_api import agent_config, fake_api, webhook
from tests.replicas.pair import Replica

LEASE = 10.0


def test_a_replica_with_a_new_configuration_replaces_an_old_one(tmp_path, postgres):
    with fake_api() as (api, inbox), ExitStack() as stack:
        old = agent_config(api, webhook(inbox))
        old["storage"] = {"url": postgres.url(postgres.new_database()), "lease": f"{LEASE:g}s"}
        [main] = old["accounts"]
        new = {**old, "accounts": [main, {**main, "name": "more"}]}
        replicas = []
        for name, config in (("old", old), ("new", new)):
            (tmp_path / name).mkdir()
            replica = Replica(Agent(tmp_path / name, **config))
            stack.callback(replica.close)
            replica.start()
            replicas.append(replica)
            replica.process.wait_for_line("baseline taken")
        first, second = replicas
        assert (first.owns(), second.owns()) == ({"main"}, {"more"}), "nothing moves"
        stopped = time.monotonic()
        assert first.process.stop() == 0
        until(lambda: second.owns() == {"main", "more"})
        assert time.monotonic() - stopped < 0.8 * LEASE, "it released what it owned"
        assert second.owns("receiver") == {"ops"}
        second.agent.file.write_text(json.dumps(old), encoding="utf-8")
        second.process.send_signal(signal.SIGHUP)
        until(lambda: second.owns() == {"main"})
        until(lambda: 'account="more"' not in second.metrics())
        failed = api.world.add(status="failed").id
        until(lambda: any(failed.encode() in each.body for each in inbox.requests))
