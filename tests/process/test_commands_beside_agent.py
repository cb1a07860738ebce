"""The `deliveries` and `events` commands beside a running agent."""

import json
import re
from typing import Any

import pytest
from click.testing import CliRunner, Result
from starlette.responses import PlainTextResponse

from exporter.cli.commands import main
from tests.process.agent_process import API_KEY, Agent, Process, get, run, until, url_of
from tests.process.fake_api import Api, Inbox, agent_config, fake_api, webhook

pytestmark = pytest.mark.usefixtures("unmeasured")


def invoke(agent: Agent, *arguments: str) -> Result:
    """Run a command in the process of the test."""
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


def answer_with(inbox: Inbox, status: int, name: str = "ops") -> None:
    """Answer the requests to one receiver with ``status``, all others with 200."""
    inbox.answer = lambda request: PlainTextResponse(
        "answer of the inbox", status if request.path == f"/{name}" else 200
    )


def fail_one(api: Api, process: Process) -> None:
    process.wait_for_line("baseline taken")
    api.world.add(status="failed")


def assert_undisturbed(process: Process) -> None:
    assert get(f"{url_of(process)}/-/healthy").status_code == 200
    assert not re.search(r"level=(error|critical)|Traceback|locked", process.output)


def test_retry_sends_at_once_to_a_fixed_receiver(tmp_path):
    with fake_api() as (api, inbox):
        answer_with(inbox, 404)
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        with agent.process() as process:
            fail_one(api, process)
            process.wait_for_line("delivery failed.*retry_in=(59|60)")
            until(lambda: listed(agent)[0]["attempts"] == 1)  # logged before it is recorded
            [row] = listed(agent)
            assert row["state"] == "pending"
            assert row["answer"] == "answered 404"
            answer_with(inbox, 200)
            flags = ("--receiver=ops", f"--config.file={agent.file}")
            done = run(tmp_path, "deliveries", "retry", *flags)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout == "1 delivery of ops will be tried at once\n"
            process.wait_for_line("msg=delivered", seconds=8)
            until(lambda: listed(agent) == [])  # logged before it is recorded
            [row] = listed(agent, "--state=delivered")
            first, repeat = inbox.requests
            assert first.id == repeat.id == row["event"]
            assert_undisturbed(process)


def test_retry_sends_dead_deliveries_under_their_id_and_not_discarded_ones(tmp_path):
    with fake_api() as (api, inbox):
        answer_with(inbox, 400)
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        with agent.process() as process:
            fail_one(api, process)
            process.wait_for_line("delivery dead")
            api.world.add(status="failed")
            process.wait_for_line("delivery dead", times=2)
            until(lambda: len(listed(agent, "--state=dead")) == 2)
            retried, discarded = (row["event"] for row in listed(agent))
            assert "400" in command(agent, "deliveries", "show", retried[:12])
            answer_with(inbox, 200)
            command(agent, "deliveries", "discard", discarded)
            command(agent, "deliveries", "retry", "--all")
            process.wait_for_line("msg=delivered", seconds=8)
            until(lambda: listed(agent) == [])
            assert [(row["event"], row["state"]) for row in listed(agent, "--state=all")] == [
                (retried, "delivered"),
                (discarded, "discarded"),
            ]
            assert inbox.requests[-1].id == retried


def test_reassign_sends_deliveries_of_a_removed_receiver_to_another(tmp_path):
    with fake_api() as (api, inbox):
        answer_with(inbox, 503, "old")
        old = Agent(tmp_path, **agent_config(api, webhook(inbox, "old")))
        with old.process() as process:
            fail_one(api, process)
            process.wait_for_line("delivery failed")
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        with agent.process() as process:
            process.wait_for_line("msg=listening")
            assert [row["state"] for row in listed(agent)] == ["orphaned"]
            done = invoke(agent, "deliveries", "retry", "--all")
            assert done.exit_code == 1
            assert "deliveries reassign --from old" in done.stderr
            output = command(agent, "deliveries", "reassign", "--from=old", "--to=ops")
            assert output == "1 event of old will be sent to ops at once\n"
            process.wait_for_line(
                "msg=delivered receiver=ops|receiver=ops.*msg=delivered", seconds=8
            )
            until(lambda: listed(agent) == [])
            assert re.search(r"ops (\d+ \w{3} )?\d\d:\d\d", command(agent, "events", "list"))
            assert_undisturbed(process)


def test_the_commands_read_the_state_of_a_stopped_agent(tmp_path):
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        for group in ("deliveries", "events"):
            done = invoke(agent, group, "list")
            assert done.exit_code == 2
            assert f"no state file {agent.state}" in done.stderr
        with agent.process() as process:
            fail_one(api, process)
            process.wait_for_line("msg=delivered")
            assert process.stop() == 0
        for group in ("deliveries", "events"):
            command(agent, group, "list")
        assert "1 events" in command(agent, "events", "list")
        assert not list(tmp_path.glob("state.db-*"))
