"""Every command in the documents runs in a test, or is listed here with the reason why not."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from exporter.cli.commands import main
from exporter.cli.early_signals import runs_agent
from exporter.core.mutes import MuteRequest
from exporter.store.database import Database
from exporter.store.events import DEAD
from exporter.store.mutes import add_mute
from tests.cli.stored_state import StoredState
from tests.docs.documents import ROOT, code_blocks, documents, without_code_blocks
from tests.process.agent_process import API_KEY
from tests.store.sample_outbox import attempt, create_messages, queue

TESTED_ELSEWHERE = {
    # Document and command: what runs it.
    ("README.md", r"git clone .*"): "needs the network",
    ("README.md", r"make (demo|test)"): "tests/cli/test_demo.py runs the demo, CI the tests",
    ("README.md", r"sudo apt-get .*|python3 -m venv .*|venv/bin/pip .*|\. venv/.*"): (
        "tests/docs/test_installation.py"
    ),
    ("README.md", r"export CARTESIA_\w+=.*"): "tests/process/test_start.py sets the variables",
    ("*", r"cartesia-exporter( --config.file=config.yaml)?"): "tests/process starts the agent",
    ("*", r"cartesia-exporter list --config.file=config.yaml"): (
        "tests/cli/test_fine_tunes.py runs it on an API"
    ),
    ("*", r"cartesia-exporter health .*"): "tests/cli/test_health.py runs it on an agent",
    ("docs/api.md", r"curl .*"): "needs an agent; tests/web/test_api.py sends the requests",
    ("docs/runbooks.md", r"curl -s .*"): "needs an agent; test_rules.py checks the metrics",
    ("docs/runbooks.md", r"df -h data/ .*"): "shows the disk of the reader",
    ("docs/runbooks.md", r"promtool check config .*"): (
        "tests/system/test_prometheus.py, with deploy/prometheus/prometheus.yml"
    ),
    ("docs/flags.md", r"_CARTESIA_EXPORTER_COMPLETE=fish.*|eval .*"): (
        "test_the_completion_of_each_shell_is_printed"
    ),
    ("docs/installation.md", r".*"): "tests/docs/test_installation.py",
    ("docs/operations.md", r".*"): "tests/docs/test_operations.py",
    ("docs/postgresql.md", r"psql .*|cartesia-exporter state copy .*"): (
        "needs a database: tests/cli/test_maintenance.py copies to one"
    ),
    ("deploy/README.md", r"litestream .*"): "needs an object storage; the document says so",
    (
        "deploy/README.md",
        r"docker .*",
    ): "needs a container engine: tests/container, test_compose.py",
}

PLACEHOLDERS = {
    "AGENT": "http://127.0.0.1:10060",
    "--receiver NAME": "--receiver ops",
    "--account NAME": "--account main",
    "--from NAME": "--from ops",
    "--from OLD": "--from gone",
    "--receiver OLD": "--receiver gone",
    "--to OTHER": "--to chat",
    "--to NEW": "--to chat",
    " NAME": " ops",
    " ID": " evt_3",
    "--fine-tune evt_3": "--fine-tune ft_3",
}


def command_lines() -> Iterator[tuple[str, str]]:
    """Yield each line of the code blocks that have no language, with its document."""
    for block in code_blocks():
        if block.language or block.text.startswith("#!"):
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            command = re.sub(r"\s+#.*", "", line).strip()
            if command:
                yield block.document, re.sub(r"\s+", " ", command)


def inline_commands() -> Iterator[tuple[str, str]]:
    """Yield the commands of ours that are named within a sentence, with their document."""
    for document, text in documents().items():
        for command in re.findall(r"`(cartesia-exporter [^`]*)`", without_code_blocks(text)):
            if not {*re.split(r"[ =]", command)} & {"COMMAND", "…", "[run]"}:
                yield document, command


COMMANDS = sorted(set(command_lines()))
OWN = re.compile(
    r"(?:sudo )?(?:\w+=\S+ )?(?:uvx .* |docker exec \S+ |kubectl exec .* -- )?"
    r"(?:/\S+/)?cartesia-exporter( [-a-z].*)?"
)
"""A line that runs our command, and its arguments."""


def reasons(document: str, command: str) -> list[tuple[str, str]]:
    return [
        (pattern, expression)
        for pattern, expression in TESTED_ELSEWHERE
        if fnmatch(document, pattern) and re.fullmatch(expression, command)
    ]


def own_words(command: str) -> list[str] | None:
    """Return the arguments of our command; None if the line does not run it."""
    own = OWN.fullmatch(command)
    if own is None:
        return None
    arguments = (own[1] or "").partition(" >")[0]
    for placeholder, value in PLACEHOLDERS.items():
        arguments = re.sub(rf"{placeholder}(?!\w)", value, arguments)
    words = shlex.split(arguments)
    return ["run", *(word for word in words if word != "run")] if runs_agent(words) else words


PARSED = sorted(
    {
        (each, *words)
        for _, each in {*COMMANDS, *inline_commands()}
        if (words := own_words(each)) is not None
    }
)
RUN = [each for each in COMMANDS if not reasons(*each)]


@pytest.mark.parametrize("case", PARSED, ids=lambda case: case[0])
def test_flags_and_values_are_valid(case):
    words = list(case[1:])
    if len(words) == 1:  # a sentence names it, and there is nothing to be parsed
        assert words[0] in {*main.commands, "--version"}
        return
    command: click.Command = main
    context = click.Context(main, **main.context_settings)
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    assert command.make_context(str(command.name), words, parent=context)


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> tuple[StoredState, str]:
    """A state with deliveries that are pending, dead and orphaned, and the id of its mute."""
    stored, mute_ids = StoredState(tmp_path_factory.mktemp("documents")), list[str]()

    async def fill(database: Database) -> None:
        await queue(database, [1, 2], "ops")
        await create_messages(database, "ops")
        await attempt(database, "ops", DEAD, "answered 400")
        await queue(database, [3], "ops")
        await queue(database, [5], "gone")

        request = MuteRequest(3600, "ada", "", {"dataset": "x"})
        mute_ids.append(await database.run(add_mute, database, request, time.time()))

    stored.run(fill)
    return stored, mute_ids[0]


@pytest.mark.parametrize("document_and_command", RUN, ids=lambda case: case[1])
def test_a_command_runs(document_and_command, filled, tmp_path):
    words = own_words(document_and_command[1])
    assert words is not None, f"add a row to TESTED_ELSEWHERE: {document_and_command}"
    assert run_on_copy(words, filled, tmp_path).exit_code == 0


def run_on_copy(words: list[str], filled: tuple[StoredState, str], folder: Path) -> Result:
    """Run a command on a copy of the state; `send-test` does not send."""
    stored, mute_id = filled
    state = StoredState(folder)
    shutil.copy(stored.path, state.path)
    web = folder / "web-config.yml"
    web.write_text("{}")
    values = {"config.yaml": state.config, "web-config.yml": web, "MUTE_ID": mute_id}
    arguments = [
        f"{flag}={values.get(value, value)}" if equals else str(values.get(flag, flag))
        for flag, equals, value in (word.partition("=") for word in words)
    ]
    if words[0] == "send-test":
        arguments.append("--dry-run")
    done = CliRunner(env={"CARTESIA_API_KEY": API_KEY}).invoke(main, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_every_row_of_the_table_has_a_command():
    used = {each for command in COMMANDS for each in reasons(*command)}
    assert [*TESTED_ELSEWHERE.keys() - used] == []


def test_enough_commands_run():
    assert len(RUN) > 15
    assert len(PARSED) > 40


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_each_shell_is_printed(shell):
    text = documents()["docs/flags.md"]
    assert f"_CARTESIA_EXPORTER_COMPLETE={shell}_source cartesia-exporter" in text
    done = subprocess.run(
        [Path(sys.executable).with_name("cartesia-exporter")],
        env={**os.environ, "_CARTESIA_EXPORTER_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cartesia-exporter" in done.stdout


def test_every_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    named = {
        target
        for text in documents().values()
        for target in re.findall(r"(?:^|`)make ([\w-]+)", text, re.MULTILINE)
    }
    assert named <= targets
    assert len(named) > 10


def test_every_flag_that_is_named_exists():
    own = {
        flag
        for command in all_commands(main)
        for parameter in command.params
        for flag in parameter.opts
    }
    foreign = {
        "--enable-feature",  # Prometheus
        "--health-cmd",  # Docker
        "--break-system-packages",  # pip
        "--signal",  # docker kill
    }
    named = {
        (document, flag)
        for document, text in documents().items()
        for flag in re.findall(r"`(--[\w.-]+)", without_code_blocks(text))
    }
    assert [each for each in sorted(named) if each[1] not in own | foreign | {"--help"}] == []


def all_commands(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from all_commands(command)
        else:
            yield command
