"""Starts that are refused, and starts with a wrong key or without a network."""

import asyncio
import re
import socket
import sqlite3
import time

import pytest

from exporter.store.database import Database
from tests.process.agent_process import (
    API_KEY,
    INSTALLED,
    MODULE,
    Agent,
    get,
    injected,
    run,
    started,
    until,
    url_of,
)
from tests.process.fake_api import agent_config, fake_api, webhook


@pytest.mark.usefixtures("unmeasured")
def test_a_second_agent_on_the_same_state_is_refused_and_the_first_continues(tmp_path):
    with fake_api() as (api, _):
        agent = Agent(tmp_path, **agent_config(api))
        with agent.process() as first:
            url = url_of(first)
            with agent.process() as second:
                assert second.wait(20) == 2
                error = second.wait_for_line("level=error", seconds=0).string
            assert f"process {first.pid} on {socket.gethostname()}" in error
            assert str(agent.state) in error
            count = api.request_count
            until(lambda: api.request_count > count)
            until(lambda: get(f"{url}/-/ready").status_code == 200)


def test_a_port_in_use_is_named(tmp_path):
    with fake_api() as (api, _), socket.create_server(("127.0.0.1", 0)) as used_socket:
        address = f"127.0.0.1:{used_socket.getsockname()[1]}"
        agent = Agent(tmp_path, **agent_config(api))
        with started(
            tmp_path, f"--config.file={agent.file}", f"--web.listen-address={address}"
        ) as process:
            assert process.wait(20) == 1
            process.wait_for_line(
                f"cannot start.*cannot listen on {address}: Address already in use"
            )
            assert "Traceback" not in process.output


def create_newer(agent: Agent) -> None:
    async def create() -> None:
        async with Database(agent.state):
            pass

    asyncio.run(create())
    with sqlite3.connect(agent.state) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()


def create_damaged(agent: Agent) -> None:
    agent.state.write_bytes(b"SQLite format 3\0" + b"not a database at all " * 500)


def create_foreign(agent: Agent) -> None:
    with sqlite3.connect(agent.state) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    connection.close()


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("create", "words"),
    [
        (create_damaged, "is damaged"),
        (create_newer, "schema version 999"),
        (create_foreign, "not one of cartesia-exporter"),
    ],
)
def test_an_unusable_state_is_refused_and_left_unchanged(tmp_path, create, words):
    with fake_api() as (api, _):
        agent = Agent(tmp_path, **agent_config(api))
        create(agent)
        before = agent.state.read_bytes()
        with agent.process(command=INSTALLED) as process:
            assert process.wait(20) == 2
            assert words in process.wait_for_line("level=error", seconds=0).string
            assert "Traceback" not in process.output
        assert agent.state.read_bytes() == before
        assert api.request_count == 0


@pytest.mark.usefixtures("unmeasured")
def test_a_wrong_key_is_named_in_log_and_page_and_a_corrected_one_is_used(tmp_path):
    key_file = tmp_path / "key"
    key_file.write_text("no_such_key\n", encoding="utf-8")
    with fake_api() as (api, _):
        config = agent_config(api)
        config["accounts"] = [
            {"name": "variable", "api_key_env": "WRONG_KEY", "base_url": api.url},
            {"name": "file", "api_key_file": str(key_file), "base_url": api.url},
        ]
        agent = Agent(tmp_path, **config)
        with agent.process(WRONG_KEY="another_wrong_one") as process:
            url = url_of(process)
            process.wait_for_line(r"poll failed.*account=variable.*\$WRONG_KEY")
            process.wait_for_line(f"poll failed.*account=file.*{key_file}")
            page = get(f"{url}/metrics").text
            assert 'cartesia_up{account="file"} 0.0' in page
            assert not re.search(r"^cartesia_fine_tunes\{", page, re.MULTILINE)
            assert get(f"{url}/-/healthy").status_code == 200
            not_ready = get(f"{url}/-/ready")
            assert not_ready.status_code == 503
            assert "0 of 2 accounts" in not_ready.text
            assert "unauthorized" in get(url).text
            # The agent reads a changed key file by itself.
            key_file.write_text(API_KEY, encoding="utf-8")
            until(lambda: get(f"{url}/-/ready").status_code == 200)
            assert process.is_running


@pytest.mark.usefixtures("unmeasured")
def test_the_environment_is_enough(tmp_path):
    with fake_api() as (api, inbox):
        api.world.add(status="completed")
        environment = {
            "CARTESIA_BASE_URL": api.url,
            "CARTESIA_EXPORTER_WEBHOOK_URL": f"{inbox.url}/hook",
            "CARTESIA_EXPORTER_STORAGE_PATH": str(tmp_path / "here" / "state.db"),
        }
        with started(
            tmp_path, "--web.listen-address=127.0.0.1:0", command=INSTALLED, **environment
        ) as process:
            page = f"{url_of(process)}/metrics"
            until(lambda: 'status="completed"} 1.0' in get(page).text)
            assert "agent.baseline" in inbox.wait_for(1)[0].body.decode()
            assert process.stop() == 0
        assert (tmp_path / "here" / "state.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("unmeasured")
def test_the_key_alone_is_enough(tmp_path):
    """Without a network the agent runs and counts the failed requests."""
    with started(
        tmp_path,
        "run",
        "--web.listen-address=127.0.0.1:0",
        HTTPS_PROXY="http://127.0.0.1:1",
        CARTESIA_API_KEY=API_KEY,
    ) as process:
        page = f"{url_of(process)}/metrics"
        refused = 'request_failures_total{account="default",reason="connect"}'
        until(lambda: f"{refused} 0.0" not in get(page).text)
        assert (tmp_path / "data" / "state.db").exists()
        process.kill()


def test_a_key_in_quotes_is_refused_and_not_shown(tmp_path):
    ended = run(tmp_path, CARTESIA_API_KEY=f'"{API_KEY}"')
    assert ended.returncode == 2
    assert "$CARTESIA_API_KEY: must not be in quotes; remove them" in ended.stderr
    assert API_KEY not in ended.stderr + ended.stdout


def test_without_configuration_the_missing_key_is_named(tmp_path):
    ended = run(tmp_path, CARTESIA_API_KEY="")
    assert ended.returncode == 2
    assert "set CARTESIA_API_KEY" in ended.stderr
    assert "Traceback" not in ended.stderr


INJECTED = """
import gc, resource, sys
from pathlib import Path
import exporter.agent.agent as agent

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def freed_memory_is_returned():
    large = bytearray(2**24)  # glibc keeps later blocks of this size by default
    del large
    large = bytearray(2**24)
    behind = bytearray(100_000)
    before = resident()
    del large
    return before - resident() > 2**23

async def run(_config, options, _stop):
    options.on_loaded()
    many_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 512
    frozen = gc.get_freeze_count() > 0
    raise OSError(f"{many_files} {frozen} {sys.getswitchinterval()} {freed_memory_is_returned()}")

agent.run = run
"""


def test_resource_settings_of_the_process(tmp_path):
    limited = ["sh", "-c", 'ulimit -Sn 512; exec "$@"', "sh", *MODULE]
    with started(tmp_path, "run", command=limited, **injected(tmp_path, INJECTED)) as process:
        assert process.wait() == 1
        process.wait_for_line("True True 0.001 True", seconds=0)


def test_a_signal_during_the_start_stops_it(tmp_path):
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        with agent.process() as process:
            process.wait_for_line("msg=starting")
            started_at = time.monotonic()
            assert process.stop() == 0
            assert time.monotonic() - started_at < 5
