"""`mutes`: add, list and end, on a state, with its configuration and with a running agent."""

import getpass
import json
import re
import time
from typing import Any

import pytest
from click.testing import CliRunner, Result

from exporter.cli.commands import main
from exporter.core.records import MuteRecord
from exporter.store.database import Database
from exporter.store.outbox import Outbox
from tests.cli.stored_state import CONTROL, HOSTILE, StoredState
from tests.process.agent_process import Agent, url_of
from tests.process.fake_api import agent_config, fake_api
from tests.store.sample_outbox import queue
from tests.store.sample_polls import commit_snapshot, fine_tune, snapshot_of

NAME = "[a-zA-Z0-9 ]+"
CALLS = ("mutes", "add", "--match=dataset=calls", "--for=4h")


@pytest.fixture
def state(tmp_path) -> StoredState:
    """A state with two fine-tunes of the dataset `calls`, in an account with the label team."""
    stored = StoredState(tmp_path)
    config = json.loads(stored.config.read_text(encoding="utf-8"))
    config["accounts"] = [
        {"name": "default", "labels": {"team": "voices"}, "api_key_env": "CARTESIA_API_KEY"}
    ]
    stored.config.write_text(json.dumps(config), encoding="utf-8")

    async def fill(database: Database) -> None:
        listed = [fine_tune(f"f{n}", dataset=("calls", "ivr")[n == 2]) for n in range(3)]
        await commit_snapshot(database, None, snapshot_of(*listed))

    stored.run(fill)
    return stored


