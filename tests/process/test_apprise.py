"""The process that sends a message by Apprise ends with the agent, however that ends."""

import signal
from pathlib import Path

import pytest

from tests.process.agent_process import Agent, until
from tests.process.delivery_scenario import fail_in_one_poll
from tests.process.fake_api import agent_config, fake_api

pytestmark = pytest.mark.usefixtures("unmeasured")


def senders(folder: Path) -> list[int]:
    """Return the ids of the processes of this agent's messages: they run in its folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            is_ours = (process / "cwd").resolve() == folder.resolve()
        except OSError:
            continue
        if is_ours and b"apprise_child" in command:
            found.append(int(process.name))
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_is_left_behind(tmp_path: Path, how: signal.Signals) -> None:
    with fake_api() as (api, inbox):
        inbox.gate.close()
        url = f"{inbox.url.replace('http', 'json')}/x?rto=60"
        mail = {"name": "mail", "type": "apprise", "url": url, "timeout": "60s"}
        agent = Agent(tmp_path, **agent_config(api, mail))
        failing = api.world.add(status="training").id
        with agent.process() as process:
            process.wait_for_line("baseline taken")
            fail_in_one_poll(api, [failing])
            until(lambda: inbox.requests, 40)
            assert len(senders(tmp_path)) == 1
            process.send_signal(how)
            process.wait(20)
        until(lambda: not senders(tmp_path))
