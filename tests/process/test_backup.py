"""`state backup` and `state check` beside an agent that works, and a restored backup."""

import re
import shutil
import sqlite3
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.responses import PlainTextResponse

from exporter.cli.commands import main
from tests.process.agent_process import (
    MODULE,
    Agent,
    get,
    injected,
    repeated,
    started,
    until,
    url_of,
)
from tests.process.delivery_scenario import all_delivered, failed_events
from tests.process.fake_api import Api, agent_config, fake_api, webhook

pytestmark = pytest.mark.usefixtures("unmeasured")

SLOW_COPY = """
import time
from exporter.store.engines.sqlite import SQLiteEngine
copy = SQLiteEngine._copy_to
def slow(self, target):
    copy(self, target)
    print("copied", flush=True)
    time.sleep({seconds})
SQLiteEngine._copy_to = slow
"""
SOON = """
import exporter.core.retry as retry
from exporter.core.retry import BackOff
retry.DELIVERIES = BackOff(0.1, 0.2)
"""


def failing(api: Api) -> AbstractContextManager[None]:
    """Let a fine-tune fail every few milliseconds."""
    return repeated(lambda: api.world.add(status="failed"), 0.005)


def invoke(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["state", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def events_in(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        [(number,)] = connection.execute("SELECT count(*) FROM events")
        # What an event is, and that it is queued, is one transaction.
        [(queued,)] = connection.execute("SELECT count(*) FROM deliveries")
    assert number == queued
    return int(number)


def test_backups_beside_a_busy_agent_are_sound_and_do_not_disturb_it(tmp_path):
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        with agent.process() as process, failing(api):
            process.wait_for_line("baseline taken")
            numbers = []
            for number in range(6):
                copy = tmp_path / f"backup-{number}.db"
                seen = len(inbox.requests)
                invoke("backup", str(copy), f"--config.file={agent.file}")
                assert " is sound: " in invoke("check", f"--storage.path={copy}")
                assert " is sound: " in invoke("check", f"--config.file={agent.file}")
                numbers.append(events_in(copy))
                until(lambda: len(inbox.requests) > seen)  # noqa: B023 - called at once
            assert numbers == sorted(numbers)
            assert numbers[-1] > numbers[0]
            assert get(f"{url_of(process)}/-/ready").status_code == 200
            assert not re.search(r"level=(error|warning|critical)|Traceback", process.output)
            assert process.stop() == 0


def test_a_backup_that_is_killed_leaves_no_backup_and_the_agent_undisturbed(tmp_path):
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        target = tmp_path / "backup.db"
        command = [*MODULE, "state", "backup", str(target), f"--config.file={agent.file}"]
        slow = injected(tmp_path, SLOW_COPY.format(seconds=60))
        with agent.process() as process:
            process.wait_for_line("baseline taken")
            with started(tmp_path, command=command, **slow) as killed:
                killed.wait_for_line("copied")
                killed.kill()
            assert [path.name for path in tmp_path.glob("backup*")] == ["backup.db.part"]
            refused = CliRunner().invoke(main, command[3:])
            assert refused.exit_code == 2
            assert f"{target}.part exists: another backup writes it" in refused.stderr
            (tmp_path / "backup.db.part").unlink()
            with started(tmp_path, command=command, **slow) as stopped:
                stopped.wait_for_line("copied")
                assert stopped.stop() == 128 + 15
            assert not list(tmp_path.glob("backup*")), "SIGTERM leaves nothing"
            api.world.add(status="failed")
            process.wait_for_line("msg=delivered")
            assert not re.search(r"level=(error|warning|critical)|Traceback", process.output)
            invoke("backup", str(target), f"--config.file={agent.file}")
            assert process.stop() == 0


def test_a_restored_backup_repeats_only_what_was_delivered_after_it(tmp_path):
    """A repeated notification has the id that it had before."""
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox, events=["failed"])))
        backup, soon = tmp_path / "backup.db", injected(tmp_path, SOON)
        with agent.process(**soon) as process:
            process.wait_for_line("baseline taken")
            api.world.add(status="failed")
            until(lambda: all_delivered(agent, 1))
            inbox.answer = lambda _: PlainTextResponse("later", 503)
            api.world.add(status="failed")
            process.wait_for_line("delivery failed")
            invoke("backup", str(backup), f"--config.file={agent.file}")
            inbox.answer = lambda _: PlainTextResponse("ok")
            api.world.add(status="failed")
            until(lambda: all_delivered(agent, 3))
            process.kill()
        before = failed_events(agent)
        first = inbox.requests[0].id
        for each in tmp_path.glob("state.db*"):
            each.unlink()
        shutil.copy(backup, agent.state)
        arrived = len(inbox.requests)
        with agent.process(**soon) as process:
            until(lambda: all_delivered(agent, 3))
            assert "baseline taken" not in process.output
            assert process.stop() == 0
        assert failed_events(agent) == before
        repeated = [each.id for each in inbox.requests[arrived:]]
        assert sorted(repeated) == sorted({*before} - {first})
