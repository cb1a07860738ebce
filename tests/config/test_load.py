"""Loading the configuration from a file and the environment."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import certifi
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from docs.generate.example import EXAMPLE, uncomment
from exporter.config import Config, ConfigError, load
from exporter.config.receivers import SlackReceiver, WebhookReceiver
from exporter.store.location import PostgresLocation
from tests.config.config_file import KEY, write_config

HERE = Path(__file__).parent
NAMED = "must be the value alone; remove the name and the = before it"
QUOTED = "must not be in quotes; remove them (docker --env-file takes them for part of the value)"
NO_ACCOUNTS = (
    "accounts: missing; set CARTESIA_API_KEY or CARTESIA_API_KEY_FILE, or list them in the file"
)
ADMIN_KEY = (
    "is an admin key (sk_car_admin_…), which works only on admin routes;"
    " use a standard sk_car_… key"
)
NO_PATH = "must be the path of a file; give a database as storage.url"
NO_HTTPS = "must use https; http is only for loopback addresses, or with allow_http: true"
BAD = sorted((HERE / "bad").glob("*.yaml"))
GOOD = sorted((HERE / "good").glob("*.yaml"))


def problems(path: Path | None, environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_an_invalid_file_is_refused_with_exactly_these_messages(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    found = problems(Path(path.name), {**KEY, "BAD_URL": "hunter2"})
    assert found == path.with_suffix(".txt").read_text().splitlines()
    assert not [text for text in found if "hunter2" in text]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_valid_file_is_loaded_and_its_representations_hide_secrets(path):
    config = load(path, KEY)
    texts = repr(config) + str(config) + config.model_dump_json() + str(config.model_dump())
    assert "hunter2" not in texts


def test_an_error_has_no_cause_that_could_contain_a_secret(tmp_path):
    """Tracebacks print causes and contexts too."""
    path = write_config(tmp_path, "accounts: [{api_key: sk_car_admin_hunter2, x: hunter2}]")
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_key_file_that_was_copied_from_an_env_file_is_refused(tmp_path):
    path = tmp_path / "key"
    for content, reason in (
        ("CARTESIA_API_KEY=sk_car_hunter2\nOTHER=x\n", "remove the name and the = before it"),
        ("Bearer sk_car_hunter2", 'remove "Bearer" or the header name before it'),
    ):
        path.write_text(content)
        [problem] = problems(None, {"CARTESIA_API_KEY_FILE": str(path)})
        expected = f"$CARTESIA_API_KEY_FILE: {path} must be the value alone; {reason}"
        assert problem == expected


DATABASE = "postgresql://agent:hunter2@db.example/state"


@pytest.mark.parametrize(
    ("storage", "environ"),
    [
        ({"url": DATABASE}, {}),
        ({"url_env": "STATE"}, {"STATE": DATABASE}),
        ({"url": DATABASE}, {"CARTESIA_EXPORTER_STORAGE_PATH": "/data/state.db"}),
        ({}, {"CARTESIA_EXPORTER_STORAGE_URL": DATABASE}),
        # Images set the path.
        ({}, {"CARTESIA_EXPORTER_STORAGE_URL": DATABASE, "CARTESIA_EXPORTER_STORAGE_PATH": "/a"}),
    ],
)
def test_the_state_can_be_in_a_database(tmp_path, storage, environ):
    config = load(write_config(tmp_path, json.dumps({"storage": storage})), {**KEY, **environ})
    location = config.storage.location
    assert isinstance(location, PostgresLocation)
    assert (location.url(), location.password, location.lease, location.pool) == (
        DATABASE,
        None,
        15,
        4,
    )
    assert "hunter2" not in f"{config!r} {location} {location!r}"
    assert not [each for each in config.warnings if "STORAGE" in each]


def test_a_path_in_the_file_excludes_the_variable_of_the_database(tmp_path):
    path = write_config(tmp_path, "storage: {path: a.db}")
    config = load(path, {**KEY, "CARTESIA_EXPORTER_STORAGE_URL": DATABASE})
    assert config.storage.location == Path("a.db")
    [warning] = [each for each in config.warnings if "STORAGE" in each]
    assert warning.startswith("$CARTESIA_EXPORTER_STORAGE_URL has no effect: the file sets")


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        ({"url": DATABASE, "path": "a.db"}, "url: is given together with path; keep one of them"),
        ({"url": DATABASE, "url_env": "X"}, "url_env: is given together with url; keep one of"),
        ({"url": "mysql://hunter2"}, "url: must be the URL of a database such as postgresql://"),
        ({"url": "postgresql+psycopg://hunter2"}, "url: must be the URL of a database such as"),
        ({"url": f"'{DATABASE}'"}, "url: must not be in quotes"),
        ({"url_file": "missing"}, "url_file: cannot read "),
        ({"password_file": "x"}, "password_file: needs storage.url: a file has no password"),
    ],
)
def test_an_unusable_database_is_refused(tmp_path, storage, expected):
    path = write_config(tmp_path, json.dumps({"storage": storage}))
    assert any(f"storage.{expected}" in each for each in problems(path, {**KEY}))


def test_a_database_needs_the_driver(tmp_path, monkeypatch):
    monkeypatch.setattr("exporter.config.models.find_spec", lambda _: None)
    path = write_config(tmp_path, json.dumps({"storage": {"url": DATABASE}}))
    [problem] = problems(path, {**KEY})
    assert problem.endswith("needs the extra: pip install 'cartesia-exporter[postgres]'")


def test_the_environment_alone_is_enough():
    config = load(None, {**KEY, "CARTESIA_BASE_URL": "", "CARTESIA_VERSION": ""})
    (account,) = config.accounts
    assert (account.name, account.base_url) == ("default", "https://api.cartesia.ai")
    assert account.api_version == "2026-03-01"
    assert account.secrets["api_key"]() == "sk_car_hunter2.hunter2"
    assert account.secrets["api_key"].source == "$CARTESIA_API_KEY"
    assert config.receivers == ()


def test_every_variable_is_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text("sk_car_hunter2\n")
    environ = {
        "CARTESIA_API_KEY": "",
        "CARTESIA_API_KEY_FILE": "key",
        "CARTESIA_BASE_URL": "http://localhost:8080",
        "CARTESIA_VERSION": "2027-01-01",
        "CARTESIA_EXPORTER_SLACK_URL": "https://hooks.slack.com/hunter2",
        "CARTESIA_EXPORTER_WEBHOOK_URL": "http://127.0.0.1/hunter2",
        "CARTESIA_EXPORTER_STORAGE_PATH": "/var/lib/state.db",
    }
    config = load(None, environ)
    (account,), (slack, webhook) = config.accounts, config.receivers
    assert isinstance(slack, SlackReceiver)
    assert isinstance(webhook, WebhookReceiver)
    assert account.secrets["api_key"].source == str(tmp_path / "key")
    assert (account.base_url, account.api_version) == ("http://localhost:8080", "2027-01-01")
    assert (slack.name, slack.secrets["url"]()) == ("slack", "https://hooks.slack.com/hunter2")
    assert (webhook.name, webhook.secrets["url"]()) == ("webhook", "http://127.0.0.1/hunter2")
    assert webhook.secrets["url"].source == "$CARTESIA_EXPORTER_WEBHOOK_URL"
    assert config.storage.path == Path("/var/lib/state.db")
    assert "hunter2" not in repr(config)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"CARTESIA_API_KEY": ""},
            [
                NO_ACCOUNTS,
            ],
        ),
        (
            {**KEY, "CARTESIA_API_KEY_FILE": "/nonexistent"},
            ["$CARTESIA_API_KEY_FILE: is set together with $CARTESIA_API_KEY; unset one of them"],
        ),
        ({"CARTESIA_API_KEY": " "}, ["$CARTESIA_API_KEY: is empty"]),
        (
            {
                "CARTESIA_API_KEY": '"sk_car_hunter2"',
                "CARTESIA_EXPORTER_SLACK_URL": "'https://hooks.slack.com/hunter2'",
                "CARTESIA_EXPORTER_WEBHOOK_URL": "URL=https://hooks.example/hunter2",
                "CARTESIA_EXPORTER_STORAGE_PATH": '"data/state.db"',
            },
            [
                f"$CARTESIA_API_KEY: {QUOTED}",
                f"$CARTESIA_EXPORTER_SLACK_URL: {QUOTED}",
                f"$CARTESIA_EXPORTER_WEBHOOK_URL: {NAMED}",
                "$CARTESIA_EXPORTER_STORAGE_PATH: must not be in quotes; remove them",
            ],
        ),
        (
            {"CARTESIA_API_KEY_FILE": "/nonexistent/key"},
            ["$CARTESIA_API_KEY_FILE: cannot read /nonexistent/key: no such file"],
        ),
        (
            {"CARTESIA_API_KEY_FILE": "sk_car_hunter2"},
            ["$CARTESIA_API_KEY_FILE: must be the path of a file, not a key or a URL"],
        ),
        (
            {
                "CARTESIA_API_KEY": "sk_car_admin_hunter2",
                "CARTESIA_BASE_URL": "https://user:hunter2@api.example",
                "CARTESIA_VERSION": "latest",
                "CARTESIA_EXPORTER_SLACK_URL": "http://hunter2.example",
                "CARTESIA_EXPORTER_WEBHOOK_URL": "hunter2",
                "CARTESIA_EXPORTER_STORAGE_PATH": "postgresql://hunter2",
            },
            [
                f"$CARTESIA_API_KEY: {ADMIN_KEY}",
                '$CARTESIA_VERSION: must be a date such as "2026-03-01"',
                "$CARTESIA_BASE_URL: must not contain a user name or a password",
                f"$CARTESIA_EXPORTER_SLACK_URL: {NO_HTTPS}",
                "$CARTESIA_EXPORTER_WEBHOOK_URL: must be an absolute URL such as https://host/path",
                f"$CARTESIA_EXPORTER_STORAGE_PATH: {NO_PATH}",
            ],
        ),
    ],
)
def test_an_error_of_a_variable_names_the_variable(environ, expected):
    assert problems(None, environ) == expected


def test_errors_of_file_and_environment_are_reported_together(tmp_path):
    path = write_config(tmp_path, "poll: {page_size: 0}")
    assert problems(path, {}) == [
        NO_ACCOUNTS,
        "line 1: poll.page_size: must be between 1 and 100",
    ]


def test_the_file_has_priority_over_the_environment(tmp_path):
    text = "accounts: [{api_key: a}]\nreceivers: []\nstorage: {path: here.db}"
    environ = {
        **KEY,
        "CARTESIA_API_KEY_FILE": "/nonexistent",
        "CARTESIA_BASE_URL": "nonsense",
        "CARTESIA_EXPORTER_SLACK_URL": "https://hooks.slack.com/hunter2",
        "CARTESIA_EXPORTER_STORAGE_PATH": "there.db",
    }
    config = load(write_config(tmp_path, text), environ)
    assert config.accounts[0].secrets["api_key"]() == "a"
    assert config.accounts[0].secrets["api_key"].source == "accounts[default].api_key"
    assert config.receivers == ()
    assert config.storage.path == Path("here.db")


def test_variables_are_used_for_keys_missing_in_the_file(tmp_path):
    environ = {**KEY, "CARTESIA_EXPORTER_STORAGE_PATH": "there.db"}
    config = load(write_config(tmp_path, "storage: {retention: 30d}\npoll:\n"), environ)
    assert config.storage.path == Path("there.db")
    assert config.storage.retention == 30 * 86400
    assert config.accounts[0].name == "default"


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "\ufeff"])
def test_an_empty_file_means_defaults(tmp_path, text):
    assert load(write_config(tmp_path, text), KEY) == load(None, KEY)


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path, monkeypatch):
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "key").write_text("sk_car_hunter2")
    (folder / "ca.pem").write_text(Path(certifi.where()).read_text())
    text = "accounts: [{api_key_file: key, ca_file: ca.pem}]\nstorage: {path: state.db}"
    write_config(folder, text)
    monkeypatch.chdir(tmp_path)
    config = load(Path("etc/config.yaml"), {})
    assert config.accounts[0].secrets["api_key"].source == str(folder / "key")
    assert config.accounts[0].ca_file == folder / "ca.pem"
    assert config.storage.path == Path("state.db")


def test_a_ca_file_without_certificates_is_refused(tmp_path):
    (tmp_path / "ca.pem").write_text("hunter2")
    path = write_config(tmp_path, "accounts: [{api_key: a, ca_file: ca.pem}]")
    pem = tmp_path / "ca.pem"
    assert problems(path, {}) == [
        f"line 1: accounts[0].ca_file: must contain PEM certificates; {pem} does not"
    ]


def test_a_date_without_quotes_is_text(tmp_path):
    path = write_config(tmp_path, "accounts: [{api_key: a, api_version: 2026-03-01}]")
    assert load(path, {}).accounts[0].api_version == "2026-03-01"


@pytest.mark.parametrize(
    ("create", "reason"),
    [
        (lambda path: None, "cannot be read: no such file"),
        (lambda path: path.mkdir(), "cannot be read: not a regular file"),
        (lambda path: path.write_text("#" * (1024 * 1024 + 1)), "cannot be read: larger than"),
        (lambda path: path.write_text("[" * 1_000), "line 1, column 51: is nested too deeply"),
        (lambda path: path.write_text("a: 1\n---\nb: 2"), "line 2, column 1: but found another"),
    ],
)
def test_an_error_of_reading_names_the_file(tmp_path, create, reason):
    path = tmp_path / "config.yaml"
    create(path)
    (text,) = problems(path, KEY)
    assert text.startswith(f"{path}: {reason}")


def test_merged_keys_may_be_overridden_at_any_depth(tmp_path):
    text = """
