"""A database that is restored from an older backup while agents run, or while they are down."""

import json
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from exporter.simulator.world import Population, World
from tests.postgres_server import PostgresServer, postgres_server
from tests.process.agent_process import Agent, get, injected, repeated, until, url_of
from tests.process.fake_api import Api, Inbox, agent_config, fake_api, webhook
from tests.replicas.pair import Replica

FAILED = re.compile(r'cartesia_fine_tune_transitions_total\{.*to_status="failed"\} (\S+)')


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server for this module: all of its databases become older."""
    with postgres_server() as server:
        yield server


def ids(inbox: Inbox) -> dict[str, set[str]]:
    """The ids of the events of failures, by fine-tune."""
    found = defaultdict(set)
    for request in list(inbox.requests):
        event = json.loads(request.body)
        if event["type"] == "fine_tune.failed":
            found[event["data"]["fine_tune"]["id"]].add(request.id)
    return found


class Restored:
    """Agents on a server with a backup, and the failures that they count and notify."""

    def __init__(self, folder: Path, server: PostgresServer, api: Api, inbox: Inbox) -> None:
        self.api = api
        self.replicas: list[Replica] = []
        self.failed: set[str] = set()
        self._server = server
        self._data, self._backup = server.folder / "data", server.folder / "backup"
        self._folder = folder
        self._inbox = inbox
        self._database = server.new_database()

    def start(self, stack: ExitStack) -> Replica:
        """Start one more agent."""
        folder = self._folder / str(len(self.replicas))
        folder.mkdir()
        config = agent_config(self.api, webhook(self._inbox))
        config["alerts"] |= {"digest_threshold": 1000}
        config["storage"] = {"url": self._server.url(self._database), "lease": "5s"}
        replica = Replica(Agent(folder, **config))
        stack.callback(replica.close)
        replica.start()
        self.replicas.append(replica)
        return replica

    def fail(self) -> None:
        self.failed.add(self.api.world.add(status="failed").id)

    def wait(self) -> None:
        """Wait until every failure is counted by the owner and notified, each under one id."""
        until(lambda: {*ids(self._inbox)} == self.failed)
        until(lambda: max(map(counted, self.replicas)) == len(self.failed))
        assert {len(each) for each in ids(self._inbox).values()} == {1}, "an event under two ids"

    def back_up(self) -> None:
        self._server.stop()
        subprocess.run(["cp", "-a", self._data, self._backup], check=True)
        self._server.start()

    def restore(self) -> None:
        """Restart the server with the data of the backup."""
        self._server.stop()
        shutil.rmtree(self._data)
        subprocess.run(["cp", "-a", self._backup, self._data], check=True)
        self._server.start()

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Sample what each process counts all the time; expect that it does not fall."""
        samples = defaultdict[Replica, list[float]](lambda: [0.0])

        def sample() -> None:
            for replica in list(self.replicas):
                values = samples[replica]
                values.append(counted(replica) or values[-1])

        with repeated(sample, 0.2):
            yield
        for values in samples.values():
            assert values == sorted(values), "counters fell"


def counted(replica: Replica) -> float:
    """How many failures a replica counts; 0 if it does not own the account."""
    with suppress(httpx.HTTPError):
        return sum(map(float, FAILED.findall(replica.metrics())))
    return 0.0


def test_what_was_lost_is_found_again_under_the_same_ids(tmp_path, server):
    with fake_api() as (api, inbox), ExitStack() as stack:
        running = Restored(tmp_path, server, api, inbox)
        fine_tune = api.world.add(status="training").id
        running.start(stack).process.wait_for_line("baseline taken")
        with running.sampled():
            running.fail()
            running.wait()
            running.back_up()
            api.world.set_status(fine_tune, "failed")
            running.failed.add(fine_tune)
            running.fail()
            running.wait()
            running.restore()
            running.fail()
            running.wait()
            second = running.start(stack)
            until(lambda: get(f"{second.url}/-/ready").is_success)
            running.restore()
            running.fail()
            running.wait()
        assert all(each.process.is_running for each in running.replicas)
        for each in running.replicas:
            each.kill()
        running.restore()
        for each in running.replicas:
            each.launch()
        running.fail()
        running.wait()


def test_a_database_without_the_store_ends_the_agent(tmp_path, server):
    with fake_api(world=World(Population(fine_tunes=1))) as (api, inbox):
        database = server.new_database()
        config = agent_config(api, webhook(inbox))
        config["storage"] = {"url": server.url(database), "lease": "5s"}
        # It shows for a time that its state is lost, before it ends.
        shown = injected(
            tmp_path, "from exporter.agent import store_guard as g; g._SHOWN_SECONDS = 1"
        )
        with Agent(tmp_path, **config).process(**shown) as process:
            process.wait_for_line("baseline taken")
            server.execute("UPDATE meta SET value = 'other' WHERE name = 'store_id'", database)
            process.wait_for_line("state lost, the agent ends")
            until(lambda: "cartesia_up{" not in get(f"{url_of(process)}/metrics").text)
            assert process.wait() == 1
        terms = {term for (term,) in server.execute("SELECT term FROM ownership", database)}
        assert terms == {1}, "it took over in a state that is not its own"
