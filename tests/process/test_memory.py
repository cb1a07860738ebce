"""Resident memory of the agent at rest, and over thousands of polls of a list that changes."""

import random
import re
from pathlib import Path

import pytest
from starlette.requests import Request

from exporter.simulator.world import Population, World
from tests.process.agent_process import INSTALLED, Agent, Process, get, injected, until, url_of
from tests.process.fake_api import agent_config, fake_api, webhook

pytestmark = pytest.mark.usefixtures("unmeasured")

MAX_AT_REST = 80
"""MiB."""

POLLS = 10_000
WARM_UP = 1_000

SHORT_INTERVAL = """
import exporter.polling.poller as poller
from msgspec.structs import replace

create = poller.Poller.__init__

def initialise(self, source, accounts, settings, *others):
    settings = replace(settings, interval=0.01, timeout=5.0)
    create(self, source, accounts, settings, *others)

poller.Poller.__init__ = initialise
"""

NEXT_STATUS = {
    "created": "training",
    "training": "failed",
    "failed": "created",
    "completed": "training",
}


class ChangingWorld:
    """500 fine-tunes, of which two change, one is deleted and one is created before each poll."""

    def __init__(self) -> None:
        self.world = World(Population(fine_tunes=500, seed=1))
        self.polls = 0
        self._ids = [each.id for each in self.world]
        self._random = random.Random(1)

    def on_request(self, request: Request) -> None:
        if "starting_after" in request.query_params:
            return
        self.polls += 1
        for _ in range(2):
            changed = self._random.choice(self._ids)
            self.world.set_status(changed, NEXT_STATUS[self.world.get(changed).status])
        removed = self._random.randrange(len(self._ids))
        self.world.delete(self._ids[removed])
        self._ids[removed] = self.world.add().id


def resident(process: Process) -> float:
    """Return the resident memory of a process in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+([0-9]+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


def test_an_agent_at_rest_has_at_most_80_mib(tmp_path):
    with fake_api(world=World(Population(fine_tunes=25))) as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox), interval="60s"))
        with agent.process(command=INSTALLED) as process:
            process.wait_for_line("baseline taken")
            assert get(f"{url_of(process)}/metrics").status_code == 200
            assert resident(process) < MAX_AT_REST


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_10000_polls_with_changes_take_no_more_memory_than_1000(tmp_path):
    changing, sizes = ChangingWorld(), []
    with fake_api(world=changing.world) as (api, inbox):
        api.answer = changing.on_request
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        short_interval = injected(tmp_path, SHORT_INTERVAL)
        with agent.process("--log.level=warning", **short_interval) as process:
            for polls in range(WARM_UP, POLLS + 1, WARM_UP):
                until(lambda: changing.polls >= polls, seconds=600)  # noqa: B023 - called at once
                sizes.append(round(resident(process), 1))
                inbox.requests.clear()
            assert process.is_running
            assert process.stop() == 0
    assert max(sizes) < 1.05 * sizes[0], sizes
