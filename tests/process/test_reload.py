"""SIGHUP has a process read its configuration again, whenever it comes."""

import json
import signal

import httpx

from tests.process.agent_process import Agent, get, until, url_of
from tests.process.fake_api import agent_config, fake_api


def test_sighup_reloads_and_without_the_flag_a_request_does_not(tmp_path):
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
            answer = httpx.post(f"{url}/-/reload", trust_env=False)
            assert (answer.status_code, "SIGHUP" in answer.text) == (403, True)
            assert process.stop() == 0


def test_sighup_while_it_starts_ends_nothing(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "import exporter.cli.process as process\n"
        "before = process.exit_on_signal\n"
        "def injected(*arguments):\n"
        "    before(*arguments)\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "process.exit_on_signal = injected\n",
        encoding="utf-8",
    )
    with fake_api() as (api, _):
        agent = Agent(tmp_path, **agent_config(api))
        with agent.process(PYTHONPATH=str(tmp_path)) as process:
            url_of(process)
            process.wait_for_line("configuration reloaded.*started=none")
            assert process.stop() == 0