accounts:
  - &one {name: one, api_key: a}
  - &two {<<: *one, name: two}
receivers:
  - {name: w, type: webhook, url: https://x.example, format: template, template: {a: {b: *two}}}
poll: {<<: {page_size: 5}, page_size: 7}
"""
    config = load(write_config(tmp_path, text), {})
    assert [account.name for account in config.accounts] == ["one", "two"]
    assert config.poll.page_size == 7


SECTIONS = ["accounts", "poll", "metrics", "alerts", "receivers", "storage"]
YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["accounts", "name", "type", "url", "headers", "match", "api_key", "basic_auth"]
            )
            | st.text()
            | st.integers(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    key=st.sampled_from(SECTIONS),
    value=YAML | st.dictionaries(st.sampled_from(["type", "name", "path"]), YAML),
)
def test_any_document_is_accepted_or_refused(tmp_path, key, value):
    import yaml

    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({key: value}), encoding="utf-8", errors="replace")
    try:
        load(path, KEY)
    except ConfigError as error:
        assert error.problems  # noqa: PT017  # either outcome is fine


def test_the_example_is_valid_and_equals_the_defaults():
    config = load(EXAMPLE, KEY)
    assert config == load(None, KEY)


def keys_of(section: type[BaseModel]) -> Iterator[str]:
    """Yield every key of a section and of nested ones; a secret by its first form."""
    for name, field in section.model_fields.items():
        yield name.removesuffix("_file").removesuffix("_env")
        for nested in sections_in(field.annotation):
            yield from keys_of(nested)


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from sections_in(argument)


def test_the_example_contains_every_key():
    names = set(re.findall(r"(\w+):(?= |$)", EXAMPLE.read_text(), re.MULTILINE))
    in_example = {name.removesuffix("_file").removesuffix("_env") for name in names}
    keys = set(keys_of(Config))
    assert len(keys) > 40
    assert keys - in_example == set()


def test_the_example_is_valid_with_every_key_uncommented(tmp_path):
    for name, content in {
        "cartesia-api-key": "sk_car_hunter2",
        "slack-url": "https://hooks.slack.com/services/hunter2",
        "apprise-url": "mailto://user:hunter2@example.com",
        "heartbeat-url": "https://hc.example/hunter2",
        "webhook-signing-secret": "whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg==",
        "webhook-token": "hunter2",
        "chat-url": "https://chat.example/hunter2",
        "chat-password": "hunter2",
        "chat-room": "hunter2",
        "storage-url": "postgresql://agent:hunter2@db.example/cartesia",
        "storage-password": "hunter2",
        "ca.pem": Path(certifi.where()).read_text(),
    }.items():
        (tmp_path / name).write_text(content)
    text = uncomment(EXAMPLE.read_text()).replace("/run/secrets", str(tmp_path))
    text = re.sub("  path: data/state.db .*\n", "", text)  # excludes url
    config = load(write_config(tmp_path, text), KEY)
    assert [account.name for account in config.accounts] == ["default", "research"]
    assert [receiver.name for receiver in config.receivers] == [
        "team-slack",
        "ops",
        "chat",
        "alertmanager",
        "mail",
    ]
