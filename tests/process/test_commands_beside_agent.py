"""The commands beside a running agent: they change what it does next, and nothing else."""

import json
import re
from typing import Any

import pytest
from click.testing import CliRunner, Result
from starlette.responses import PlainTextResponse

from exporter.cli.main import main
from tests.process.agent_process import API_KEY, Agent, Process, get, run, until, url_of
from tests.process.fake_api import Api, Inbox, agent_config, fake_api, webhook

pytestmark = pytest.mark.usefixtures("unmeasured")


def invoke(agent: Agent, *arguments: str) -> Result:
    """Run a command in this process, which is another one than the agent's."""
    runner = CliRunner(env={"CARTESIA_API_KEY": API_KEY})
    return runner.invoke(main, [*arguments, f"--config.file={agent.file}"])


def command(agent: Agent, *arguments: str) -> str:
    done = invoke(agent, *arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    return done.stdout


def listed(agent: Agent, *arguments: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(
        command(agent, "deliveries", "list", "--output=json", *arguments)
    )
    return rows


def refuse(inbox: Inbox, status: int, name: str = "ops") -> None:
    """Have the inbox answer a receiver with this status."""
    inbox.answer = lambda got: PlainTextResponse(
        "said the inbox", status if got.path == f"/{name}" else 200
    )


def fails(api: Api, process: Process) -> None:
    process.wait_for_line("baseline taken")
    api.world.add(status="failed")


def undisturbed(process: Process) -> None:
    assert get(f"{url_of(process)}/-/healthy").status_code == 200
    assert not re.search(r"level=(error|critical)|Traceback|locked", process.output)


def test_a_receiver_that_was_mended_is_told_at_once_when_asked_to(tmp_path):
    with fake_api() as (api, inbox):
        refuse(inbox, 404)
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        with agent.process() as process:
            fails(api, process)
            process.wait_for_line("delivery failed, will be tried again.*pause=(59|60)")
            [row] = listed(agent)
            assert (row["state"], row["attempts"]) == ("pending", 1)
            assert row["last_result"] == "answered 404"
            refuse(inbox, 200)
            flags = ("--receiver=ops", f"--config.file={agent.file}")
            done = run(tmp_path, "deliveries", "retry", *flags)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout == "1 delivery of ops will be tried at once\n"
            process.wait_for_line("msg=delivered", seconds=8)
            until(lambda: listed(agent) == [])  # said first, marked then
            [row] = listed(agent, "--state=delivered")
            first, second = inbox.requests
            assert first.id == second.id == row["id"]
            undisturbed(process)


def test_what_is_dead_is_replayed_under_its_id_and_what_is_discarded_is_not(tmp_path):
    with fake_api() as (api, inbox):
        refuse(inbox, 400)
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        with agent.process() as process:
            fails(api, process)
            process.wait_for_line("delivery given up")
            api.world.add(status="failed")
            process.wait_for_line("delivery given up", times=2)
            until(lambda: len(listed(agent, "--state=dead")) == 2)
            replayed, forgotten = (row["id"] for row in listed(agent))
            assert "400" in command(agent, "deliveries", "show", replayed[:12])
            refuse(inbox, 200)
            command(agent, "deliveries", "discard", forgotten)
            command(agent, "deliveries", "retry", "--all")
            process.wait_for_line("msg=delivered", seconds=8)
            until(lambda: listed(agent) == [])
            assert [(row["id"], row["state"]) for row in listed(agent, "--state=all")] == [
                (replayed, "delivered"),
                (forgotten, "discarded"),
            ]
            assert inbox.requests[-1].id == replayed


def test_what_a_removed_receiver_is_owed_is_told_to_another(tmp_path):
    with fake_api() as (api, inbox):
        refuse(inbox, 503, "old")
        old = Agent(tmp_path, **agent_config(api, webhook(inbox, "old")))
        with old.process() as process:
            fails(api, process)
            process.wait_for_line("delivery failed")
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        with agent.process() as process:
            process.wait_for_line("msg=listening")
            assert [row["state"] for row in listed(agent)] == ["orphaned"]
            done = invoke(agent, "deliveries", "retry", "--all")
            assert done.exit_code == 1
            assert "deliveries reassign --from old" in done.stderr
            said = command(agent, "deliveries", "reassign", "--from=old", "--to=ops")
            assert said == "1 event of old will be told to ops at once\n"
            process.wait_for_line(
                "msg=delivered receiver=ops|receiver=ops.*msg=delivered", seconds=8
            )
            until(lambda: listed(agent) == [])
            assert "ops delivered" in command(agent, "events", "list")
            undisturbed(process)


@pytest.mark.parametrize("kind", ["deliveries", "events"])
def test_without_an_agent_there_is_still_its_state(tmp_path, kind):
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        done = invoke(agent, kind, "list")
        assert done.exit_code == 2
        assert f"no state file {agent.state}" in done.stderr
        with agent.process() as process:
            fails(api, process)
            process.wait_for_line("msg=delivered")
            assert process.stop() == 0
        assert "1 events" in command(agent, "events", "list")
        assert not list(tmp_path.glob("state.db-*"))
