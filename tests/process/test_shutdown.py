"""SIGTERM and SIGINT: what is in flight has 8 s, the process is gone within 10, nothing is lost."""

import signal
import time

import pytest

from tests.process.agent_process import INSTALLED, MODULE, Agent, started, until, url_of
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
def test_an_idle_agent_ends_at_once_and_well(tmp_path, number, command):
    with fake_api() as (api, _):
        agent = Agent(tmp_path, **agent_config(api))
        flags = (f"--config.file={agent.file}", "--web.listen-address=127.0.0.1:0")
        with started(tmp_path, *flags, command=command) as process:
            process.wait_for_line("baseline taken")
            assert process.stop(number, seconds=5) == 0
            assert process.output_lines[-1].endswith("msg=stopped")


def test_a_message_that_is_answered_in_time_is_delivered_before_the_end(tmp_path):
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
            assert "cut off" not in process.output
        with agent.process() as process:
            until(lambda: api.request_count >= 4)
            assert len(inbox.requests) == 1


def test_what_hangs_is_cut_off_and_told_after_the_restart_with_the_same_id_and_bytes(tmp_path):
    """A page, a message and a name resolution at once, each of which would take a minute."""
    (tmp_path / "sitecustomize.py").write_text(HANGING_RESOLVER, encoding="utf-8")
    with fake_api() as (api, inbox):
        hanging = {**webhook(inbox, "lost"), "url": "http://hangs.example/x", "allow_http": True}
        config = agent_config(api, webhook(inbox), hanging)
        config["poll"] = {"interval": "60s", "timeout": "50s"}
        other = {**config["accounts"][0], "name": "slow", "base_url": f"{api.url}/slow"}
        config["accounts"].insert(0, other)
        config["alerts"]["first_run"] = "alert"
        api.world.add(status="failed")
        inbox.gate.close()
        # The first account's page is held, the second one's is answered.
        api.gate.close()
        api.is_held = lambda scope: scope["path"].startswith("/slow")
        agent = Agent(tmp_path, **config)
        with agent.process(PYTHONPATH=str(tmp_path)) as process:
            inbox.wait_for(1)
            until(lambda: api.gate.waiting)
            began = time.monotonic()
            assert process.stop() == 0
            assert time.monotonic() - began > 7, "what is in flight is given its time"
            for part in ("poll slow", "deliver ops", "deliver lost"):
                process.wait_for_line(f'cut off.*part="{part}"', seconds=0)
            process.wait_for_line("msg=stopped", seconds=0)
        inbox.gate.open()
        with agent.process():
            first, again = inbox.wait_for(2)[:2]
        assert (again.id, again.body) == (first.id, first.body)


def test_names_that_hang_do_not_keep_the_names_of_others_waiting(tmp_path):
    """Twelve dead names: more lookups than asyncio's own threads take on a small machine."""
    (tmp_path / "sitecustomize.py").write_text(HANGING_RESOLVER, encoding="utf-8")
    with fake_api() as (api, inbox):
        hanging = {"url": "http://hangs.example/x", "allow_http": True}
        dead = [webhook(inbox, f"dead{number}", **hanging) for number in range(12)]
        named = webhook(inbox, "named", url=inbox.url.replace("127.0.0.1", "localhost"))
        agent = Agent(tmp_path, **agent_config(api, *dead, named))
        with agent.process(PYTHONPATH=str(tmp_path)) as process:
            process.wait_for_line("baseline taken")
            api.world.add(status="failed")
            inbox.wait_for(1, seconds=10)


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

            def insisted() -> bool:
                process.send_signal(signal.SIGINT)
                return not process.is_running

            until(insisted, seconds=4)  # at once behind the first, it would count as the same
            assert process.wait() == 128 + signal.SIGINT


def test_a_closed_standard_error_changes_nothing(tmp_path):
    """As a daemon whose output goes nowhere, or to a reader that went away."""
    with fake_api() as (api, inbox):
        agent = Agent(tmp_path, **agent_config(api, webhook(inbox)))
        shell = ("sh", "-c", 'exec "$@" >&- 2>&-', "sh", *MODULE)
        flags = (f"--config.file={agent.file}", "--web.listen-address=127.0.0.1:0")
        with started(tmp_path, *flags, command=shell) as process:
            until(lambda: api.request_count >= 2)
            api.world.add(status="failed")
            inbox.wait_for(1)
            assert process.stop() == 0


def test_clients_that_keep_their_connection_do_not_hold_up_the_end(tmp_path):
    import socket

    with fake_api() as (api, _):
        agent = Agent(tmp_path, **agent_config(api))
        with agent.process() as process:
            host, port = url_of(process).removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as half_asked:
                half_asked.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n")
                assert process.stop(seconds=5) == 0
