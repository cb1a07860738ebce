"""The dead man's switch of a running agent: fetched while all is well, and not when it is not."""

from starlette.responses import PlainTextResponse

from tests.process.agent_process import Agent, until
from tests.process.fake_api import cloud, watching, webhook


def test_the_heartbeat_comes_with_each_good_round_and_stays_out_with_a_bad_one(tmp_path):
    with cloud() as (api, inbox):
        config = watching(api, webhook(inbox))
        config["poll"]["stale_after"] = "2s"
        config["heartbeat_url"] = f"{inbox.url}/ping/T0ken"
        with Agent(tmp_path, **config).process() as process:
            until(lambda: len(inbox.arrived) >= 2)
            assert {got.path for got in inbox.arrived} == {"/ping/T0ken"}
            api.answer = lambda _: PlainTextResponse("", 500)
            process.line("heartbeat withheld.*not every account has fresh data")
            before = len(inbox.arrived)
            api.answer = lambda _: None
            process.line("poll recovered")
            until(lambda: len(inbox.arrived) > before)
            process.line("heartbeat sent again")
            assert "T0ken" not in process.text
