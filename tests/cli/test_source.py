"""`events list`, `deliveries list`, `list --stored`: by state, configuration and running agent."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner, Result

from exporter.cli import agent_api
from exporter.cli.commands import main
from tests.fakes.answers import answer, as_json, drips, head, redirect, silence
from tests.fakes.server import Server
from tests.process.agent_process import Agent, until, url_of
from tests.process.fake_api import agent_config, fake_api, webhook
from tests.web.authenticated_server import PASSWORD, USER, WebConfigFixture, hash_of

LISTS = (("events", "list"), ("deliveries", "list", "--state=all"), ("list", "--stored"))


def invoke(*arguments: str, **env: str) -> Result:
    """Run a command without any variable of the configuration."""
    done = CliRunner(env={"CARTESIA_API_KEY": None, **env}).invoke(main, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def rows(*arguments: str) -> list[dict[str, Any]]:
    done = invoke(*arguments, "--output=json")
    assert (done.exit_code, done.stderr) == (0, "")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@dataclass(frozen=True)
class Running:
    """An agent that runs with TLS and a user, and how to reach it."""

    agent: Agent
    folder: Path
    url: str

    @property
    def access(self) -> tuple[str, ...]:
        return (
            f"--url={self.url}",
            f"--ca-file={self.folder / 'ca.pem'}",
            f"--username={USER}",
            f"--password-file={self.folder / 'password'}",
        )


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agent")
    web = WebConfigFixture(folder, basic_auth_users={USER: hash_of(PASSWORD)})
    web.write(tls_server_config=web.issue(), basic_auth_users={USER: hash_of(PASSWORD)})
    web.ca.cert_pem.write_to_path(folder / "ca.pem")
    (folder / "password").write_text(f"{PASSWORD}\n", encoding="utf-8")
    with fake_api() as (api, inbox):
        agent = Agent(folder, **agent_config(api, webhook(inbox)))
        with agent.process(f"--web.config.file={web.path}") as process:
            process.wait_for_line("baseline taken")
            for number in range(3):
                api.world.add(name=f"Voice {number}", status="failed")
            process.wait_for_line("msg=delivered|delivered .*receiver=ops")
            found = Running(agent, folder, url_of(process))
            flag = f"--storage.path={agent.state}"
            until(lambda: len(rows("deliveries", "list", "--state=delivered", flag)) == 3)
            yield found


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("command", LISTS)
def test_state_configuration_and_agent_say_the_same(running, command):
    by_path = rows(*command, f"--storage.path={running.agent.state}")
    names = sorted(each["name"] for each in by_path if each["name"])
    assert names == ["Voice 0", "Voice 1", "Voice 2"]
    assert rows(*command, f"--config.file={running.agent.file}") == by_path
    assert rows(*command, *running.access) == by_path
    newest = invoke(*command, *running.access, "--limit=2", "--output=json")
    assert json.loads(newest.stdout) == by_path[-2:]
    assert newest.stderr == "older records are not shown, see --limit\n"


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("source_name", ["state", "agent"])
@pytest.mark.parametrize("kind", ["account", "receiver"])
def test_an_unknown_name_is_reported_with_the_known_ones(running, source_name, kind):
    state = (f"--storage.path={running.agent.state}",)
    flags = state if source_name == "state" else running.access
    done = invoke("events", "list", f"--{kind}=mian", *flags)
    known = {"account": "main", "receiver": "ops"}[kind]
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.endswith(f"there is no {kind} mian; {kind}s: {known}\n")


@pytest.mark.usefixtures("unmeasured")
def test_refusals_of_a_running_agent_are_clear(running, tmp_path):
    url, ca = running.access[:2]
    (tmp_path / "wrong").write_text("nope", encoding="utf-8")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    (tmp_path / "empty.pem").write_text("", encoding="utf-8")
    user = f"--username={USER}"
    for flags, status, words in (
        ([url, ca], 1, "refused the user or the password, see --username and --password-file"),
        ([url, ca, user, f"--password-file={tmp_path / 'wrong'}"], 1, "refused the user"),
        ([url, ca, user, f"--password-file={tmp_path / 'none'}"], 2, "none: no such file"),
        ([url, ca, user], 2, "--username and --password-file need each other"),
        ([url, f"--ca-file={tmp_path / 'other.pem'}"], 1, "the certificate of"),
        ([url], 1, "the certificate of"),
        ([url, f"--ca-file={tmp_path / 'empty.pem'}"], 2, "it contains no certificate"),
        ([url, f"--ca-file={tmp_path / 'none.pem'}"], 2, "No such file"),
        (
            [f"{running.access[0]}/metrics", *running.access[1:]],
            1,
            "not the URL of a cartesia-exporter",
        ),
    ):
        done = invoke("events", "list", *flags)
        assert (done.exit_code, done.stdout) == (status, ""), flags
        assert words in done.stderr, flags


def page(*records: object, has_more: bool = False) -> dict[str, object]:
    return {"data": records, "has_more": has_more, "as_of": None, "complete": False}


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (answer(404, b"not found"), "answered 404: this is not the URL of a cartesia-exporter"),
        (redirect("http://127.0.0.1:9/"), "answered 307: this is not the URL"),
        (as_json({"message": "busy\x1b[2J\nnow"}, 503), "answered 503: busy[2J now"),
        (answer(200, b"<html>"), "not valid for this version of cartesia-exporter"),
        (as_json({"data": 1}), "not valid for this version of cartesia-exporter"),
        (answer(200, b"[" * 3000), "longer than 0 MiB"),
        (silence, "no complete answer from 127.0.0.1"),
        (drips(head(200, content_length=100)), "no complete answer from 127.0.0.1"),
    ],
)
def test_an_answer_of_something_else_is_bounded_and_reported(monkeypatch, script, words):
    monkeypatch.setattr(agent_api, "_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(agent_api, "_LONGEST_ANSWER", 2000)
    with Server(script) as server:
        done = invoke("events", "list", f"--url={server.base_url}")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_a_list_that_never_advances_ends():
    with Server(as_json(page(has_more=True))) as server:
        done = invoke("events", "list", f"--url={server.base_url}")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "0 events")


def test_no_proxy_is_used_and_a_refused_connection_is_named():
    with Server(as_json(page())) as server:
        url = f"--url={server.base_url}"
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
        assert invoke("events", "list", url, NO_PROXY="", **proxies).exit_code == 0
    done = invoke("events", "list", url)
    assert done.exit_code == 1
    assert "no connection to 127.0.0.1" in done.stderr
    assert "Connection refused" in done.stderr


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("command", LISTS)
def test_no_secret_of_the_configuration_is_read(running, tmp_path, command):
    config = {
        "storage": {"path": str(running.agent.state)},
        "accounts": [
            {"name": "main", "api_key_file": str(tmp_path / "none"), "ca_file": "none.pem"},
            {"name": "second", "api_key_env": "NOWHERE_SET"},
        ],
        "receivers": [
            {"name": "ops", "type": "webhook", "url_file": "gone", "secret_env": "UNSET_TOO"},
            {"name": "chat", "type": "slack", "url_env": "NOT_SET"},
        ],
    }
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    done = invoke(*command, f"--config.file={path}")
    assert done.exit_code == 0, done.stderr
    done = invoke("deliveries", "retry", "--all", f"--config.file={path}")
    assert "no delivery to retry" in done.stderr
    assert invoke("check-config", f"--config.file={path}").exit_code == 2, "the secrets do miss"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url=http://127.0.0.1:1", "--storage.path=x"], "exclude each other"),
        (["--url=http://127.0.0.1:1", "--config.file=x"], "exclude each other"),
        (["--storage.path=x", "--config.file=x"], "exclude each other"),
        (["--storage.path=x", "--ca-file=x"], "--ca-file needs --url"),
        (["--storage.path=x", "--username=x"], "--username needs --url"),
        (["--storage.path=x", "--since=yesterday"], "must be a duration"),
        (["--storage.path=x", "--type=failures"], "'failures' is not one of"),
    ],
)
def test_options_that_do_not_fit_end_with_2(arguments, words):
    done = invoke("events", "list", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
