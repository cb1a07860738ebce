"""`check-config` and `--config.check` check the web configuration too."""

import pytest
from click.testing import CliRunner

from exporter.cli.commands import main
from tests.web.authenticated_server import WebConfigFixture, hash_of

GOOD = "accounts: [{name: a, api_key: sk_car_x}]\n"
COMMANDS = (["check-config"], ["run", "--config.check"], ["--config.check"])


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return path


def invoke(command, config, web):
    flags = [f"--config.file={config}", f"--web.config.file={web}"]
    return CliRunner().invoke(main, [*command, *flags], prog_name="cartesia-exporter")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_valid_file_is_reported_with_keys_without_effect(tmp_path, config, command):
    file = WebConfigFixture(tmp_path)
    file.write(
        tls_server_config=file.issue(),
        http_server_config={"http2": False},
        basic_auth_users={"a": hash_of("x")},
    )
    result = invoke(command, config, file.path)
    assert result.exit_code == 0
    assert result.stdout == (
        "The configuration is valid: 1 accounts, 0 receivers.\n"
        "The web configuration is valid: TLS, 1 users.\n"
    )
    assert result.stderr == (
        "warning: nobody is notified when a fine-tune fails: there are no receivers\n"
        "warning: http_server_config.http2 has no effect: only HTTP/1.1 is served\n"
    )
    file.write()
    assert "valid: plain HTTP, 0 users.\n" in invoke(command, config, file.path).stdout


@pytest.mark.parametrize("command", [*COMMANDS, ["run"]])
def test_the_mistakes_of_both_files_are_reported_at_once(tmp_path, config, command):
    file = WebConfigFixture(
        tmp_path, rate_limit={"interval": "5"}, basic_auth_users={"a": "hunter2"}
    )
    result = invoke(command, config, file.path)
    assert result.exit_code == 2
    web = (
        f"the web configuration in {file.path} cannot be used:\n"
        "  line 1: basic_auth_users.a: must be a bcrypt hash,"
        " as `htpasswd -nBC 10 USER` prints it\n"
        "  line 1: rate_limit.interval: must be a duration such as 100ms, 1.5s or 1m30s\n"
    )
    assert result.stderr == f"cartesia-exporter: {web}"
    config.write_text("pol: 1\n" + GOOD, encoding="utf-8")
    both = invoke(command, config, file.path)
    assert both.exit_code == 2
    assert f'line 1: pol: unknown key; did you mean "poll"?\n{web}' in both.stderr
    assert "hunter2" not in both.output


def test_a_missing_file_is_named(tmp_path, config):
    result = invoke(["run"], config, tmp_path / "none.yml")
    assert result.exit_code == 2
    assert result.stderr.endswith(f"\n  {tmp_path}/none.yml: cannot be read: no such file\n")
