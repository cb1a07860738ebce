"""`list`: the output for people and for programs, also of hostile names."""

import csv
import io
import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from exporter.cli.commands import main
from exporter.cli.fine_tunes import _LAYOUT
from exporter.cli.output import write
from exporter.simulator.world import HOSTILE_TEXTS, Population, World
from tests.process.agent_process import (
    API_KEY,
    MODULE,
    NO_INPUT,
    environment,
    run,
    run_in_terminal,
    start,
)
from tests.process.fake_api import agent_config, fake_api

FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x","y")')
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
NAMES = ("id", "name", "description", "language", "model_id", "dataset", "status")


@pytest.fixture(scope="module")
def two_accounts(tmp_path_factory):
    """Yield a configuration with two accounts at the same API, its world and the API."""
    world = World(Population(fine_tunes=150))
    for text in (*HOSTILE_TEXTS, *FORMULAS):
        world.add(name=text, description=text, dataset=text, language=text)
    with fake_api(world=world) as (api, _):
        config = agent_config(api, interval="60s")  # which allows a longer poll.timeout
        config["accounts"].append({**config["accounts"][0], "name": "second"})
        path = tmp_path_factory.mktemp("list") / "config.yaml"
        path.write_text(json.dumps(config), encoding="utf-8")
        yield path, world, api


def expected(world: World, *names: str) -> list[tuple[str, ...]]:
    return [
        (account, *(getattr(fine_tune, name).replace("\0", "\ufffd") for name in names))
        for account in ("main", "second")
        for fine_tune in world
    ]


def test_json_has_the_texts_of_the_api(two_accounts, tmp_path):
    path, world, _ = two_accounts
    done = run(tmp_path, "list", f"--config.file={path}", "--output=json")
    assert (done.returncode, done.stderr) == (0, ""), "no progress without a terminal"
    rows = [tuple(row[name] for name in ("account", *NAMES)) for row in json.loads(done.stdout)]
    assert rows == expected(world, *NAMES)
    assert not CONTROL.search(done.stdout)


@pytest.mark.usefixtures("unmeasured")
def test_csv_has_the_texts_of_the_api_formulas_included(two_accounts, tmp_path):
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


@pytest.mark.usefixtures("unmeasured")
def test_the_table_has_one_line_per_fine_tune_also_without_unicode(two_accounts, tmp_path):
    path, world, _ = two_accounts
    done = run(tmp_path, "list", f"--config.file={path}", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert done.stdout.endswith(f"\n{2 * len(world)} fine-tunes\n")
    assert not CONTROL.search(done.stdout)
    for fine_tune in world:
        assert sum(fine_tune.id in line for line in done.stdout.splitlines()) == 2


def test_csv_without_unicode_is_escaped():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="")
    write([dict.fromkeys((*_LAYOUT.columns, *_LAYOUT.hidden), "\u05e9")], _LAYOUT, "csv", stream)
    stream.seek(0)
    assert stream.read().splitlines()[1] == r"\u05e9" + r",\u05e9" * len(_LAYOUT.columns)


def list_in_terminal(two_accounts, tmp_path, *arguments: str, columns: int = 200) -> str:
    """Run `list` in a terminal, and return all that the terminal got."""
    flag = f"--config.file={two_accounts[0]}"
    return run_in_terminal(tmp_path, columns, "list", flag, *arguments)


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("output", ["table", "csv"])
def test_a_terminal_gets_progress_and_no_control_characters_of_names(
    two_accounts, tmp_path, output
):
    text = list_in_terminal(two_accounts, tmp_path, f"--output={output}")
    assert "Reading main" in text
    # rich's own escape sequences: colours, and cursor moves that redraw the progress.
    of_rich = re.compile(r"\x1b\[[\d;]*m|\x1b\[\?25[lh]|\x1b\[\d?[AK]|\r")
    assert not CONTROL.search(of_rich.sub("", text))
    assert "\x1b[31mred" not in text, "a hostile name of the simulator"


@pytest.mark.usefixtures("unmeasured")
def test_a_narrow_terminal_gets_whole_ids(two_accounts, tmp_path):
    text = list_in_terminal(two_accounts, tmp_path, columns=80)
    for fine_tune in two_accounts[1]:
        assert fine_tune.id in text
        assert fine_tune.model_id in text


@pytest.fixture
def mixed(two_accounts, tmp_path):
    """Return a configuration with a readable account between three that cannot be read."""
    _, _, api = two_accounts
    config = agent_config(api, interval="60s")
    [good] = config["accounts"]
    wrong = {"name": "wrong", "api_key_env": "WRONG", "base_url": api.url}
    nobody = {**good, "name": "nobody", "base_url": "http://127.0.0.1:1"}
    elsewhere = {**good, "name": "elsewhere", "base_url": f"{api.url}/nothing"}
    config["accounts"] = [wrong, good, nobody, elsewhere]
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


