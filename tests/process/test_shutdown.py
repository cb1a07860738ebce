"""SIGTERM and SIGINT: what is in flight has 8 s, the process is gone within 10, nothing is lost."""

import signal
import time

import pytest

from tests.process.agent_process import INSTALLED, MODULE, Agent, started, until, url_of
from tests.process.fake_api import cloud, watching, webhook

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
    with cloud() as (api, _):
        agent = Agent(tmp_path, **watching(api))
        flags = (f"--config.file={agent.file}", "--web.listen-address=127.0.0.1:0")
        with started(tmp_path, *flags, command=command) as process:
            process.line("baseline taken")
            assert process.stop(number, seconds=5) == 0
            assert process.lines[-1].endswith("msg=stopped")


def test_a_message_that_is_answered_in_time_is_delivered_before_the_end(tmp_path):
    with cloud() as (api, inbox):
        agent = Agent(tmp_path, **watching(api, webhook(inbox)))
        with agent.process() as process:
            process.line("baseline taken")
            inbox.gate.close()
            api.world.add(status="failed")
            inbox.got(1)
            process.send(signal.SIGTERM)
            process.line("msg=stopping")
            inbox.gate.open()
            assert process.end() == 0
            process.line("msg=delivered")
            assert "service cancelled" not in process.text
        with agent.process() as process:
            until(lambda: api.asked >= 4)
            assert len(inbox.arrived) == 1


def test_what_hangs_is_cut_off_and_told_after_the_restart_with_the_same_id_and_bytes(tmp_path):
    """A page, a message and a name resolution at once, each of which would take a minute."""
    (tmp_path / "sitecustomize.py").write_text(HANGING_RESOLVER, encoding="utf-8")
    with cloud() as (api, inbox):
        hanging = {**webhook(inbox, "lost"), "url": "http://hangs.example/x", "allow_http": True}
        config = watching(api, webhook(inbox), hanging)
        config["poll"] = {"interval": "60s", "timeout": "50s"}
        other = {**config["accounts"][0], "name": "slow", "base_url": f"{api.url}/slow"}
        config["accounts"].insert(0, other)
        config["alerts"]["first_run"] = "alert"
        api.world.add(status="failed")
        inbox.gate.close()
        # The first account's page is held, the second one's is answered.
        api.gate.close()
        api.held = lambda scope: scope["path"].startswith("/slow")
        agent = Agent(tmp_path, **config)
        with agent.process(PYTHONPATH=str(tmp_path)) as process:
            inbox.got(1)
            until(lambda: api.gate.waiting)
            began = time.monotonic()
            assert process.stop() == 0
            assert time.monotonic() - began > 7, "what is in flight is given its time"
            for service in ("poll slow", "deliver ops", "deliver lost"):
                process.line(f'service cancelled.*service="{service}"', seconds=0)
            process.line("msg=stopped", seconds=0)
        inbox.gate.open()
        with agent.process():
            first, again = inbox.got(2)[:2]
        assert (again.id, again.body) == (first.id, first.body)


def test_names_that_hang_do_not_keep_the_names_of_others_waiting(tmp_path):
    """Twelve dead names: more lookups than asyncio's own threads take on a small machine."""
    (tmp_path / "sitecustomize.py").write_text(HANGING_RESOLVER, encoding="utf-8")
    with cloud() as (api, inbox):
        hanging = {"url": "http://hangs.example/x", "allow_http": True}
        dead = [webhook(inbox, f"dead{number}", **hanging) for number in range(12)]
        named = webhook(inbox, "named", url=inbox.url.replace("127.0.0.1", "localhost"))
        agent = Agent(tmp_path, **watching(api, *dead, named))
        with agent.process(PYTHONPATH=str(tmp_path)) as process:
            process.line("baseline taken")
            api.world.add(status="failed")
            inbox.got(1, seconds=10)


def test_a_second_signal_ends_the_process_at_once(tmp_path):
    with cloud() as (api, inbox):
        agent = Agent(tmp_path, **watching(api, webhook(inbox)))
        with agent.process() as process:
            process.line("baseline taken")
            inbox.gate.close()
            api.world.add(status="failed")
            inbox.got(1)
            process.send(signal.SIGTERM)
            process.line("msg=stopping")

            def insisted() -> bool:
                process.send(signal.SIGINT)
                return not process.runs

            until(insisted, seconds=4)  # at once behind the first, it would count as the same
            assert process.end() == 128 + signal.SIGINT


def test_a_closed_standard_error_changes_nothing(tmp_path):
    """As a daemon whose output goes nowhere, or to a reader that went away."""
    with cloud() as (api, inbox):
        agent = Agent(tmp_path, **watching(api, webhook(inbox)))
        shell = ("sh", "-c", 'exec "$@" >&- 2>&-', "sh", *MODULE)
        flags = (f"--config.file={agent.file}", "--web.listen-address=127.0.0.1:0")
        with started(tmp_path, *flags, command=shell) as process:
            until(lambda: api.asked >= 2)
            api.world.add(status="failed")
            inbox.got(1)
            assert process.stop() == 0


def test_clients_that_keep_their_connection_do_not_hold_up_the_end(tmp_path):
    import socket

    with cloud() as (api, _):
        agent = Agent(tmp_path, **watching(api))
        with agent.process() as process:
            host, port = url_of(process).removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as half_asked:
                half_asked.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n")
                assert process.stop(seconds=5) == 0
