"""What is imported when: not before the first /metrics, and not when an alert is sent."""

import sys

import pytest

from tests.process.agent_process import Agent, get, started, until, url_of
from tests.process.fake_api import agent_config, fake_api, webhook

LATE = {
    # by ``Agent.load``, while the metrics are served
    *("anyio._backends._asyncio", "httpcore", "httpx", "jinja2", "yaml"),
    *("exporter.web.actions", "exporter.web.api", "exporter.web.pages", "exporter.web.view"),
    # for certain settings
    *("alembic", "apprise", "bcrypt", "psycopg", "re2"),
    *("exporter.delivery.alertmanager", "exporter.store.ownership", "exporter.web.auth"),
    *("exporter.receivers.alertmanager", "exporter.receivers.apprise", "exporter.receivers.slack"),
    *("exporter.receivers.template", "exporter.receivers.webhook"),
    # for other commands
    *("exporter.cli.deliveries", "exporter.cli.demo", "exporter.cli.source", "exporter.simulator"),
    *("httpx._main", "pygments", "rich"),
    # parts of libraries that nothing uses
    *("brotli", "h2", "httptools", "sqlalchemy.ext", "sqlalchemy.orm", "uvloop", "watchfiles"),
    *("websockets", "wsproto", "zstandard"),
}

OBSERVED = f"""
import gc, sys
from exporter.imports import without_rich
with without_rich():
    from exporter.agent.agent import Agent
load, stop, loaded = Agent.load, Agent.stop, set()

async def observed_load(agent):
    print("before:", *sorted({LATE!r} & set(sys.modules)), flush=True)
    await load(agent)
    loaded.update(sys.modules)

async def observed_stop(agent):
    late = set(sys.modules) - loaded
    ours = [each for each in late if each.partition(".")[0] not in sys.stdlib_module_names]
    print("after:", *sorted(ours), "enabled" if gc.isenabled() else "disabled", flush=True)
    await stop(agent)

Agent.load, Agent.stop = observed_load, observed_stop
from exporter.cli.main import main
main(prog_name="cartesia-exporter")
"""
COMMAND = (sys.executable, "-c", OBSERVED)

pytestmark = pytest.mark.usefixtures("unmeasured")


def test_a_start_imports_nothing_that_the_first_metrics_do_not_need(tmp_path):
    with fake_api() as (api, _):
        process = started(
            tmp_path,
            "--web.listen-address=127.0.0.1:0",
            command=COMMAND,
            CARTESIA_BASE_URL=api.url,
            CARTESIA_EXPORTER_STORAGE_PATH=str(tmp_path / "state.db"),
        )
        with process as agent:
            assert get(f"{url_of(agent)}/metrics").status_code == 200
            assert agent.stop() == 0
            assert agent.wait_for_line("^before:", seconds=0).string == "before:"


def test_nothing_is_imported_for_an_alert_or_a_page_once_the_agent_is_ready(tmp_path):
    """The files of a package that is upgraded under a running agent may not fit what is loaded."""
    with fake_api() as (api, inbox):
        slack = {**webhook(inbox, "chat"), "type": "slack", "text": "{{ title }}"}
        body = {**webhook(inbox, "body"), "format": "template", "template": {"t": "{{ title }}"}}
        alertmanager = {"name": "am", "type": "alertmanager", "urls": [inbox.url]}
        config = agent_config(api, webhook(inbox, "hook"), slack, body, alertmanager)
        agent = Agent(tmp_path, **config)
        with agent.process(command=COMMAND) as process:
            url = url_of(process)
            process.wait_for_line("baseline taken")
            api.world.add(status="failed")
            paths = {"/chat", "/hook", "/body", "/api/v2/alerts"}
            until(lambda: {each.path for each in inbox.requests} >= paths)
            for path in ("/", "/fine-tunes", "/notifications", "/config", "/api/v1/status"):
                assert get(url + path).status_code == 200
            assert process.stop() == 0
            assert process.wait_for_line("^after:", seconds=0).string == "after: enabled", (
                "the garbage collector is disabled until everything is imported"
            )
