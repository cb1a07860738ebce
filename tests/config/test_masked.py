"""The masked configuration: complete, readable and without secrets."""

import re
from collections.abc import Iterator
from typing import Any, get_args

import certifi
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from docs.generate.example import EXAMPLE
from exporter.config import Config, load
from exporter.config.masked import MASK, render_masked, to_yaml
from exporter.config.receivers import AppriseReceiver, WebhookReceiver
from exporter.config.secrets import ConfigContext
from exporter.config.section import Section, items_of

KEY = {"CARTESIA_API_KEY": "sk_car_hunter2"}
SECRET = "c4nary"
SIGNING = "whsec_YzRuYXJ5YzRuYXJ5YzRuYXJ5YzRuYXJ5"
SIGNED = SIGNING.removeprefix("whsec_")
PROXY = f"http://user:{SECRET}@proxy.example:3128"
URL = f"https://{SECRET}.example/{SECRET}?token={SECRET}"
WEBHOOK = {"name": "bearer", "type": "webhook", "url": URL, "proxy_url": PROXY}


def config_with_secrets(secret: str = SECRET) -> dict[str, Any]:
    """Return a configuration with a secret in the file wherever one is possible."""
    body = {
        "routing_key": secret,
        "list": [secret, {"n": 12345, "text": f"{secret} {{{{ title }}}}"}],
    }
    return {
        "accounts": [{"api_key": f"sk_car_{secret}", "proxy_url": PROXY}],
        "receivers": [
            {"name": "s", "type": "slack", "url": URL, "proxy_url": PROXY},
            {**WEBHOOK, "secret": SIGNING, "bearer_token": secret, "headers": {"X-Key": secret}},
            {
                **WEBHOOK,
                "name": "basic",
                "basic_auth": {"username": "agent", "password": secret},
                "format": "template",
                "template": body,
            },
            {
                "name": "am",
                "type": "alertmanager",
                "urls": [f"http://agent:{secret}@am-{n}:9093/{secret}" for n in range(2)],
                "proxy_url": PROXY,
            },
            {"name": "mail", "type": "apprise", "url": f"mailto://user:{secret}@example.com"},
        ],
        "heartbeat_url": URL,
        "storage": {"url": f"postgresql://agent:{secret}@db.example/x", "password": secret},
    }


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    """Yield every section that a configuration can have, by its types."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
        for field in annotation.model_fields.values():
            yield from sections_in(field.annotation)
    for argument in get_args(annotation):
        yield from sections_in(argument)


SECTIONS = sorted(set(sections_in(Config)), key=lambda section: section.__name__)


def types_of(annotation: Any) -> set[Any]:
    arguments = get_args(annotation)
    return {annotation}.union(*map(types_of, arguments))


def keys_of_type(wanted: type) -> set[tuple[type[Section], str]]:
    return {
        (section, name)
        for section in SECTIONS
        for name, field in section.model_fields.items()
        if wanted in types_of(field.annotation)
    }


def given_secrets(section: Section) -> Iterator[tuple[type[Section], str]]:
    for name in type(section).model_fields:
        for _, item in items_of(getattr(section, name)):
            if isinstance(item, SecretStr):
                yield type(section), name
            if isinstance(item, Section):
                yield from given_secrets(item)


def test_every_secret_of_every_section_is_masked():
    config = Config.model_validate(config_with_secrets())
    refused = (AppriseReceiver, "proxy_url")
    assert {*given_secrets(config), refused} == keys_of_type(SecretStr)
    text = render_masked(config)
    assert SECRET not in text
    assert SIGNED not in text
    assert "12345" not in text


def test_the_inline_form_of_every_secret_has_a_secret_type():
    for section in SECTIONS:
        for key in section.SECRETS:
            assert section.model_fields[key.inline].annotation == SecretStr | None, section


def test_values_without_a_type_are_in_templates_only():
    """A template masks its values; another key of type Any would be written."""
    assert keys_of_type(Any) == {(WebhookReceiver, "template")}


def test_only_known_keys_with_the_name_of_a_secret_are_plain_text():
    forms = {
        (section, form)
        for section in SECTIONS
        for key in section.SECRETS
        for form in (key.file, key.env)
    }
    secret_names = re.compile("key|token|secret|password|credential|auth|url|header|text")
    plain = {
        (section.__name__, name)
        for section, name in keys_of_type(str) - forms - keys_of_type(SecretStr)
        if secret_names.search(name)
    }
    assert plain == {
        ("Account", "base_url"),
        ("Alerts", "playground_url"),
        ("Alerts", "grafana_url"),
        ("SlackReceiver", "text"),
        ("WebhookReceiver", "headers"),
        ("WebhookReceiver", "template_secrets"),
    }


@pytest.mark.parametrize("form", ["file", "env"])
def test_paths_and_variables_of_secrets_are_not_masked(tmp_path, form):
    texts = {"a": f"sk_car_{SECRET}", "u": URL, "s": SIGNING, "p": SECRET}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    webhook = {"type": "webhook", f"url_{form}": "u"}
    login = {"username": "agent", f"password_{form}": "p"}
    raw = {
        "accounts": [{f"api_key_{form}": "a"}],
        "receivers": [
            {"name": "s", "type": "slack", f"url_{form}": "u"},
            {**webhook, "name": "signed", f"secret_{form}": "s", f"bearer_token_{form}": "p"},
            {**webhook, "name": "basic", "headers": {"X-Key": {form: "p"}}, "basic_auth": login},
            {
                **webhook,
                "name": "filled",
                "template_secrets": {"key": {form: "p"}},
            },
        ],
        f"heartbeat_url_{form}": "u",
    }
    text = render_masked(Config.model_validate(raw, context=ConfigContext(tmp_path, texts)))
    assert SECRET not in text
    assert SIGNED not in text
    assert MASK not in text
    assert select_keys(yaml.safe_load(text), raw) == raw


def select_keys(document: Any, wanted: Any) -> Any:
    """Return a document with only the keys of another one."""
    if isinstance(wanted, dict):
        return {key: select_keys(document[key], value) for key, value in wanted.items()}
    if isinstance(wanted, list):
        return [select_keys(*pair) for pair in zip(document, wanted, strict=True)]
    return document


def keys_in(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from keys_in(item, f"{path}.{key}")
    else:
        yield path


def test_every_given_key_is_in_the_document():
    document = yaml.safe_load(render_masked(Config.model_validate(config_with_secrets())))
    assert set(keys_in(config_with_secrets())) - set(keys_in(document)) == set()


def test_the_defaults_equal_the_example_and_can_be_loaded(tmp_path):
    """Only with defaults: with a secret in a file, that file would have to exist."""
    text = render_masked(load(None, KEY))
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert load(path, KEY) == load(None, KEY)
    example = yaml.safe_load(EXAMPLE.read_text())
    assert select_keys(yaml.safe_load(text), example) == example
    assert render_masked(load(EXAMPLE, KEY)) == text


def test_the_document_has_the_form_of_a_configuration_file():
    text = render_masked(Config.model_validate(config_with_secrets()))
    for line in (
        "accounts:\n  - name: default\n    api_key: <secret>\n",
        "  interval: 1m\n  timeout: 50s\n",
        "  requests_per_second: 0\n",
        "  labels: [model_id]\n",
        "  stuck_after: 6h\n",
        "  - name: am\n    type: alertmanager\n",
        "    urls: [<secret>, <secret>]\n",
        "      X-Key: <secret>\n",
        "      routing_key: <secret>\n",
        "    hold: 1h\n",
        "heartbeat_url: <secret>\n",
        "  retention: 90d\n",
    ):
        assert line in text


def test_a_receiver_has_its_effective_events():
    raw = config_with_secrets()
    raw["alerts"] = {"events": ["failed", "completed"]}
    raw["receivers"][0]["events"] = ["stuck"]
    receivers = yaml.safe_load(render_masked(Config.model_validate(raw)))["receivers"]
    assert [receiver["events"] for receiver in receivers] == [
        ["stuck"],
        ["failed", "completed", "agent"],
        ["failed", "completed", "agent"],
        ["failed", "agent"],
        ["failed", "completed", "agent"],
    ]


def test_settings_from_the_environment_are_in_the_document():
    environ = {
        **KEY,
        "CARTESIA_BASE_URL": "http://localhost:8080",
        "CARTESIA_EXPORTER_SLACK_URL": URL,
        "CARTESIA_EXPORTER_STORAGE_PATH": "/var/lib/state.db",
    }
    text = render_masked(load(None, environ))
    assert SECRET not in text
    document = yaml.safe_load(text)
    assert document["accounts"][0]["api_key_env"] == "CARTESIA_API_KEY"
    assert document["accounts"][0]["base_url"] == "http://localhost:8080"
    assert document["receivers"][0]["url_env"] == "CARTESIA_EXPORTER_SLACK_URL"
    assert document["storage"]["path"] == "/var/lib/state.db"


def test_a_ca_file_is_written_as_its_path():
    raw = config_with_secrets()
    raw["accounts"][0]["ca_file"] = certifi.where()
    document = yaml.safe_load(render_masked(Config.model_validate(raw)))
    assert document["accounts"][0]["ca_file"] == certifi.where()


TEXT = st.text(st.characters(codec="utf-8"))


@settings(deadline=None)
@given(
    labels=st.dictionaries(st.from_regex("x[a-z]{3}", fullmatch=True), TEXT),
    user=st.from_regex(r"[^:\x00-\x1f\x7f]+", fullmatch=True).filter(str.isprintable),
)
def test_any_text_is_written_so_that_yaml_reads_it_back(labels, user):
    login = {"username": user, "password": SECRET}
    raw = {"accounts": [{"api_key": "a", "labels": labels}]}
    raw["receivers"] = [{**WEBHOOK, "basic_auth": login}]
    document = yaml.safe_load(render_masked(Config.model_validate(raw)))
    assert document["accounts"][0]["labels"] == labels
    assert document["receivers"][0]["basic_auth"] == {"username": user, "password": MASK}


def test_a_value_of_an_unknown_type_is_masked():
    class NewSection(Section):
        point: complex = 1j
        content: bytes = b"secret"

    assert yaml.safe_load(to_yaml(NewSection().model_dump())) == {"point": MASK, "content": MASK}
