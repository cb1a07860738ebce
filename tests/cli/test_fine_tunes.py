"""`list`: every fine-tune of every account, for people and for programs, hostile names and all."""

import contextlib
import csv
import io
import json
import os
import pty
import re
import select
import subprocess
import time

import pytest

from exporter.simulator.world import HOSTILE_TEXTS, Population, World
from tests.process.agent_process import API_KEY, MODULE, environment, run
from tests.process.fake_api import agent_config, fake_api

FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x","y")')
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


@pytest.fixture(scope="module")
def two_accounts(tmp_path_factory):
    """A configuration with two accounts of the same API, and that API's world."""
    world = World(Population(fine_tunes=150))
    for text in (*HOSTILE_TEXTS, *FORMULAS):
        world.add(name=text, description=text, dataset=text, language=text)
    with fake_api(world=world) as (api, _):
        config = agent_config(api)
        config["accounts"].append({**config["accounts"][0], "name": "second"})
        path = tmp_path_factory.mktemp("list") / "config.yaml"
        path.write_text(json.dumps(config), encoding="utf-8")
        yield path, world, api


def listed(two_accounts, tmp_path, *arguments, **env):
    path, *_ = two_accounts
    return run(tmp_path, "list", f"--config.file={path}", *arguments, **env)


def expected(world: World, *names: str) -> list[tuple[str, ...]]:
    return [
        (account, *(getattr(fine_tune, name) for name in names))
        for account in ("main", "second")
        for fine_tune in world
    ]


def test_json_holds_what_the_api_sent(two_accounts, tmp_path):
    done = listed(two_accounts, tmp_path, "--output=json")
    assert (done.returncode, done.stderr) == (0, ""), "no progress where nobody watches"
    names = ("id", "name", "description", "language", "model_id", "dataset", "status")
    rows = [tuple(row[name] for name in ("account", *names)) for row in json.loads(done.stdout)]
    assert rows == expected(two_accounts[1], *names)
    assert not CONTROL.search(done.stdout)


@pytest.mark.usefixtures("unmeasured")
def test_csv_holds_what_the_api_sent_formulas_too(two_accounts, tmp_path):
    done = subprocess.run(
        [*MODULE, "list", f"--config.file={two_accounts[0]}", "--output=csv"],
        env=environment(tmp_path),
        capture_output=True,
        check=True,
        timeout=60,
    )
    rows = csv.DictReader(io.StringIO(done.stdout.decode(), newline=""))
    found = [(r["account"], r["id"], r["name"], r["description"]) for r in rows]
    assert found == expected(two_accounts[1], "id", "name", "description")


def test_the_table_has_a_line_for_each_whatever_its_name(two_accounts, tmp_path):
    done = listed(two_accounts, tmp_path)
    world = two_accounts[1]
    assert done.stdout.endswith(f"\n{2 * len(world)} fine-tunes\n")
    assert not CONTROL.search(done.stdout)
    for fine_tune in world:
        assert sum(fine_tune.id in line for line in done.stdout.splitlines()) == 2


@pytest.mark.usefixtures("unmeasured")
def test_a_locale_without_unicode_ends_nothing(two_accounts, tmp_path):
    for output in ("table", "csv"):
        done = listed(two_accounts, tmp_path, f"--output={output}", PYTHONIOENCODING="ascii")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.isascii()


def in_terminal(two_accounts, tmp_path, *arguments: str, columns: int = 200) -> str:
    """Run `list` on a terminal of its own, and return all that the terminal was sent."""
    master, slave = pty.openpty()
    env = environment(tmp_path, TERM="xterm-256color", COLUMNS=str(columns))
    command = [*MODULE, "list", f"--config.file={two_accounts[0]}", *arguments]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env) as process:
        os.close(slave)
        shown = b""
        deadline = time.monotonic() + 30
        with contextlib.suppress(OSError):  # the terminal's end, when the process has ended
            while time.monotonic() < deadline:
                if select.select([master], [], [], 1)[0]:
                    shown += os.read(master, 65536)
        os.close(master)
        assert process.wait(10) == 0
    return shown.decode()


@pytest.mark.parametrize("output", ["table", "csv"])
def test_a_terminal_shows_progress_and_obeys_no_name(two_accounts, tmp_path, output):
    shown = in_terminal(two_accounts, tmp_path, f"--output={output}")
    assert "Reading main" in shown
    # What rich itself sends: colours, and the moves with which progress is redrawn.
    ours = re.compile(r"\x1b\[[\d;]*m|\x1b\[\?25[lh]|\x1b\[\d?[AK]|\r")
    rest = ours.sub("", shown)
    assert not CONTROL.search(rest)
    assert "\x1b[31mred" not in shown, "the world's hostile name"


def test_an_account_that_cannot_be_read_is_named_and_nothing_is_listed(two_accounts, tmp_path):
    _, _, api = two_accounts
    config = agent_config(api)
    config["accounts"].append(
        {"name": "wrong", "api_key_env": "WRONG", "base_url": api.url},
    )
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    done = run(tmp_path, "list", f"--config.file={path}", WRONG="not_a_key")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "cartesia-exporter: cannot list the fine-tunes: account wrong: the API answered 401"
    )
    assert "$WRONG" in done.stderr
    assert "Traceback" not in done.stderr
    assert API_KEY not in done.stderr


def piped(two_accounts, tmp_path, output: str, behind: str) -> subprocess.CompletedProcess[str]:
    """Run `list` in a shell, with something behind it."""
    command = f'"$@" --output={output} {behind}'
    return subprocess.run(
        ["sh", "-c", command, "sh", *MODULE, "list", f"--config.file={two_accounts[0]}"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("output", "reader"),
    [("table", "head -1"), ("json", "head -1"), ("csv", "head -1"), ("csv", "true")],
)
def test_a_reader_that_has_enough_is_a_quiet_end(two_accounts, tmp_path, output, reader):
    done = piped(two_accounts, tmp_path, output, f"| {reader}")
    assert done.stderr == ""
    assert done.stdout.count("\n") == (reader != "true")


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("output", ["table", "json", "csv"])
@pytest.mark.parametrize(
    ("target", "said"),
    [
        (">/dev/full", "Error: cannot write the output: No space left on device\n"),
        (">&-", "cartesia-exporter: cannot list the fine-tunes: standard output is closed\n"),
    ],
    ids=["full", "closed"],
)
def test_output_that_goes_nowhere_is_an_error_of_one_line(
    two_accounts, tmp_path, output, target, said
):
    done = piped(two_accounts, tmp_path, output, target)
    assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.usefixtures("unmeasured")
def test_a_narrow_terminal_shows_each_id_whole(two_accounts, tmp_path):
    shown = in_terminal(two_accounts, tmp_path, columns=80)
    for fine_tune in two_accounts[1]:
        assert fine_tune.id in shown
        assert fine_tune.model_id in shown