@pytest.mark.long
def test_accounts_that_cannot_be_read_are_named_and_the_others_are_printed(
    two_accounts, mixed, tmp_path
):
    def read(output: str) -> "subprocess.CompletedProcess[str]":
        flags = (f"--config.file={mixed}", f"--output={output}")
        return run(tmp_path, "list", *flags, WRONG="not_a_key")

    # At once: each retries the account without a connection for 10 s.
    with ThreadPoolExecutor() as threads:
        results = list(threads.map(read, ("table", "json", "csv")))
    for done in results:
        assert done.returncode == 1
        for fine_tune in two_accounts[1]:
            assert fine_tune.id in done.stdout
        first, second, third = done.stderr.splitlines()
        prefix = "cartesia-exporter: cannot list the fine-tunes of account"
        assert first.startswith(f"{prefix} wrong: 127.0.0.1:")
        assert "401" in first
        assert "$WRONG" in first
        assert second.startswith(f"{prefix} nobody: no connection to 127.0.0.1:1")
        assert third.startswith(f"{prefix} elsewhere: 127.0.0.1:")
        assert "404" in third
        assert API_KEY not in done.stdout + done.stderr


def invoke_list(path, *arguments):
    return CliRunner(env={"CARTESIA_API_KEY": API_KEY, "WRONG": "not_a_key"}).invoke(
        main, ["list", f"--config.file={path}", "--output=json", *arguments]
    )


def test_only_the_chosen_accounts_are_read(two_accounts, mixed):
    done = invoke_list(mixed, "--account=main")
    assert (done.exit_code, done.stderr) == (0, "")
    assert {row["account"] for row in json.loads(done.stdout)} == {"main"}
    done = invoke_list(two_accounts[0], "--account=second", "--account=main")
    rows = json.loads(done.stdout)
    assert [row["account"] for row in rows][:1] == ["main"], "in the order of the configuration"
    assert len(rows) == 2 * len(two_accounts[1])


def test_an_account_that_is_not_configured_is_refused_with_the_names_of_those_that_are(mixed):
    done = invoke_list(mixed, "--account=main", "--account=prod")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "no account prod in the configuration; accounts: wrong, main, nobody" in done.stderr


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["failed"], {"failed", "FAILED "}),
        (["FAILED", " completed"], {"failed", "FAILED ", "completed"}),
        (["paused"], {"Paused"}),
        (["unknown"], {"Paused", "FAILED "}),
        (["faild"], set()),
    ],
)
def test_only_the_chosen_statuses_are_printed(tmp_path, wanted, found):
    world = World(Population(fine_tunes=0))
    for status in ("failed", "completed", "training", "Paused", "FAILED "):
        world.add(status=status)
    with fake_api(world=world) as (api, _):
        path = tmp_path / "config.yaml"
        path.write_text(json.dumps(agent_config(api)), encoding="utf-8")
        done = invoke_list(path, *(f"--status={status}" for status in wanted))
    assert (done.exit_code, done.stderr) == (0, "")
    assert {row["status"] for row in json.loads(done.stdout)} == found


def list_into(descriptor: int, two_accounts, folder, output: str) -> tuple[int, str]:
    """Run `list` with a descriptor as standard output; return its status and its errors."""
    command = [*MODULE, "list", f"--config.file={two_accounts[0]}", f"--output={output}"]
    with (folder / "errors").open("w+") as errors:
        streams = NO_INPUT, descriptor, errors.fileno()
        status = start(command, folder, environment(folder), streams).wait(60)
        errors.seek(0)
        return status, errors.read()


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("output", "reader"), [("table", "head -1"), ("json", "head -1"), ("csv", "true")]
)
def test_a_closed_pipe_ends_the_command_quietly(two_accounts, tmp_path, output, reader):
    reading, writing = os.pipe()
    with subprocess.Popen(reader.split(), stdin=reading, stdout=subprocess.PIPE) as process:
        os.close(reading)
        _, errors = list_into(writing, two_accounts, tmp_path, output)
        os.close(writing)
        text, _ = process.communicate()
    assert errors == ""
    assert text.count(b"\n") == (reader != "true")


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("output", ["table", "json", "csv"])
def test_a_full_disk_is_an_error_of_one_line(two_accounts, tmp_path, output):
    with Path("/dev/full").open("wb") as full:
        done = list_into(full.fileno(), two_accounts, tmp_path, output)
    assert done == (1, "Error: cannot write the output: No space left on device\n")


@pytest.mark.usefixtures("unmeasured")
def test_a_closed_standard_output_is_an_error_before_the_api_is_asked(two_accounts, tmp_path):
    count = two_accounts[2].request_count
    command = [*MODULE, "list", f"--config.file={two_accounts[0]}"]
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *command],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    error = "cartesia-exporter: cannot list the fine-tunes: standard output is closed\n"
    assert (done.returncode, done.stderr) == (1, error)
    assert two_accounts[2].request_count == count
