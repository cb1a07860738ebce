"""The commands in README.md and docs/installation.md install the command."""

import os
import re
import signal
import subprocess
import tomllib
from pathlib import Path

import pytest

from exporter.cli.version import version_text
from exporter.core.project import REPOSITORY_URL
from tests.docs.distribution import INSTALLED_ONLY, ROOT, UV, run_checked
from tests.docs.documents import FENCE
from tests.process.agent_process import environment, run, started

pytestmark = pytest.mark.usefixtures("unmeasured")

README = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALLATION = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGE = f"cartesia-exporter @ {ROOT.as_uri()}"


def section(text: str, title: str) -> str:
    """Return the commands of a section, without those that need root on this machine."""
    body = text.split(f"\n## {title}\n")[1].split("\n## ", maxsplit=1)[0]
    commands = "\n".join(found[3] for found in FENCE.finditer(body))
    assert commands
    return re.sub(r"^sudo apt-get install .*\n", "", commands, flags=re.MULTILINE)


@pytest.fixture
def isolated(tmp_path):
    """Variables that keep what uv and pipx install in the folder of the test."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("uv", "uvx"):
        (programs / name).symlink_to(Path(UV).with_name(name))
    shown = tmp_path / "bin"
    return {
        "PATH": os.pathsep.join(map(str, (shown, programs, os.environ["PATH"]))),
        "PACKAGE": PACKAGE,
        "SHELL": "/bin/bash",
        "UV_TOOL_DIR": str(tmp_path / "tools"),
        "UV_TOOL_BIN_DIR": str(shown),
        "PIPX_HOME": str(tmp_path / "pipx"),
        "PIPX_BIN_DIR": str(shown),
    }


def lines_with(commands: str, word: str) -> str:
    return "\n".join(line for line in commands.splitlines() if word in line)


@pytest.mark.long
def test_uv_installs_the_command_and_runs_the_demo_without_installing(tmp_path, isolated):
    commands = section(INSTALLATION, "pipx or uv")
    assert not list(tmp_path.glob("bin/*"))
    run_checked("sh", "-euc", lines_with(commands, "uv tool install"), cwd=tmp_path, **isolated)
    command = (*INSTALLED_ONLY, str(tmp_path / "bin" / "cartesia-exporter"))
    expected = version_text(PYPROJECT["project"].get("version", "0.1.0"))
    assert run(tmp_path, "--version", command=command).stdout == f"cartesia-exporter {expected}\n"
    [without] = re.findall(r"^uvx .*$", commands, re.MULTILINE)
    started_by = ("sh", "-c", f"exec env -u PYTHONPATH {without}")
    index = {name: text for name, text in os.environ.items() if name.startswith(("UV_", "HOME"))}
    with started(tmp_path, command=started_by, **{**index, **isolated}) as demo:
        demo.wait_for_line("^Metrics +http://")
        demo.send_signal(signal.SIGINT)
        assert demo.wait(45) == 0


@pytest.mark.soak
def test_pipx_installs_the_command(tmp_path, isolated):
    pipx = tmp_path / "programs" / "pipx"
    pipx.write_text(f'#!/bin/sh\nexec {UV}x --quiet --python /usr/bin/python3 pipx "$@"\n')
    pipx.chmod(0o755)
    commands = lines_with(section(INSTALLATION, "pipx or uv"), "pipx install")
    run_checked("sh", "-euc", commands, cwd=tmp_path, **isolated)
    assert "cartesia-exporter 0" in run_installed(tmp_path / "bin" / "cartesia-exporter")


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("text", "title", "folder"),
    [
        (README, "Install", "venv(?=/|$)"),
        (INSTALLATION, "Virtual environment", "/opt/cartesia-exporter"),
    ],
)
def test_a_virtual_environment_has_the_command(tmp_path, text, title, folder):
    commands = section(text, title).replace("sudo ", "")
    commands = re.sub(folder, str(tmp_path / "venv"), commands, flags=re.MULTILINE)
    run_checked("sh", "-euc", commands)
    assert "cartesia-exporter 0" in run_installed(tmp_path / "venv" / "bin" / "cartesia-exporter")


def run_installed(command: Path) -> str:
    return subprocess.run(
        [*INSTALLED_ONLY, command, "--version"],
        env=environment(command.parent),
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_the_addresses_of_the_project_are_those_of_one_place():
    """The first release changes REPOSITORY_URL, and these tests name every other place."""
    urls = PYPROJECT["project"]["urls"]
    assert all(url.startswith(REPOSITORY_URL) for url in urls.values())
    addresses = re.findall(r"https://github\.com/\S*cartesia-exporter\b", README + INSTALLATION)
    assert {*addresses} == {REPOSITORY_URL}
