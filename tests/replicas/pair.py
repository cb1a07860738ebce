"""Replicas as real processes on one PostgreSQL, each over a relay and PgBouncer."""

import contextlib
import json
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.fakes.relay import Relay, relay
from tests.pgbouncer import PgBouncer, pgbouncer
from tests.postgres_server import AGENT, PostgresServer
from tests.process.agent_process import Agent, Process, get, injected, until, url_of
from tests.process.fake_api import Api, Inbox, agent_config
from tests.replicas.scrapes import Scrapes, scraped

LEASE = 5.0
DAY = 86_400
PASSWORD = "first"
MODEL = "sonic-3-2026-01-12"

_CLOCK = """
import time
from msgspec.structs import force_setattr
from exporter.agent.build import SYSTEM_CLOCK
real = time.time
time.time = lambda: real() + {offset}
force_setattr(SYSTEM_CLOCK, "now", time.time)
"""


class Replica:
    """One replica: its process, which can be killed and started again, and its network."""

    def __init__(self, agent: Agent, network: Relay | None = None, clock: float = 0.0) -> None:
        self.agent = agent
        self.is_suspended = False
        self.web: Relay | None = None
        self._network = network
        self._env = injected(agent.folder, _CLOCK.format(offset=clock))
        self._stack = ExitStack()
        self.process: Process

    def launch(self) -> None:
        """Start its process, and do not wait for it."""
        self.process = self._stack.enter_context(self.agent.process(**self._env))

    def start(self) -> None:
        """Start its process; wait until it listens."""
        self.launch()
        port = self.port
        if self.web is not None:
            self.web.target = port

    def close(self) -> None:
        self._stack.close()

    @property
    def network(self) -> Relay:
        assert self._network is not None
        return self._network

    @property
    def url(self) -> str:
        return url_of(self.process)

    @property
    def port(self) -> int:
        """The port of its pages, another one after each start; ``web`` forwards to it."""
        return int(self.url.rpartition(":")[2])

    @property
    def is_working(self) -> bool:
        return self.process.is_running and not self.is_suspended

    def set_password(self, password: str) -> None:
        """Write the file with the password of the database."""
        (self.agent.folder / "password").write_text(password, encoding="utf-8")

    def kill(self) -> None:
        self.process.kill()

    def suspend(self) -> None:
        self.is_suspended = True
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.is_suspended = False

    def metrics(self) -> str:
        return get(f"{self.url}/metrics").text

    def owns(self, kind: str = "account") -> set[str]:
        """The names of what it owns, by its own page; nothing if it does not answer."""
        lines = self.metrics().splitlines() if self.is_working else ()
        start = f'cartesia_exporter_owner{{kind="{kind}",name="'
        owned = (line for line in lines if line.startswith(start) and line.endswith(" 1.0"))
        return {line.removeprefix(start).partition('"')[0] for line in owned}


class Pair:
    """Two replicas with the same configuration, an API and two receivers."""

    def __init__(self, bouncer: PgBouncer, database: str, api: Api, inbox: Inbox) -> None:
        self.bouncer = bouncer
        self.server = bouncer.server
        self.database = database
        self.api = api
        self.inbox = inbox
        self.replicas: list[Replica] = []
        self.failed: set[str] = set()

    def execute(self, statement: str) -> list[Any]:
        return self.server.execute(statement, self.database)

    @property
    def owner(self) -> Replica:
        """The replica that owns the account `main`; waits until there is one."""
        found: list[Replica] = []

        def is_found() -> bool:
            found[:] = [each for each in self.replicas if "main" in each.owns()]
            return len(found) == 1

        until(is_found, 60)
        return found[0]

    @property
    def standby(self) -> Replica:
        [other] = [each for each in self.replicas if each is not self.owner]
        return other

    def fail(self, number: int) -> None:
        """Add fine-tunes that failed."""
        added = (self.api.world.add(status="failed", model_id=MODEL) for _ in range(number))
        self.failed |= {each.id for each in added}

    def events(self, receiver: str) -> list[tuple[str, str]]:
        """The id and the fine-tune of each event of a failure that was received, in order."""
        return [
            (request.id, event["data"]["fine_tune"]["id"])
            for request in list(self.inbox.requests)
            if request.path == f"/{receiver}"
            for event in [json.loads(request.body)]
            if event["type"] == "fine_tune.failed"
        ]

    def wait_until_notified(self, seconds: float = 60) -> None:
        """Wait until both receivers know every failure."""
        for receiver in RECEIVERS:
            try:
                until(lambda: {each for _, each in self.events(receiver)} >= self.failed, seconds)  # noqa: B023 - called at once
            except AssertionError:
                missing = self.failed - {each for _, each in self.events(receiver)}
                output = "\n".join(each.process.output for each in self.replicas)
                raise AssertionError(f"{receiver} misses {missing}:\n{output}") from None

    @contextlib.contextmanager
    def scraped(self, folder: Path) -> Iterator[Scrapes]:
        """Scrape both by a real Prometheus, at addresses that outlive their processes.

        At the end, expect that sums and increases over both were right since ``begin``.
        """
        with ExitStack() as stack:
            webs = [stack.enter_context(relay(0)) for _ in self.replicas]
            scrapes = stack.enter_context(scraped(folder, [web.port for web in webs]))
            for each, web in zip(self.replicas, webs, strict=True):
                each.web, web.target = web, each.port
            yield scrapes
            scrapes.check(len(self.failed), len(self.inbox.requests))

    def check_repeats(self, most: int) -> None:
        """Expect one id for each failure, and at most so many repeats, with the same bytes."""
        for receiver in RECEIVERS:
            events = self.events(receiver)
            ids = dict(events)
            assert sorted(ids.values()) == sorted(self.failed), "an event under two ids"
            repeats = Counter(event_id for event_id, _ in events)
            repeated = [event_id for event_id, times in repeats.items() if times > 1]
            assert len(repeated) <= most, repeated


RECEIVERS = ("ops", "chat")


@contextlib.contextmanager
def pair(
    folder: Path,
    server: PostgresServer,
    api: Api,
    inbox: Inbox,
    **changes: Mapping[str, Any],
) -> Iterator[Pair]:
    """Two replicas, the clocks of which are set one day after and before the true time.

    ``changes`` are made to sections of their configuration.
    """
    receivers = [{"name": n, "type": "webhook", "url": f"{inbox.url}/{n}"} for n in RECEIVERS]
    with ExitStack() as stack:
        bouncer = stack.enter_context(pgbouncer(server))
        running = Pair(bouncer, server.new_database(), api, inbox)
        bouncer.set_password(PASSWORD)
        for name, clock in (("first", DAY), ("second", -DAY)):
            network = stack.enter_context(relay(bouncer.port))
            url = server.url(running.database, user=AGENT, port=network.port)
            (folder / name).mkdir()
            config = agent_config(api, *receivers)
            config["alerts"] |= {"digest_threshold": 1000}
            password_file = str(folder / name / "password")
            config["storage"] = {"url": url, "password_file": password_file, "lease": f"{LEASE:g}s"}
            for section, changed in changes.items():
                config[section] |= changed
            replica = Replica(Agent(folder / name, **config), network, clock)
            replica.set_password(PASSWORD)
            stack.callback(replica.close)
            running.replicas.append(replica)
            replica.launch()
        yield running
