"""The commands in docs/operations.md that work on a state run; test_commands.py parses all."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from exporter import __version__
from exporter.cli.commands import main
from exporter.store.database import Database
from tests.cli.stored_state import StoredState
from tests.deploy.schemas import assert_is_valid_for_kubernetes
from tests.docs.documents import ROOT, code_blocks
from tests.process.agent_process import environment
from tests.programs import required
from tests.store.sample_outbox import queue

TEXT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
FENCED = [block for block in code_blocks() if block.document == "docs/operations.md"]
BLOCKS = [block.text for block in FENCED if not block.language]
COMMANDS = [
    line.strip()
    for block in BLOCKS
    for line in block.replace("\\\n", "").splitlines()
    if re.search(r"\bcartesia-exporter (?!-|\\)[a-z-]+ ?", line) and "systemctl" not in line
]
"""Every line of a block that runs a command of ours."""


def arguments_of(line: str) -> list[str]:
    """Return the arguments of our command behind `sudo`, `docker exec` or `kubectl exec`."""
    own = line.rpartition("cartesia-exporter ")[2]
    return [each for each in shlex.split(own) if not each.startswith(">")]


def runnable() -> list[list[str]]:
    found = [arguments_of(line) for line in COMMANDS if "cartesia-exporter \\" not in line]
    return [each for each in found if each and each[0] in main.commands]


@pytest.fixture
def state(tmp_path) -> StoredState:
    stored = StoredState(tmp_path)

    async def fill(database: Database) -> None:
        await queue(database, [1, 2], "ops")

    stored.run(fill)
    return stored


def test_the_commands_on_the_state_run(state, tmp_path):
    ran = set()
    for number, words in enumerate(runnable()):
        path = next((each for each in words if each.startswith("--storage.path=")), None)
        if path is None:
            continue
        words[words.index(path)] = f"--storage.path={state.path}"
        if words[:2] == ["state", "backup"]:
            words[2] = str(tmp_path / f"{number}.db")
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
        ran.add(" ".join(words[:2]))
    assert {"state backup", "state check", "deliveries retry", "deliveries list"} <= ran


def test_the_daily_backup_runs_and_deletes_old_copies(state, tmp_path):
    [script] = [block for block in BLOCKS if block.startswith("#!")]
    folder = tmp_path / "backups"
    script = script.replace("/var/lib/cartesia-exporter/state.db", str(state.path))
    script = script.replace("/var/backups/cartesia-exporter", str(folder))
    script = script.replace(
        "/opt/cartesia-exporter/bin/cartesia-exporter",
        str(Path(sys.executable).with_name("cartesia-exporter")),
    )
    file = tmp_path / "daily"
    file.write_text(script)
    file.chmod(0o755)
    folder.mkdir(mode=0o700)
    old = folder / "2020-01-01.db"
    subprocess.run(["touch", "-d", "20 days ago", old], check=True)
    done = subprocess.run(
        [file], env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    [copy] = folder.iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d\.db", copy.name)
    assert f"{copy} is sound: " in done.stdout
    again = subprocess.run([file], env=environment(tmp_path), capture_output=True, check=False)
    assert again.returncode == 2, "an existing backup is kept"
    linted = subprocess.run(
        [required("shellcheck"), "-"], input=script, capture_output=True, text=True, check=False
    )
    assert linted.stdout == ""


def test_the_pod_for_a_restore_is_valid_and_mounts_what_the_chart_does():
    [text] = [block.text for block in FENCED if block.language == "yaml"]
    pod = yaml.safe_load(text)
    assert_is_valid_for_kubernetes(pod, "1.25")
    values = yaml.safe_load((ROOT / "deploy/helm/cartesia-exporter/values.yaml").read_text())
    context = pod["spec"]["securityContext"]
    expected = values["podSecurityContext"]
    assert {name: context[name] for name in expected if name in context}.items() <= (
        expected.items()
    )
    [container] = pod["spec"]["containers"]
    assert container["image"].endswith(f":{__version__}")
    assert json.dumps(values["securityContext"]["capabilities"]) == json.dumps(
        container["securityContext"]["capabilities"]
    )


def test_every_alert_of_the_table_exists():
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules/cartesia.rules.yml").read_text())
    names = {rule.get("alert") for group in rules["groups"] for rule in group["rules"]}
    table = TEXT.split("\n## What to watch\n")[1].split("\n## ", maxsplit=1)[0]
    assert {*re.findall(r"`(Cartesia\w+)`", table)} <= names
