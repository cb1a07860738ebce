"""Mutes beside a running agent: noticed within seconds, and the same numbers everywhere."""

import json
import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner

from exporter.cli.commands import main
from tests.process.agent_process import API_KEY, Agent, Process, get, run, until, url_of
from tests.process.fake_api import Api, Inbox, agent_config, fake_api, webhook

pytestmark = pytest.mark.usefixtures("unmeasured")

Numbers = dict[str, tuple[int, ...]]
"""Pending, held, muted and dead deliveries of each receiver."""

LOOK_SECONDS = 5.0


@dataclass
class Muted:
    """A running agent with two receivers; `chat` collects failures for an hour."""

    agent: Agent
    process: Process
    api: Api
    inbox: Inbox

    @property
    def url(self) -> str:
        return url_of(self.process)

    def command(self, *arguments: str) -> str:
        flag = f"--config.file={self.agent.file}"
        runner = CliRunner(env={"CARTESIA_API_KEY": API_KEY})
        done = runner.invoke(main, [*arguments, flag], catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
        return done.stdout

    def rows(self, group: str, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            self.command(group, "list", "--output=json", *arguments)
        )
        return found

    def fail(self, name: str) -> str:
        return self.api.world.add(name=name, dataset="calls", status="failed").id

    def by_metrics(self) -> Numbers:
        page = get(f"{self.url}/metrics").text
        gauge = r"cartesia_exporter_deliveries_(pending|held|muted|dead)"
        found = re.findall(rf'(?m)^{gauge}{{.*receiver="(\w+)".*}} (\S+)$', page)
        values = {(name, receiver): int(float(text)) for name, receiver, text in found}
        return {
            receiver: tuple(
                values.get((name, receiver), -1)  # before the first look at the outbox
                for name in ("pending", "held", "muted", "dead")
            )
            for receiver in ("ops", "chat")
        }

    def by_api(self) -> Numbers:
        records = get(f"{self.url}/api/v1/receivers").json()["data"]
        names = ("pending", "held", "muted", "dead")
        return {each["id"]: tuple(each[name] for name in names) for each in records}

    def by_page(self) -> Numbers:
        table = get(f"{self.url}/notifications").text.split('id="receivers"')[1]
        found: Numbers = {}
        for row in table.partition("</table>")[0].split("<tr ")[2:]:
            name = re.search(r"<bdi>(\w+)</bdi>", row)
            assert name is not None
            held = re.search(r"(\d+) held back until", row)
            cells = {
                label: int(re.sub(r"<[^>]*>", "", text))
                for label, text in re.findall(r'data-label="(pending|muted|dead)">(.*?)</td>', row)
            }
            number = int(held[1]) if held is not None else 0
            found[name[1]] = cells["pending"], number, cells["muted"], cells["dead"]
        return found

    def by_command(self) -> Numbers:
        rows = self.rows("deliveries", "--state=all")
        states = Counter((row["receiver"], row["state"]) for row in rows)
        held = Counter(row["receiver"] for row in rows if row["held_until"])
        return {
            name: (
                states[name, "pending"],
                held[name],
                states[name, "muted"],
                states[name, "dead"],
            )
            for name in ("ops", "chat")
        }

    def expect(self, ops: tuple[int, ...], chat: tuple[int, ...], seconds: float = 45) -> None:
        """Wait until metrics, API, page and command have these numbers."""
        expected = {"ops": ops, "chat": chat}
        sources = (self.by_command, self.by_metrics, self.by_api, self.by_page)
        until(lambda: all(source() == expected for source in sources), seconds)
        assert sum(each["deliveries"] for each in self.rows("mutes", "--all")) == ops[2] + chat[2]
        verdict = re.search(r'id="l-recv">Notifications: (.*?)</p>', get(self.url).text)
        assert verdict is not None
        assert ("muted" in verdict[1]) == (ops[2] + chat[2] > 0)


@pytest.mark.long
def test_metrics_pages_api_and_commands_agree_over_a_history_of_mutes(tmp_path):
    with fake_api() as (api, inbox):
        config = agent_config(api, webhook(inbox), webhook(inbox, "chat", group_interval="1h"))
        agent = Agent(tmp_path, **config)
        with agent.process("--web.enable-lifecycle") as process:
            muted = Muted(agent, process, api, inbox)
            process.wait_for_line("baseline taken")
            muted.fail("First")
            inbox.wait_for(2)
            muted.expect((0, 0, 0, 0), (0, 0, 0, 0))
            muted.fail("Second")
            inbox.wait_for(3)
            muted.expect((0, 0, 0, 0), (1, 1, 0, 0))
            # What is held back is muted as soon as the agent sees the mute.
            began = time.monotonic()
            output = muted.command("mutes", "add", "--match=dataset=calls", "--for=1h")
            assert output.endswith("2 fine-tunes match now\n")
            until(lambda: muted.by_command()["chat"] == (0, 0, 1, 0))
            assert time.monotonic() - began < LOOK_SECONDS + 3
            muted.expect((0, 0, 0, 0), (0, 0, 1, 0))
            third, _ = muted.fail("Third"), muted.fail("Fourth")
            muted.expect((0, 0, 2, 0), (0, 0, 3, 0))
            [mute] = muted.rows("mutes")
            assert mute["deliveries"] == 5
            assert len(inbox.requests) == 3
            [row] = [
                row
                for row in muted.rows("deliveries", "--state=muted", "--receiver=ops")
                if row["name"] == "Fourth"
            ]
            muted.command("deliveries", "discard", row["id"])
            muted.expect((0, 0, 1, 0), (0, 0, 3, 0))
            process.kill()
        with agent.process("--web.enable-lifecycle") as process:
            muted.process = process
            muted.expect((0, 0, 1, 0), (0, 0, 3, 0))
            api.world.set_status(third, "training")
            until(lambda: len(muted.rows("events", f"--fine-tune={third}")) > 1)
            flags = ("mutes", "end", mute["id"], f"--url={muted.url}")
            assert run(tmp_path, *flags).returncode == 0
            muted.expect((0, 0, 0, 0), (0, 0, 0, 0))
            assert [each.path for each in inbox.requests[3:]] == ["/chat"]
            released = json.loads(inbox.requests[3].body)
            assert len(released["data"]["events"]) == 2
            discarded = muted.rows("deliveries", "--state=discarded")
            assert Counter(
                (each["name"], each["receiver"], each["discarded_by"] == mute["id"])
                for each in discarded
            ) == Counter(
                {("Third", "ops", True): 1, ("Third", "chat", True): 1, ("Fourth", "ops", False): 1}
            )
            assert not re.search(r"level=(error|critical)|Traceback", process.output)
