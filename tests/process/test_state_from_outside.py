"""State files that are deleted, moved or replaced while the agent runs: no alert is lost."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse

from tests.process.agent_process import Agent, Process, get, injected, run, until, url_of
from tests.process.delivery_scenario import all_delivered, failed_events, query_state
from tests.process.fake_api import Api, Inbox, agent_config, fake_api, webhook

pytestmark = pytest.mark.usefixtures("unmeasured")

FAST = """
import exporter.agent.store_guard as guard
guard._LOOK_SECONDS = 0.2
guard._SHOWN_SECONDS = {shown}
"""
NO_LOCKS = "import fcntl; fcntl.flock = lambda *_: None\n"


def fast(folder: Path, shown: float = 0.0, more: str = "") -> dict[str, str]:
    return injected(folder, more + FAST.format(shown=shown))


def folder_of(agent: Agent) -> Path:
    return agent.state.parent


def delete_all(agent: Agent) -> None:
    for each in folder_of(agent).glob("state.db*"):
        each.unlink()


def replace_by_another(agent: Agent) -> None:
    other = folder_of(agent) / "other"
    shutil.copy(agent.state, other)
    other.replace(agent.state)


CHANGES: dict[str, Callable[[Agent], object]] = {
    "deleted": lambda agent: agent.state.unlink(),
    "deleted with all files": delete_all,
    "replaced": replace_by_another,
    "folder moved": lambda agent: folder_of(agent).rename(agent.folder / "moved"),
    "folder deleted": lambda agent: shutil.rmtree(folder_of(agent)),
}


@pytest.fixture
def agent_of(tmp_path):
    """Return an agent with a state in a folder of its own."""

    def build(api: Api, inbox: Inbox) -> Agent:
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox, events=["failed"])))
        agent.state = tmp_path / "data" / "state.db"
        agent.file.write_text(agent.file.read_text().replace("/state.db", "/data/state.db"))
        return agent

    return build


def have_one_pending(agent: Agent, api: Api, inbox: Inbox, process: Process) -> str:
    """Let a fine-tune fail while the receiver refuses; return the id of the event."""
    process.wait_for_line("baseline taken")
    inbox.answer = lambda _: PlainTextResponse("later", 503)
    api.world.add(status="failed")
    attempted = "SELECT id FROM messages WHERE last_attempt_at IS NOT NULL"
    until(lambda: query_state(agent, attempted))
    [(event_id,)] = query_state(agent, attempted)
    return str(event_id)


@pytest.mark.parametrize("change", CHANGES)
def test_a_lost_state_is_rescued_and_adopted_by_the_next_start(tmp_path, agent_of, change):
    with fake_api() as (api, inbox):
        agent = agent_of(api, inbox)
        with agent.process(**fast(tmp_path)) as process:
            event_id = have_one_pending(agent, api, inbox, process)
            CHANGES[change](agent)
            assert process.wait(20) == 1
            process.wait_for_line("level=error .*state lost, the agent ends.*while in use", 0)
            process.wait_for_line(r"rescue copy written.*copy=\S+/data/state.db.rescue-\w+", 0)
            assert "Traceback" not in process.output
        [copy] = folder_of(agent).glob("state.db.rescue-*")
        assert copy.stat().st_mode & 0o777 == 0o600
        if change == "replaced":
            content = agent.state.read_bytes()
            with agent.process() as refused:
                assert refused.wait(20) == 2
                refused.wait_for_line(f"both the state file {agent.state} .*move one of them", 0)
            assert agent.state.read_bytes() == content
            agent.state.unlink()
        inbox.answer = lambda _: PlainTextResponse("ok")
        arrived = len(inbox.requests)
        with agent.process() as restarted:
            restarted.wait_for_line(f"rescue copy adopted.*copy={copy}")
            until(lambda: all_delivered(agent, 1))
            assert "baseline taken" not in restarted.output
            assert restarted.stop() == 0
        assert [each.id for each in inbox.requests[arrived:]] == [event_id]
        assert list(failed_events(agent)) == [event_id]
        assert not copy.exists()


def test_what_is_stored_after_the_loss_is_rescued_too(tmp_path, agent_of):
    """The agent goes on until it ends, and metrics and readiness show why."""
    with fake_api() as (api, inbox):
        agent = agent_of(api, inbox)
        with agent.process(**fast(tmp_path, shown=3600)) as process:
            url = url_of(process)
            process.wait_for_line("baseline taken")
            assert "cartesia_exporter_store_lost 0.0" in get(f"{url}/metrics").text
            agent.state.unlink()
            until(lambda: get(f"{url}/-/ready").status_code == 503)
            assert "state.db was deleted or moved while in use" in get(f"{url}/-/ready").text
            until(lambda: "cartesia_exporter_store_lost 1.0" in get(f"{url}/metrics").text)
            assert get(f"{url}/-/healthy").status_code == 200
            api.world.add(status="failed")
            process.wait_for_line("msg=delivered")
            assert process.stop() == 1
        with agent.process() as restarted:
            restarted.wait_for_line("rescue copy adopted")
            restarted.wait_for_line("msg=listening")
            count = api.request_count
            until(lambda: api.request_count >= count + 2)
        assert len(failed_events(agent)) == 1
        assert all_delivered(agent, 1)
        assert len(inbox.requests) == 1, "delivered before the end, and not repeated"


def test_a_truncated_state_ends_the_agent_and_is_no_new_state(tmp_path, agent_of):
    """Its content is gone, except for what the log still had."""
    with fake_api() as (api, inbox):
        agent = agent_of(api, inbox)
        with agent.process(**fast(tmp_path)) as process:
            have_one_pending(agent, api, inbox, process)
            os.truncate(agent.state, 0)
            assert process.wait(20) == 1
            process.wait_for_line("state lost, the agent ends.*was truncated while in use", 0)
            process.wait_for_line("no rescue copy.*is damaged.*restore a backup", 0)
        with agent.process() as restarted:
            assert restarted.wait(20) == 2
            restarted.wait_for_line("is damaged.*restore a backup", 0)


def test_a_state_that_is_deleted_just_before_a_stop_is_rescued(tmp_path, agent_of):
    with fake_api() as (api, inbox):
        agent = agent_of(api, inbox)
        with agent.process() as process:
            have_one_pending(agent, api, inbox, process)
            process.send_signal(signal.SIGSTOP)
            agent.state.unlink()
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
            assert process.wait(20) == 1
        [_] = folder_of(agent).glob("state.db.rescue-*")


def test_a_copy_that_cannot_be_written_is_an_error_that_says_so(tmp_path, agent_of):
    with fake_api() as (api, inbox):
        agent = agent_of(api, inbox)
        with agent.process(**fast(tmp_path)) as process:
            process.wait_for_line("baseline taken")
            folder_of(agent).rename(tmp_path / "moved")
            folder_of(agent).touch()
            assert process.wait(20) == 1
            process.wait_for_line("level=error .*no rescue copy.*pending deliveries may be lost", 0)
            assert "Traceback" not in process.output


def test_deleted_files_of_sqlite_and_a_deleted_lock_are_created_again(tmp_path, agent_of):
    with fake_api() as (api, inbox):
        agent = agent_of(api, inbox)
        with agent.process(**fast(tmp_path)) as process:
            process.wait_for_line("baseline taken")
            for number, suffixes in enumerate((["-wal"], ["-wal", "-shm"]), 1):
                for suffix in suffixes:
                    agent.state.with_name(f"state.db{suffix}").unlink()
                process.wait_for_line("deleted files of SQLite created again", times=number)
                api.world.add(status="failed")
                until(lambda: all_delivered(agent, number))  # noqa: B023 - called at once
            agent.state.with_name("state.db.lock").unlink()
            process.wait_for_line("deleted lock file created again")
            with agent.process() as second:
                assert second.wait(20) == 2
                second.wait_for_line(f"in use by process {process.pid}", 0)
            assert get(f"{url_of(process)}/-/ready").status_code == 200
            assert process.stop() == 0
        assert query_state(agent, "PRAGMA integrity_check") == [("ok",)]
        assert len(failed_events(agent)) == 2


def test_the_older_of_two_agents_without_locks_ends_and_sends_nothing_twice(tmp_path, agent_of):
    with fake_api() as (api, inbox):
        agent = agent_of(api, inbox)
        env = fast(tmp_path, more=NO_LOCKS)
        with agent.process(**env) as older:
            event_id = have_one_pending(agent, api, inbox, older)
            older.send_signal(signal.SIGSTOP)
            with agent.process(**env) as younger:
                younger.wait_for_line("msg=listening")
                until(lambda: len(inbox.requests) >= 2)
                inbox.answer = lambda _: PlainTextResponse("ok")
                cut = len(inbox.requests)
                run(tmp_path, "deliveries", "retry", "--all", f"--config.file={agent.file}")
                until(lambda: all_delivered(agent, 1))
                failed = api.world.add(status="failed").id
                until(lambda: all_delivered(agent, 2))
                older.send_signal(signal.SIGCONT)
                assert older.wait(20) == 1
                older.wait_for_line(
                    "level=error .*state lost.*another agent uses the state file", 0
                )
                assert "rescue" not in older.output
                count = api.request_count
                until(lambda: api.request_count >= count + 3)
                assert younger.is_running
        subjects = failed_events(agent)
        assert [each.id for each in inbox.requests[cut:]].count(event_id) == 1
        assert [subjects[each.id] for each in inbox.requests].count(failed) == 1
        assert not list(folder_of(agent).glob("state.db.rescue-*"))


def test_a_copy_of_the_file_alone_does_not_begin_with_another_baseline(tmp_path, agent_of):
    """All data was in the write-ahead log, and the copy was an empty database."""
    with fake_api() as (api, inbox):
        api.world.add(status="completed")
        agent = agent_of(api, inbox)
        with agent.process() as process:
            process.wait_for_line("baseline taken")
            copy = tmp_path / "copy.db"
            until(lambda: query_state(agent, "SELECT * FROM accounts"))
            shutil.copy(agent.state, copy)
        agent.file.write_text(agent.file.read_text().replace(str(agent.state), str(copy)))
        with agent.process() as restarted:
            restarted.wait_for_line("msg=listening")
            count = api.request_count
            until(lambda: api.request_count >= count + 2)
            assert "baseline taken" not in restarted.output