def invoke(*arguments: str) -> Result:
    """Run a command without any variable of the configuration."""
    done = CliRunner(env={"CARTESIA_API_KEY": None}).invoke(main, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def mutes(state: StoredState, *arguments: str) -> list[dict[str, Any]]:
    return state.rows("mutes", *arguments)


def test_a_mute_is_added_listed_and_ended(state):
    added = state.output(*CALLS, "--reason=new recordings", "--author=Ada L.")
    [mute] = mutes(state)
    assert re.fullmatch(
        rf"{mute['id']}: dataset=calls is muted until {NAME}:\d\d:\d\d UTC\n"
        "2 fine-tunes match now\n",
        added,
    )
    assert {*mute} == {*MuteRecord.__struct_fields__}
    assert (mute["author"], mute["reason"], mute["active"]) == ("Ada L.", "new recordings", True)
    heading, line, count = state.output("mutes", "list").splitlines()
    assert heading.split()[:6] == ["id", "ends", "held", "covers", "by", "reason"]
    assert re.fullmatch(
        rf"{mute['id']}  {NAME}(:\d\d)+ +0 +dataset=calls  Ada L\.  new rec.*", line
    )
    assert count == "1 mutes"
    ended = state.output("mutes", "end", mute["id"])
    assert ended.startswith(f"{mute['id']} has ended; what it held and is still failed is sent")
    assert mutes(state) == []
    [over] = mutes(state, "--all")
    assert (over["active"], over["ended_by"]) == (False, getpass.getuser())
    assert "  ended " in state.output("mutes", "list", "--all")


@pytest.mark.parametrize(
    ("arguments", "matches"),
    [
        (["--match=dataset=(calls|ivr)", "--for=1h"], "3 fine-tunes match now"),
        (["--match=dataset=calls", "--match=name=f0", "--for=1h"], None),
        (["--match=label.team=voi.*", "--for=1m"], "3 fine-tunes match now"),
        (["--match=label.team=other", "--for=30d"], None),
        (["--account=default", "--fine-tune=f1", "--for=1h"], "1 fine-tune matches now"),
        (["--account=default", "--fine-tune=f1", "--until-recovered"], "1 fine-tune matches now"),
        (["--account=default", "--fine-tune=none", "--until-recovered"], None),
        (["--match=id=f1", "--for=1h"], "1 fine-tune matches now"),
    ],
)
def test_the_number_of_fine_tunes_that_match_now_is_printed(state, arguments, matches):
    done = state.invoke("mutes", "add", *arguments)
    assert done.exit_code == 0
    if matches is None:
        note = "note: no fine-tune matches now; those that will match are muted\n"
        assert (done.stdout.count("\n"), done.stderr) == (1, note)
    else:
        assert (done.stdout.splitlines()[1], done.stderr) == (matches, "")
    assert ("until it recovers, at the latest" in done.stdout) == ("--until-recovered" in arguments)
    assert len(mutes(state)) == 1


def test_a_path_is_enough_and_says_what_it_cannot_know(state):
    flag = f"--storage.path={state.path}"
    done = invoke("mutes", "add", "--match=label.team=voices", "--for=1h", flag)
    assert (done.exit_code, done.stdout.count("\n")) == (0, 1)
    assert done.stderr == (
        "how many fine-tunes it matches now is not known: the labels of accounts are in the "
        "configuration, see --config.file\n"
    )
    done = invoke(*CALLS, flag)
    assert (done.stdout.splitlines()[1], done.stderr) == ("2 fine-tunes match now", "")
    found = json.loads(invoke("mutes", "list", flag, "--output=json").stdout)
    assert [each["author"] for each in found] == [getpass.getuser()] * 2
    assert invoke("mutes", "end", found[0]["id"], flag).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--match=dataset=x"], "a mute must end: give either --for or --until-recovered"),
        (["--match=dataset=x", "--for=1h", "--until-recovered"], "a mute must end: give either"),
        (["--match=dataset=x", "--until-recovered"], "only a mute of one fine-tune"),
        (["--match=dataset=x", "--for=59s"], "the duration must be 1m to 30d"),
        (["--match=dataset=x", "--for=5w"], "the duration must be 1m to 30d"),
        (["--match=dataset=x", "--for=long"], "'long' must be a duration"),
        (["--match=dataset", "--for=1h"], "--match dataset: write KEY=PATTERN"),
        (["--match=name=a", "--match=name=b", "--for=1h"], "write name=(one|other)"),
        (["--match=colour=x", "--for=1h"], "unknown matcher colour; it must be one of account"),
        (["--match=name=(", "--for=1h"], "name: must be a regular expression"),
        (["--for=1h"], "give matchers, or the account and the id"),
        (["--fine-tune=x", "--for=1h"], "give the account of the fine-tune"),
        (["--match=name=x", "--account=a", "--for=1h"], "as a matcher, write account=NAME"),
        (["--match=name=x", "--for=1h", "--author= "], "give the name of the author"),
        (["--match=name=x", "--for=1h", "--reason=" + "x" * 501], "the reason must have at most"),
        (["--match=name=x", "--for=1h", "--ca-file=x"], "--ca-file needs --url"),
        (
            ["--match=name=x", "--for=1h", "--url=http://127.0.0.1:1"],
            "--url and --config.file exclude",
        ),
        (
            ["--match=name=x", "--for=1h", "--author=a", "--username=b"],
            "--author and --username exclude each other",
        ),
    ],
)
def test_a_mute_that_is_not_valid_ends_with_2_and_adds_nothing(state, arguments, words):
    done = state.invoke("mutes", "add", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert mutes(state, "--all") == []


def test_a_mute_that_is_not_there_or_is_over_ends_with_1(state):
    state.output(*CALLS)
    [mute] = mutes(state)
    state.output("mutes", "end", mute["id"])
    for mute_id in (mute["id"], "mute_none"):
        done = state.invoke("mutes", "end", mute_id)
        assert (done.exit_code, done.stdout) == (1, "")
        assert mute_id in done.stderr
        assert "see `cartesia-exporter mutes list`" in done.stderr


def test_too_many_mutes_end_with_1(state, monkeypatch):
    monkeypatch.setattr("exporter.store.mutes.MAX_MUTES", 1)
    state.output(*CALLS)
    done = state.invoke(*CALLS)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "1 mutes are active; end some of them first" in done.stderr


def test_hostile_text_is_cleaned(state):
    done = state.invoke(
        "mutes", "add", f"--match=dataset={HOSTILE}", "--for=1h", f"--reason={HOSTILE}"
    )
    table = state.output("mutes", "list")
    assert not CONTROL.search(done.stdout + table)
    assert table.count("\n") == 3
    assert mutes(state)[0]["match"] == {"dataset": HOSTILE}


async def mute_now(database: Database) -> None:
    await queue(database, [1], "ops")
    await Outbox(database, "ops").apply_mutes({}, time.time())


def test_lists_show_until_when_and_by_whom_a_delivery_is_muted(state):
    state.invoke("mutes", "add", "--match=id=ft_1", "--for=1h", "--author=bo")
    state.run(mute_now)
    [delivery] = state.rows("deliveries")
    assert (delivery["state"], delivery["muted_by"]) == ("muted", "bo")
    assert state.rows("deliveries", "--state=muted") == [delivery]
    assert state.rows("deliveries", "--state=pending") == []
    assert re.search(r"  muted +until [^;]*, by bo", state.output("deliveries", "list"))
    assert re.search(r"ops muted until (\d+ \w{3} )?\d\d:\d\d", state.output("events", "list"))
    assert mutes(state)[0]["deliveries"] == 1
    assert "found no delivery to retry" in state.invoke("deliveries", "retry", "--all").stderr
    state.output("deliveries", "discard", "--state=muted")
    text = state.output("deliveries", "list", "--state=all")
    assert f"by {getpass.getuser()}" in text


@pytest.fixture
def agents(tmp_path):
    """The URLs of two agents on one account: with --web.enable-lifecycle, and without."""
    with fake_api() as (api, _):
        api.world.add(name="Ada", status="training", dataset="calls")
        folders = [tmp_path / "on", tmp_path / "off"]
        for folder in folders:
            folder.mkdir()
        on, off = (Agent(folder, **agent_config(api)) for folder in folders)
        with on.process("--web.enable-lifecycle") as first, off.process() as second:
            first.wait_for_line("baseline taken")
            yield url_of(first), url_of(second)


@pytest.mark.usefixtures("unmeasured")
def test_a_running_agent_adds_lists_and_ends_mutes(agents):
    url, without = (f"--url={each}" for each in agents)
    done = invoke(*CALLS, "--author=bo", url)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.endswith("1 fine-tune matches now\n")
    [mute] = json.loads(invoke("mutes", "list", url, "--output=json").stdout)
    assert (mute["author"], mute["match"], mute["active"]) == ("bo", {"dataset": "calls"}, True)
    assert done.stdout.startswith(f"{mute['id']}: dataset=calls is muted until ")
    assert invoke("mutes", "end", mute["id"], url).exit_code == 0
    done = invoke("mutes", "end", mute["id"], url)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "answered 404: no mute that has not ended" in done.stderr
    [over] = json.loads(invoke("mutes", "list", "--all", url, "--output=json").stdout)
    assert (over["active"], over["ended_by"]) == (False, getpass.getuser())
    for arguments in (CALLS, ("mutes", "end", mute["id"])):
        done = invoke(*arguments, without)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "answered 403: Start the agent with --web.enable-lifecycle" in done.stderr
