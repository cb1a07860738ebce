"""A database that is restored from an older backup while an agent runs."""

import json
import re
import shutil
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest

from tests.postgres_server import PostgresServer, postgres_server
from tests.process.agent_process import Agent, get, until, url_of
from tests.process.fake_api import Inbox, agent_config, fake_api, webhook

FAILED = re.compile(r'cartesia_fine_tune_transitions_total\{.*to_status="failed"\} (\S+)')


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of its own: all of its databases become older."""
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


@contextmanager
def sampled(url: str) -> Iterator[list[float]]:
    """Sample the number of counted failures all the time; not while it is withheld."""
    samples, end = [0.0], threading.Event()

    def sample() -> None:
        while not end.wait(0.1):
            with suppress(httpx.HTTPError):
                if values := FAILED.findall(get(f"{url}/metrics").text):
                    samples.append(sum(map(float, values)))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        end.set()
        thread.join()


def test_what_was_lost_is_found_again_under_the_same_ids(tmp_path, server):
    with fake_api() as (api, inbox):
        config = agent_config(api, webhook(inbox))
        config["alerts"] |= {"digest_threshold": 1000}
        config["storage"] = {"url": server.url(server.new_database()), "lease": "5s"}
        first, second = (api.world.add(status="training").id for _ in range(2))
        with Agent(tmp_path, **config).process() as process, sampled(url_of(process)) as samples:
            process.wait_for_line("baseline taken")
            api.world.set_status(first, "failed")
            until(lambda: {*ids(inbox)} == {first})
            server.stop()
            data, backup = server.folder / "data", server.folder / "backup"
            subprocess.run(["cp", "-a", data, backup], check=True)
            server.start()
            api.world.set_status(second, "failed")
            third = api.world.add(status="failed").id
            until(lambda: {*ids(inbox)} == {first, second, third})
            until(lambda: samples[-1] == 3)
            server.stop()
            shutil.rmtree(data)
            backup.rename(data)
            server.start()
            fourth = api.world.add(status="failed").id
            until(lambda: {*ids(inbox)} == {first, second, third, fourth})
            until(lambda: samples[-1] == 4)
            assert process.is_running
        assert {len(each) for each in ids(inbox).values()} == {1}, "an event under two ids"
        assert samples == sorted(samples), "counters fell"


def test_a_database_without_the_store_ends_the_agent(tmp_path, postgres):
    with fake_api() as (api, inbox):
        database = postgres.new_database()
        config = agent_config(api, webhook(inbox))
        config["storage"] = {"url": postgres.url(database), "lease": "5s"}
        with Agent(tmp_path, **config).process() as process:
            process.wait_for_line("baseline taken")
            postgres.execute("UPDATE meta SET value = 'other' WHERE name = 'store_id'", database)
            process.wait_for_line("state lost, the agent ends")
            until(lambda: "cartesia_up{" not in get(f"{url_of(process)}/metrics").text)
            assert process.wait() == 1
