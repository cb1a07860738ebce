"""Signals during the start: before the imports, before the configuration, before the agent runs."""

import json
import signal
import subprocess

import pytest

from tests.process.agent_process import INSTALLED, MODULE, Agent, environment, injected, until
from tests.process.fake_api import agent_config, fake_api

# Holds the process when it is about to import a module, until a file exists.
HOLD = """
import pathlib, sys, time

class Hold:
    def find_spec(self, name, *_):
        if name == "{module}":
            pathlib.Path("held").touch()
            while not pathlib.Path("go on").exists():
                time.sleep(0.01)

sys.meta_path.insert(0, Hold())
"""

MODULES = {
    "the first import": "exporter.cli.commands",
    "click": "click",
    "the configuration": "exporter.config",
    "the agent": "exporter.agent.agent",
    "the event loop": "uvicorn",
}


@pytest.fixture(params=MODULES.values(), ids=list(MODULES))
def held(request, tmp_path):
    return injected(tmp_path, HOLD.replace("{module}", request.param))


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", [MODULE, INSTALLED], ids=["module", "installed"])
def test_a_signal_during_the_start_ends_with_0_and_no_output(tmp_path, number, command, held):
    process = subprocess.Popen(
        [*command, "--web.listen-address=127.0.0.1:0"],
        cwd=tmp_path,
        env=environment(tmp_path, **held),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        until((tmp_path / "held").exists)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=15)
    finally:
        process.kill()
    assert (process.returncode, stderr) == (0, b"")


@pytest.mark.usefixtures("unmeasured")
def test_sighup_during_the_start_reloads_once_after_it(tmp_path, held):
    """It may be sent because the file changed after it was read."""
    with fake_api() as (api, _):
        agent = Agent(tmp_path, **agent_config(api))
        with agent.process(command=INSTALLED, **held) as process:
            until((tmp_path / "held").exists)
            for _ in range(3):
                process.send_signal(signal.SIGHUP)
            (tmp_path / "go on").touch()
            process.wait_for_line("configuration reloaded.*started=none")
            settings = json.loads(agent.file.read_text(encoding="utf-8"))
            settings["accounts"].append({**settings["accounts"][0], "name": "second"})
            agent.file.write_text(json.dumps(settings), encoding="utf-8")
            process.send_signal(signal.SIGHUP)
            process.wait_for_line('configuration reloaded.*started="poll second"')
            assert process.output.count("configuration reloaded") == 2
            assert process.stop() == 0


@pytest.mark.usefixtures("unmeasured")
def test_signals_have_their_usual_effect_on_commands_that_only_answer(tmp_path):
    held = injected(tmp_path, HOLD.replace("{module}", "click"))
    for number in (signal.SIGTERM, signal.SIGHUP):
        process = subprocess.Popen(
            [*MODULE, "list"], cwd=tmp_path, env=environment(tmp_path, **held)
        )
        try:
            until((tmp_path / "held").exists)
            process.send_signal(number)
            assert process.wait(10) == -number
        finally:
            process.kill()
        (tmp_path / "held").unlink()


def test_nothing_that_takes_time_is_imported_before_signals_are_handled():
    code = "import collections.abc, gc, re, sys, signal; before = set(sys.modules);"
    code += "import exporter.cli.main; print(sorted(set(sys.modules) - before))"
    command = [MODULE[0], "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    names = ("exporter", "exporter.cli", "exporter.cli.early_signals", "exporter.cli.main")
    assert done.stdout == f"{list(names)}\n"


def test_ignored_signals_stay_ignored_except_sighup(tmp_path):
    """As with nohup, and in the background of a shell without job control."""
    with fake_api() as (api, _):
        agent = Agent(tmp_path, **agent_config(api))
        shell = ("sh", "-c", 'trap "" INT HUP; exec "$@"', "sh", *MODULE)
        with agent.process(command=shell) as process:
            process.wait_for_line("baseline taken")
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGHUP)
            process.wait_for_line("configuration reloaded")
            assert process.is_running
            assert process.stop() == 0
