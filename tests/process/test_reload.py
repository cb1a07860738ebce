"""Reload of the configuration by SIGHUP."""

import json
import signal

import httpx

from tests.process.agent_process import (
    INSTALLED,
    NO_AUTHORITIES,
    Agent,
    get,
    injected,
    until,
    url_of,
)
from tests.process.fake_api import agent_config, fake_api


def test_sighup_reloads_and_a_request_without_the_flag_does_not(tmp_path):
    with fake_api() as (api, _):
        agent = Agent(tmp_path, **agent_config(api))
        with agent.process() as process:
            url = url_of(process)
            settings = json.loads(agent.file.read_text(encoding="utf-8"))
            settings["accounts"].append({**settings["accounts"][0], "name": "second"})
            agent.file.write_text("accounts: [", encoding="utf-8")
            process.send_signal(signal.SIGHUP)
            process.wait_for_line(r"level=error .*reload refused.*config.yaml: line 1, column 12")
            assert "  - name: second\n" not in get(f"{url}/config").text
            agent.file.write_text(json.dumps(settings), encoding="utf-8")
            process.send_signal(signal.SIGHUP)
            process.wait_for_line(r'configuration reloaded.*started="poll second"')
            until(lambda: 'cartesia_up{account="second"} 1' in get(f"{url}/metrics").text)
            assert "  - name: second\n" in get(f"{url}/config").text
            answer = httpx.post(f"{url}/-/reload", verify=NO_AUTHORITIES, trust_env=False)
            assert (answer.status_code, "SIGHUP" in answer.text) == (403, True)
            assert process.stop() == 0


SIGHUP_AT_START = """
import os, signal
import exporter.cli.process as process

before = process.exit_on_signal

def exit_on_signal(*arguments):
    before(*arguments)
    os.kill(os.getpid(), signal.SIGHUP)

process.exit_on_signal = exit_on_signal
"""


def test_sighup_during_the_start_reloads_after_it(tmp_path):
    with fake_api() as (api, _):
        agent = Agent(tmp_path, **agent_config(api))
        early = injected(tmp_path, SIGHUP_AT_START)
        with agent.process(command=INSTALLED, **early) as process:
            url_of(process)
            process.wait_for_line("configuration reloaded.*started=none")
            assert process.stop() == 0
