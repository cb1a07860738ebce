"""The heartbeat of a running agent."""

import re

import pytest
from starlette.responses import PlainTextResponse

from tests.process.agent_process import Agent, get, injected, run, until, url_of
from tests.process.fake_api import agent_config, fake_api, webhook


@pytest.mark.usefixtures("unmeasured")
def test_the_heartbeat_is_sent_while_all_accounts_are_fresh_and_withheld_otherwise(tmp_path):
    with fake_api() as (api, inbox):
        config = agent_config(api, webhook(inbox))
        config["poll"]["stale_after"] = "2s"
        config["heartbeat_url"] = f"{inbox.url}/ping/T0ken"
        with Agent(tmp_path, **config).process() as process:
            until(lambda: len(inbox.requests) >= 2)
            assert {request.path for request in inbox.requests} == {"/ping/T0ken"}
            api.answer = lambda _: PlainTextResponse("", 500)
            process.wait_for_line("heartbeat withheld.*not every account has fresh data")
            before = len(inbox.requests)
            api.answer = lambda _: None
            process.wait_for_line("poll recovered")
            until(lambda: len(inbox.requests) > before)
            process.wait_for_line("heartbeat sent again")
            assert "T0ken" not in process.output


IMPATIENT = "import exporter.agent.heartbeat as h; h._MAX_PENDING_SECONDS = 1.0"


@pytest.mark.usefixtures("unmeasured")
def test_held_and_muted_deliveries_do_not_withhold_the_heartbeat_and_late_ones_do(tmp_path):
    with fake_api() as (api, inbox):
        config = agent_config(api, webhook(inbox, group_interval="1h"))
        config["heartbeat_url"] = f"{inbox.url}/ping"
        agent = Agent(tmp_path, **config)

        def beats() -> int:
            return sum(request.path == "/ping" for request in inbox.requests)

        def metric(name: str) -> str:
            page = get(f"{url_of(process)}/metrics").text
            [value] = re.findall(rf"(?m)^cartesia_exporter_deliveries_{name}{{.*}} (\S+)$", page)
            return str(value)

        with agent.process(**injected(tmp_path, IMPATIENT)) as process:
            process.wait_for_line("baseline taken")
            api.world.add(status="failed")
            process.wait_for_line("msg=delivered")
            mute = ("mutes", "add", "--match=name=Muted", "--for=1h")
            assert run(tmp_path, *mute, f"--storage.path={agent.state}").returncode == 0
            api.world.add(status="failed", name="Held")
            api.world.add(status="failed", name="Muted")
            until(lambda: (metric("held"), metric("muted")) == ("1.0", "1.0"))
            assert metric("pending") == "1.0"
            before = beats()
            until(lambda: beats() >= before + 4)
            assert "heartbeat withheld" not in process.output
            inbox.answer = lambda each: PlainTextResponse("", 503 if each.path == "/ops" else 200)
            retry = ("deliveries", "retry", "--all", f"--config.file={agent.file}")
            assert run(tmp_path, *retry).returncode == 0
            process.wait_for_line("heartbeat withheld.*a delivery has been pending")
