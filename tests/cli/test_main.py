"""The command line: help, usage errors, exit statuses."""

import subprocess
import sys
from importlib.metadata import version

import click
import pytest
from click.testing import CliRunner

from docs.generate.documents import FLAGS
from exporter.cli.commands import main
from exporter.cli.options import Address, Duration
from exporter.cli.version import version_text
from tests.process.agent_process import INSTALLED, environment, run

COMMANDS = (
    *("run", "check-config", "list", "send-test", "health", "simulate", "demo"),
    *("deliveries", "events"),
)
WITHIN = (
    *(f"deliveries {name}" for name in ("list", "show", "retry", "discard", "reassign")),
    "events list",
)

GOOD = """
accounts: [{name: a, api_key: sk_car_x}]
receivers: [{name: ops, type: webhook, url: "https://example.com/x"}]
"""
BAD = """
accounts: [{name: "not a name", api_key: sk_car_x, base_url: "ftp://x"}]
poll: {interval: 5, no_such_key: 1}
"""


def invoke(*arguments, **env):
    return CliRunner(env=env).invoke(main, arguments, prog_name="cartesia-exporter")


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return f"--config.file={path}"


@pytest.fixture
def bad(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(BAD, encoding="utf-8")
    return f"--config.file={path}"


def test_every_command_has_help():
    for command in ("", *COMMANDS, *WITHIN):
        for flag in ("--help", "-h"):
            result = invoke(*command.split(), flag)
            assert result.exit_code == 0, command
            usage = f"Usage: cartesia-exporter{' ' * bool(command)}{command}"
            assert result.output.startswith(usage), command


def test_the_help_of_the_group_names_every_command():
    output = invoke("--help").output
    assert [name for name in COMMANDS if f"  {name} " not in output] == []


def test_help_imports_no_heavy_module():
    """Counts modules instead of time: `--help` must answer in less than half a second."""
    code = f"""
import sys
from exporter.cli.commands import main
from exporter.cli.version import version_text
for words in {["", *COMMANDS, *WITHIN]!r}:
    try:
        main([*words.split(), "--help"])
    except SystemExit as end:
        assert end.code == 0
heavy = {{"pydantic", "sqlalchemy", "httpx", "prometheus_client", "uvicorn", "starlette", "rich",
         "structlog", "yaml"}}
print("loaded:", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.endswith("loaded: []\n")


def test_the_version_is_that_of_the_distribution(tmp_path):
    done = run(tmp_path, "--version", command=INSTALLED)
    expected = version_text(version("cartesia-exporter"))
    assert done.stdout == f"cartesia-exporter {expected}\n"
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rum"], "No such command 'rum'"),
        (["--no-such-flag"], "No such option '--no-such-flag'"),
        (["run", "--no-such-flag"], "No such option '--no-such-flag'"),
        (["run", "extra"], "unexpected extra argument"),
        (["--log.level=loud"], "'loud' is not one of"),
        (["--log.format=xml"], "'xml' is not one of"),
        (["--web.listen-address=10060"], "write :10060, 127.0.0.1:10060 or [::1]:10060"),
        (
            ["--web.systemd-socket", "--web.listen-address=:10060"],
            "--web.systemd-socket and --web.listen-address exclude each other",
        ),
        (["list", "--output=xml"], "'xml' is not one of"),
        (["send-test"], "Missing argument 'RECEIVER'"),
        (["send-test", "ops", "--sample=none"], "'none' is not one of"),
        (["simulate", "--latency=50"], "must be a duration"),
        (["simulate", "--fail-rate=2"], "not in the range"),
        (["simulate", "--fail-rate=nan"], "'nan' is not a number"),
        (["simulate", "--churn=inf"], "'inf' is not a number"),
        (["simulate", "--rate-limit=1e999"], "'1e999' is not a number"),
    ],
)
def test_a_usage_error_ends_with_2_and_names_the_mistake(arguments, words):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert words in result.output


@pytest.mark.parametrize(
    "flag",
    [
        "--web.telemetry-path=metrics",
        "--web.telemetry-path=/",
        "--web.telemetry-path=/-/healthy",
        "--web.telemetry-path=/config",
        "--web.telemetry-path=/fine-tunes",
        "--web.telemetry-path=/fine-tunes/default/a",
        "--web.telemetry-path=/notifications",
        "--web.telemetry-path=/static/script.js",
        "--web.telemetry-path=/api",
        "--web.telemetry-path=/api/v1/status",
        "--web.telemetry-path=/{name}",
        "--web.telemetry-path=/metrics/",
        "--web.external-url=agent.example.com",
        "--web.external-url=ftp://example.com",
        "--web.external-url=http://[",
        "--web.external-url=https://user:password@example.com",
    ],
)
def test_an_invalid_path_or_url_is_refused_at_start(good, flag):
    result = invoke(good, flag)
    assert result.exit_code == 2
    assert flag.partition("=")[0] in result.output


def test_a_valid_configuration_is_reported(good):
    for arguments in (
        ["check-config", good],
        [good, "--config.check"],
        ["run", good, "--config.check"],
    ):
        result = invoke(*arguments)
        assert result.exit_code == 0
        assert result.output == "The configuration is valid: 1 accounts, 1 receivers.\n"


def test_all_mistakes_are_reported_at_once_with_their_paths(bad):
    for arguments in (["check-config", bad], [bad, "--config.check"], [bad], ["list", bad]):
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert "bad.yaml cannot be used:" in result.output
        for place in (
            "line 2: accounts[0].name",
            "line 2: accounts[0].base_url",
            "line 3: poll.interval",
            "line 3: poll.no_such_key",
        ):
            assert f"\n  {place}: " in result.output


def test_a_missing_file_is_named(tmp_path):
    result = invoke("check-config", f"--config.file={tmp_path / 'none.yaml'}")
    assert result.exit_code == 2
    assert "none.yaml" in result.output
    assert "no such file" in result.output


def test_addresses():
    for text, address in {
        ":10060": ("", 10060),
        "127.0.0.1:0": ("127.0.0.1", 0),
        "localhost:65535": ("localhost", 65535),
        "[::1]:80": ("::1", 80),
        "[::]:80": ("::", 80),
    }.items():
        assert Address().convert(text, None, None) == address, text


def test_invalid_addresses():
    for text in (
        *("", "80", "a", ":", "a:", "a:-1", ":65536", "::1:80", "[::1:80", "::1]:80", "[a]:80"),
        *("a b:1", "http://a:80", "[[::1]]:80"),
    ):
        try:
            address = Address().convert(text, None, None)
        except click.BadParameter:
            continue
        pytest.fail(f"{text!r} is accepted as {address}")


def test_durations():
    assert Duration().convert("1m30s", None, None) == 90
    assert Duration().convert(2.5, None, None) == 2.5


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("words", "suggested"),
    [
        (["send"], "send-test"),
        (["--config"], "--config.file"),
        (["list", "--st"], "--status"),
        (["send-test", "--sample", "di"], "digest"),
    ],
)
def test_the_documented_completion_works_in_bash(tmp_path, words, suggested):
    line = next(
        text
        for text in FLAGS.read_text(encoding="utf-8").splitlines()
        if "bash_source cartesia-exporter" in text
    )
    script = f"""{line}
COMP_WORDS=(cartesia-exporter {" ".join(words)}); COMP_CWORD={len(words)}
_cartesia_exporter_completion cartesia-exporter
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    (tmp_path / "cartesia-exporter").symlink_to(INSTALLED[0])
    env = environment(tmp_path)
    env["PATH"] = f"{tmp_path}:{env['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert suggested in done.stdout.splitlines()
    assert done.stderr == ""
