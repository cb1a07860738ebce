"""Clients that hold connections open, with a low limit of open files."""

import contextlib
import socket

import pytest

from tests.process.agent_process import MODULE, Agent, get, url_of
from tests.process.fake_api import agent_config, fake_api, webhook


@pytest.mark.usefixtures("unmeasured")
def test_idle_connections_keep_neither_probes_out_nor_the_agent_from_its_work(tmp_path):
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        shell = ("sh", "-c", 'ulimit -n 48; exec "$@"', "sh", *MODULE)
        with agent.process(command=shell) as process, contextlib.ExitStack() as stack:
            host, port = url_of(process).removeprefix("http://").split(":")
            process.wait_for_line("baseline taken")
            for _ in range(200):
                address = (host, int(port))
                idle = socket.create_connection(address, 10, source_address=("127.0.0.2", 0))
                stack.enter_context(idle)
            for _ in range(3):
                assert get(f"http://{host}:{port}/-/healthy").status_code == 200
            api.world.add(status="failed")
            inbox.wait_for(1)
            process.wait_for_line("msg=delivered")
            assert process.stop() == 0
            warning = r"level=warning .*too many open connections.* limit=12 client=127\.0\.0\.2"
            process.wait_for_line(warning, seconds=0)
            assert process.output.count("level=warning") == 1
            assert len(process.output_lines) < 20
