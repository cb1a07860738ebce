"""The systemd units pass systemd's own checks, of syntax and of exposure."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from exporter.core.health import LATE_SECONDS
from tests.deploy.tools import DEPLOY, parse_flags, run_tool

UNITS = DEPLOY / "systemd"
SERVICE = (UNITS / "cartesia-exporter.service").read_text(encoding="utf-8")
MAX_EXPOSURE = 15
"""Ten times the allowed result of `systemd-analyze security`: 1.5 of 10; measured was 1.2."""

ALLOWED_FINDINGS = {
    "DeviceAllow",  # /dev/null and its like, as DevicePolicy=closed leaves them
    "IPAddressDeny",
    "PrivateMounts",
    "PrivateNetwork",
    "ProcSubset",
    "RestrictAddressFamilies_AF_INET_INET6",
    "RestrictAddressFamilies_AF_UNIX",
    "RootDirectoryOrRootImage",
    "SystemCallFilter_resources",  # setrlimit, for the memory of the process that runs Apprise
}
"""Allowed findings of `systemd-analyze security`: the agent needs them, or they have no effect."""


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Copies of the units with this environment's command: systemd checks that it exists."""
    here = str(Path(sys.executable).parent)
    for unit in UNITS.iterdir():
        text = unit.read_text(encoding="utf-8").replace("/opt/cartesia-exporter/bin", here)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    return sorted(tmp_path.iterdir())


def test_systemd_accepts_every_line_of_the_units(units):
    assert [unit.suffix for unit in units] == [".service", ".socket"]
    found = run_tool("systemd-analyze", "verify", *units, package="systemd")
    # An unknown key is only a line on standard error.
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_the_exposure_of_the_service_is_below_the_limit(units):
    threshold = f"--threshold={MAX_EXPOSURE}"
    command = ("security", "--offline=true", threshold, "--no-pager", units[0])
    found = run_tool("systemd-analyze", *command, package="systemd")
    assert found.returncode == 0, found.stdout + found.stderr


def test_there_are_no_other_findings_than_the_allowed_ones(units):
    """The limit alone would not notice one missing directive."""
    command = ("security", "--offline=true", "--threshold=100", "--no-pager", "--json=short")
    found = json.loads(run_tool("systemd-analyze", *command, units[0], package="systemd").stdout)
    assert len(found) > 70
    findings = {each["json_field"] for each in found if float(each["exposure"] or 0) > 0}
    assert findings <= ALLOWED_FINDINGS


def test_the_service_has_the_directives_for_reload_restart_and_folder():
    for line in (
        "StartLimitIntervalSec=0",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "EnvironmentFile=-/etc/default/cartesia-exporter",
        "WorkingDirectory=%S/cartesia-exporter",
        "StateDirectoryMode=0700",
    ):
        assert f"\n{line}\n" in SERVICE


def test_the_command_lines_of_the_units_are_valid():
    (line,) = re.findall(r"^ExecStart=\S+ run (.+)$", SERVICE, re.MULTILINE)
    socket = (UNITS / "cartesia-exporter.socket").read_text(encoding="utf-8")
    examples = re.findall(r"^#.* ARGS=(\S+)", SERVICE + socket, re.MULTILINE)
    assert line == "$ARGS"
    assert len(examples) == 2
    for flags in ["", *examples]:
        parse_flags("run", *shlex.split(flags))


def test_the_key_is_a_credential_and_the_state_in_the_state_directory():
    variables = re.findall(r"^Environment=(CARTESIA\w+)=(.*)$", SERVICE, re.MULTILINE)
    assert dict(variables) == {
        "CARTESIA_API_KEY_FILE": "%d/api-key",
        "CARTESIA_EXPORTER_STORAGE_PATH": "%S/cartesia-exporter/state.db",
    }
    assert "\nLoadCredential=api-key:" in SERVICE
    assert "\nStateDirectory=cartesia-exporter\n" in SERVICE


def test_systemd_waits_for_readiness_and_watches_the_agent():
    """The agent supports both; by default systemd uses neither."""
    (seconds,) = re.findall(r"^WatchdogSec=(\d+)min$", SERVICE, re.MULTILINE)
    assert "\nType=notify\n" in SERVICE
    assert "\nNotifyAccess=main\n" in SERVICE
    assert int(seconds) * 60 > LATE_SECONDS
    assert "\nRestart=on-failure\n" in SERVICE


def test_the_stop_timeout_is_longer_than_the_agents_own():
    """The agent ends within 10 s of SIGTERM; exit status 2, a configuration error, is final."""
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)s$", SERVICE, re.MULTILINE)
    assert int(seconds) > 10
    assert "\nRestartPreventExitStatus=2\n" in SERVICE
