"""The configuration as it is shown: everything in it but its secrets."""

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
from exporter.config import AppriseReceiver, Config, load
from exporter.config.masked import MASK, render_masked, to_yaml
from exporter.config.secrets import ConfigContext
from exporter.config.section import Section, items_of

KEY = {"CARTESIA_API_KEY": "sk_car_hunter2"}
ANYWHERE = "c4nary"
SIGNING = "whsec_YzRuYXJ5YzRuYXJ5YzRuYXJ5YzRuYXJ5"
SIGNED = SIGNING.removeprefix("whsec_")
PROXY = f"http://user:{ANYWHERE}@proxy.example:3128"
URL = f"https://{ANYWHERE}.example/{ANYWHERE}?token={ANYWHERE}"
WEBHOOK = {"name": "bearer", "type": "webhook", "url": URL, "proxy_url": PROXY}


def inline(secret: str = ANYWHERE) -> dict[str, Any]:
    """A configuration with a secret in the file wherever one can stand there."""
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
    }


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    """Every section that a configuration can have, from the types alone."""
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


def of_type(kind: type) -> set[tuple[type[Section], str]]:
    return {
        (section, name)
        for section in SECTIONS
        for name, field in section.model_fields.items()
        if kind in types_of(field.annotation)
    }


def given_secrets(section: Section) -> Iterator[tuple[type[Section], str]]:
    for name in type(section).model_fields:
        for _, part in items_of(getattr(section, name)):
            if isinstance(part, SecretStr):
                yield type(section), name
            if isinstance(part, Section):
                yield from given_secrets(part)


def test_no_secret_of_any_section_is_shown():
    config = Config.model_validate(inline())
    refused = (AppriseReceiver, "proxy_url")
    assert {*given_secrets(config), refused} == of_type(SecretStr)
    shown = render_masked(config)
    assert ANYWHERE not in shown
    assert SIGNED not in shown
    assert "12345" not in shown


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_the_text_of_a_secret_has_a_type_that_is_never_shown(section):
    for key in section.SECRETS:
        assert section.model_fields[key.inline].annotation == SecretStr | None


def test_no_key_that_is_called_like_a_secret_is_plain_text():
    forms = {
        (section, form)
        for section in SECTIONS
        for key in section.SECRETS
        for form in (key.file, key.env)
    }
    called_so = re.compile("key|token|secret|password|credential|auth|url|header|text")
    plain = {
        (section.__name__, name)
        for section, name in of_type(str) - forms - of_type(SecretStr)
        if called_so.search(name)
    }
    assert plain == {
        ("Account", "base_url"),
        ("Alerts", "playground_url"),
        ("SlackReceiver", "text"),
        ("WebhookReceiver", "headers"),
    }


@pytest.mark.parametrize("form", ["file", "env"])
def test_a_secret_that_stands_elsewhere_is_shown_as_where_it_stands(tmp_path, form):
    texts = {"a": f"sk_car_{ANYWHERE}", "u": URL, "s": SIGNING, "p": ANYWHERE}
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
        ],
        f"heartbeat_url_{form}": "u",
    }
    text = render_masked(Config.model_validate(raw, context=ConfigContext(tmp_path, texts)))
    assert ANYWHERE not in text
    assert SIGNED not in text
    assert MASK not in text
    shown = yaml.safe_load(text)
    assert part_of(shown, raw) == raw


def part_of(shown: Any, wanted: Any) -> Any:
    """What is shown, cut down to the keys that are wanted."""
    if isinstance(wanted, dict):
        return {key: part_of(shown[key], value) for key, value in wanted.items()}
    if isinstance(wanted, list):
        return [part_of(*pair) for pair in zip(shown, wanted, strict=True)]
    return shown


def keys_in(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from keys_in(item, f"{path}.{key}")
    else:
        yield path


def test_every_key_that_is_given_is_shown():
    shown = yaml.safe_load(render_masked(Config.model_validate(inline())))
    assert set(keys_in(inline())) - set(keys_in(shown)) == set()


def test_what_is_shown_is_what_the_example_says_and_can_be_read_again(tmp_path):
    """Of the defaults; with a secret in a file it would ask for the file."""
    text = render_masked(load(None, KEY))
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert load(path, KEY) == load(None, KEY)
    shown, written = yaml.safe_load(text), yaml.safe_load(EXAMPLE.read_text())
    assert part_of(shown, written) == written
    assert render_masked(load(EXAMPLE, KEY)) == text


def test_it_is_written_as_its_operator_would_write_it():
    text = render_masked(Config.model_validate(inline()))
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


def test_a_receiver_shows_the_events_that_it_gets():
    raw = inline()
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


def test_what_the_environment_says_is_shown_too():
    environ = {
        **KEY,
        "CARTESIA_BASE_URL": "http://localhost:8080",
        "CARTESIA_EXPORTER_SLACK_URL": URL,
        "CARTESIA_EXPORTER_STORAGE_PATH": "/var/lib/state.db",
    }
    text = render_masked(load(None, environ))
    assert ANYWHERE not in text
    shown = yaml.safe_load(text)
    assert shown["accounts"][0]["api_key_env"] == "CARTESIA_API_KEY"
    assert shown["accounts"][0]["base_url"] == "http://localhost:8080"
    assert shown["receivers"][0]["url_env"] == "CARTESIA_EXPORTER_SLACK_URL"
    assert shown["storage"]["path"] == "/var/lib/state.db"


def test_a_certificate_is_shown_as_its_path():
    raw = inline()
    raw["accounts"][0]["ca_file"] = certifi.where()
    shown = yaml.safe_load(render_masked(Config.model_validate(raw)))
    assert shown["accounts"][0]["ca_file"] == certifi.where()


TEXT = st.text(st.characters(codec="utf-8"))


@settings(deadline=None)
@given(
    labels=st.dictionaries(st.from_regex("[a-z]{3}", fullmatch=True), TEXT),
    user=st.from_regex(r"[^:\x00-\x1f\x7f]+", fullmatch=True).filter(str.isprintable),
)
def test_whatever_stands_in_a_text_the_page_says_it(labels, user):
    login = {"username": user, "password": ANYWHERE}
    raw = {"accounts": [{"api_key": "a", "labels": labels}]}
    raw["receivers"] = [{**WEBHOOK, "basic_auth": login}]
    shown = yaml.safe_load(render_masked(Config.model_validate(raw)))
    assert shown["accounts"][0]["labels"] == labels
    assert shown["receivers"][0]["basic_auth"] == {"username": user, "password": MASK}


def test_what_has_a_type_that_is_not_known_is_masked():
    class Later(Section):
        when: complex = 1j

    assert yaml.safe_load(to_yaml(Later().model_dump())) == {"when": MASK}
