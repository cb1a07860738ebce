"""The heartbeat of a running agent."""

import pytest
from starlette.responses import PlainTextResponse

from tests.process.agent_process import Agent, until
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
