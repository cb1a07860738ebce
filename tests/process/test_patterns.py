"""Patterns and names over which a backtracking engine would hang, in a running agent."""

import json

import pytest

from tests.process.agent_process import Agent, get, url_of
from tests.process.delivery_scenario import fail_in_one_poll
from tests.process.fake_api import agent_config, fake_api, webhook

pytestmark = pytest.mark.usefixtures("unmeasured")

NAME = "narrator voices for the winter audiobook series"


def test_a_name_that_makes_backtracking_explode_stops_nothing(tmp_path):
    with fake_api() as (api, inbox):
        prod = webhook(inbox, "prod", match={"name": r"(\w+\s?)*-prod"})
        everybody = webhook(inbox, match={"name": "(?i)NARRATOR.*"})
        agent = Agent(tmp_path, **agent_config(api, prod, everybody))
        failing = [api.world.add(status="training", name=NAME).id]
        with agent.process() as process:
            url = url_of(process)
            process.wait_for_line("baseline taken")
            fail_in_one_poll(api, failing)
            [request] = inbox.wait_for(1)
            assert request.path == "/ops"
            assert json.loads(request.body)["data"]["fine_tune"]["name"] == NAME
            assert get(f"{url}/-/healthy").status_code == 200
            assert process.stop() == 0
