"""Shutdown by SIGTERM or SIGINT: work in flight has 8 s, and the process ends within 10 s."""

import signal
import socket
import time

import pytest

from tests.process.agent_process import INSTALLED, MODULE, Agent, injected, until, url_of
from tests.process.fake_api import agent_config, fake_api, webhook

HANGING_RESOLVER = """
import socket, time
real = socket.getaddrinfo
def getaddrinfo(host, *rest, **named):
    if host in ("hangs.example", b"hangs.example"):
        time.sleep(60)
    return real(host, *rest, **named)
socket.getaddrinfo = getaddrinfo
"""


@pytest.mark.parametrize(
    ("number", "command"), [(signal.SIGTERM, INSTALLED), (signal.SIGINT, MODULE)]
)
def test_an_idle_agent_ends_at_once_although_a_client_is_connected(tmp_path, number, command):
    with fake_api() as (api, _):
        agent = Agent(tmp_path, **agent_config(api))
        with agent.process(command=command) as process:
            process.wait_for_line("baseline taken")
            host, port = url_of(process).removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as half_sent:
                half_sent.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n")
                assert process.stop(number, seconds=5) == 0
            assert process.output_lines[-1].endswith("msg=stopped")


@pytest.mark.usefixtures("unmeasured")
def test_a_message_that_is_answered_in_time_is_delivered(tmp_path):
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        with agent.process() as process:
            process.wait_for_line("baseline taken")
            inbox.gate.close()
            api.world.add(status="failed")
            inbox.wait_for(1)
            process.send_signal(signal.SIGTERM)
            process.wait_for_line("msg=stopping")
            inbox.gate.open()
            assert process.wait() == 0
            process.wait_for_line("msg=delivered")
            assert "service cancelled" not in process.output
        with agent.process() as process:
            until(lambda: api.request_count >= 4)
            assert len(inbox.requests) == 1


@pytest.mark.long
def test_hanging_work_is_cancelled_and_its_message_repeated_after_the_restart(tmp_path):
    """A page, a message and a name lookup hang at the same time."""
    with fake_api() as (api, inbox):
        hanging = {**webhook(inbox, "lost"), "url": "http://hangs.example/x", "allow_http": True}
        config = agent_config(api, webhook(inbox), hanging)
        config["poll"] = {"interval": "60s", "timeout": "50s"}
        other = {**config["accounts"][0], "name": "slow", "base_url": f"{api.url}/slow"}
        config["accounts"].insert(0, other)
        config["alerts"]["first_run"] = "alert"
        api.world.add(status="failed")
        inbox.gate.close()
        # Only the page of the first account is held.
        api.gate.close()
        api.is_held = lambda scope: scope["path"].startswith("/slow")
        agent = Agent(tmp_path, **config)
        with agent.process(**injected(tmp_path, HANGING_RESOLVER)) as process:
            inbox.wait_for(1)
            until(lambda: api.gate.waiting)
            started_at = time.monotonic()
            assert process.stop() == 0
            assert time.monotonic() - started_at > 7, "work in flight has 8 s"
            for service in ("poll slow", "deliver ops", "deliver lost"):
                process.wait_for_line(f'service cancelled.*service="{service}"', seconds=0)
            process.wait_for_line("msg=stopped", seconds=0)
        inbox.gate.open()
        with agent.process():
            first, repeat = inbox.wait_for(2)[:2]
        assert (repeat.id, repeat.body) == (first.id, first.body)


@pytest.mark.usefixtures("unmeasured")
def test_hanging_name_lookups_do_not_block_others(tmp_path):
    """Twelve hanging names: more than asyncio's default threads on a small machine."""
    with fake_api() as (api, inbox):
        hanging = {"url": "http://hangs.example/x", "allow_http": True}
        hanging_receivers = [webhook(inbox, f"dead{number}", **hanging) for number in range(12)]
        named = webhook(inbox, "named", url=inbox.url.replace("127.0.0.1", "localhost"))
        agent = Agent(tmp_path, **agent_config(api, *hanging_receivers, named))
        with agent.process(**injected(tmp_path, HANGING_RESOLVER)) as process:
            process.wait_for_line("baseline taken")
            api.world.add(status="failed")
            inbox.wait_for(1, seconds=10)


@pytest.mark.usefixtures("unmeasured")
def test_a_second_signal_ends_the_process_at_once(tmp_path):
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        with agent.process() as process:
            process.wait_for_line("baseline taken")
            inbox.gate.close()
            api.world.add(status="failed")
            inbox.wait_for(1)
            process.send_signal(signal.SIGTERM)
            process.wait_for_line("msg=stopping")

            def second_signal_ended_it() -> bool:
                process.send_signal(signal.SIGINT)
                return not process.is_running

            # Too soon after the first, a signal counts as the same.
            until(second_signal_ended_it, seconds=4)
            assert process.wait() == 128 + signal.SIGINT


@pytest.mark.usefixtures("unmeasured")
def test_an_agent_with_closed_output_delivers_and_stops(tmp_path):
    """As with a daemon whose output is closed."""
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        shell = ("sh", "-c", 'exec "$@" >&- 2>&-', "sh", *MODULE)
        with agent.process(command=shell) as process:
            # The third follows the baseline: the second confirms that the list is empty.
            until(lambda: api.request_count >= 3)
            api.world.add(status="failed")
            inbox.wait_for(1)
            assert process.stop() == 0
