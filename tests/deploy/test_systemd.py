"""systemd itself finds nothing wrong with the units, and little that they leave open."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from exporter.core.health import LATE_SECONDS
from tests.deploy.tools import DEPLOY, judged, understood

UNITS = DEPLOY / "systemd"
SERVICE = (UNITS / "cartesia-exporter.service").read_text(encoding="utf-8")
MOST_EXPOSED = 15
"""Ten times what `systemd-analyze security` may find: 1.5 of 10, where it found 1.2."""

LEFT_OPEN = {
    "DeviceAllow",  # /dev/null and its like, as DevicePolicy=closed leaves them
    "IPAddressDeny",
    "PrivateMounts",
    "PrivateNetwork",
    "ProcSubset",
    "RestrictAddressFamilies_AF_INET_INET6",
    "RestrictAddressFamilies_AF_UNIX",
    "RootDirectoryOrRootImage",
}
"""What `systemd-analyze security` may complain of: the agent needs it, or it changes nothing."""


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Copies that start the command of this environment: systemd looks for the program."""
    here = str(Path(sys.executable).parent)
    for unit in UNITS.iterdir():
        text = unit.read_text(encoding="utf-8").replace("/opt/cartesia-exporter/bin", here)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    return sorted(tmp_path.iterdir())


def test_systemd_knows_every_line_of_the_units(units):
    assert [unit.suffix for unit in units] == [".service", ".socket"]
    found = judged("systemd-analyze", "verify", *units, package="systemd")
    # An unknown key is a line on standard error, and no failure.
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_the_service_is_less_exposed_than_the_bound(units):
    threshold = f"--threshold={MOST_EXPOSED}"
    command = ("security", "--offline=true", threshold, "--no-pager", units[0])
    found = judged("systemd-analyze", *command, package="systemd")
    assert found.returncode == 0, found.stdout + found.stderr


def test_nothing_else_is_left_open(units):
    """One line less would be too little for the bound."""
    command = ("security", "--offline=true", "--threshold=100", "--no-pager", "--json=short")
    found = json.loads(judged("systemd-analyze", *command, units[0], package="systemd").stdout)
    assert len(found) > 70
    complained_of = {each["json_field"] for each in found if float(each["exposure"] or 0) > 0}
    assert complained_of <= LEFT_OPEN


def test_it_is_reloaded_by_its_signal_and_started_again_for_ever_in_its_own_folder():
    for line in (
        "StartLimitIntervalSec=0",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "EnvironmentFile=-/etc/default/cartesia-exporter",
        "WorkingDirectory=%S/cartesia-exporter",
        "StateDirectoryMode=0700",
    ):
        assert f"\n{line}\n" in SERVICE


def test_the_command_line_of_the_service_is_one_of_ours():
    (line,) = re.findall(r"^ExecStart=\S+ run (.+)$", SERVICE, re.MULTILINE)
    socket = (UNITS / "cartesia-exporter.socket").read_text(encoding="utf-8")
    examples = re.findall(r"^#.* ARGS=(\S+)", SERVICE + socket, re.MULTILINE)
    assert line == "$ARGS"
    assert len(examples) == 2
    for flags in ["", *examples]:
        understood("run", *shlex.split(flags))


def test_the_key_is_a_credential_and_the_state_where_systemd_keeps_it():
    variables = re.findall(r"^Environment=(CARTESIA\w+)=(.*)$", SERVICE, re.MULTILINE)
    assert dict(variables) == {
        "CARTESIA_API_KEY_FILE": "%d/api-key",
        "CARTESIA_EXPORTER_STORAGE_PATH": "%S/cartesia-exporter/state.db",
    }
    assert "\nLoadCredential=api-key:" in SERVICE
    assert "\nStateDirectory=cartesia-exporter\n" in SERVICE


def test_systemd_waits_for_the_start_and_ends_an_agent_that_hangs():
    """It tells ready, and feeds the watchdog; by default systemd asks for neither."""
    (seconds,) = re.findall(r"^WatchdogSec=(\d+)min$", SERVICE, re.MULTILINE)
    assert "\nType=notify\n" in SERVICE
    assert "\nNotifyAccess=main\n" in SERVICE
    assert int(seconds) * 60 > LATE_SECONDS
    assert "\nRestart=on-failure\n" in SERVICE


def test_the_service_ends_it_later_than_it_ends_by_itself():
    """Ten seconds after SIGTERM it has ended; and configuration errors, 2, are not tried again."""
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)s$", SERVICE, re.MULTILINE)
    assert int(seconds) > 10
    assert "\nRestartPreventExitStatus=2\n" in SERVICE
