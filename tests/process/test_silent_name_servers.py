"""An agent with silent name servers and a low limit of tasks."""

from pathlib import Path

import pytest

from tests.process.agent_process import API_KEY, Agent, get, injected, until, url_of
from tests.process.fake_api import agent_config, fake_api, webhook

SILENT = 100
"""Accounts whose host names get no answer."""

CODE = """
import socket, threading, time

real_getaddrinfo, real_start = socket.getaddrinfo, threading.Thread.start

def getaddrinfo(host, *rest, **named):
    if str(host).strip("b'").endswith(".example"):
        time.sleep(300)
    return real_getaddrinfo(host, *rest, **named)

def start(thread):
    if threading.active_count() >= {limit}:
        raise RuntimeError("can't start new thread")
    real_start(thread)

socket.getaddrinfo, threading.Thread.start = getaddrinfo, start
"""


def tasks(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@pytest.mark.long
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("limit", [256, 30])
def test_silent_name_servers_stop_neither_the_agent_nor_what_is_found(tmp_path, limit):
    """With 256 tasks for more lookups it ended with `can't start new thread`."""
    silent = [
        {"name": f"silent{n}", "api_key": API_KEY, "base_url": f"https://api{n}.example"}
        for n in range(SILENT)
    ]
    with fake_api() as (api, inbox):
        receivers = [
            webhook(inbox, f"silent{n}", url=f"https://hooks{n}.example/x") for n in range(10)
        ]
        config = agent_config(api, *receivers, webhook(inbox, "found"), interval="3s")
        config["accounts"] += silent
        agent = Agent(tmp_path, **config)
        with agent.process(**injected(tmp_path, CODE.format(limit=limit))) as process:
            url = url_of(process)
            process.wait_for_line("baseline taken.*account=main")
            until(lambda: dns(url) >= SILENT, seconds=40)
            api.world.add(status="failed")
            inbox.wait_for(1, seconds=40)
            assert tasks(process.pid) <= min(limit, 100)
            for page in ("-/healthy", "config", "no-such-page"):
                assert get(f"{url}/{page}").status_code in {200, 404}, page
            assert "Traceback" not in process.output
            assert process.stop() == 0


def dns(url: str) -> float:
    """Return how many requests of the silent accounts failed as `dns`."""
    name = 'cartesia_exporter_api_request_failures_total{account="silent'
    lines = [line for line in get(f"{url}/metrics").text.splitlines() if line.startswith(name)]
    return sum(float(line.split()[-1]) for line in lines if 'reason="dns"' in line)
