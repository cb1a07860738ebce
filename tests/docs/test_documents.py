"""The generated documents are up to date, complete and correct."""

import re
from collections.abc import Collection
from typing import Any, get_args

import pytest
import yaml
from click.testing import CliRunner

from docs.generate.documents import CONFIGURATION, FLAGS, render_documents
from docs.generate.flags import commands
from docs.generate.table import row
from exporter.cli.commands import main
from exporter.config import Config, environment, load
from exporter.config.match import Match, MentionRule
from exporter.config.models import Account, Alerts, Metrics, Poll, Severities, Storage
from exporter.config.receivers import (
    AlertmanagerReceiver,
    AppriseReceiver,
    BasicAuth,
    CommonReceiver,
    SlackReceiver,
    WebhookReceiver,
)
from exporter.config.section import Section

COMMANDS = [words for words, _ in commands()]
SECTIONS: dict[str, type[Section]] = {
    "accounts": Account,
    "poll": Poll,
    "metrics": Metrics,
    "alerts": Alerts,
    "storage": Storage,
}
RECEIVERS: dict[str, type[Section]] = {
    "slack": SlackReceiver,
    "webhook": WebhookReceiver,
    "alertmanager": AlertmanagerReceiver,
    "apprise": AppriseReceiver,
}
NESTED: dict[str, type[Section]] = {
    "basic_auth": BasicAuth,
    "match": Match,
    "mentions": MentionRule,
    "severities": Severities,
}


def sections(text: str) -> dict[str, str]:
    """Return the text under each heading."""
    split = re.split(r"^##+ (.*)$", text, flags=re.MULTILINE)
    return dict(zip(split[1::2], split[2::2], strict=True))


def rows(text: str) -> list[list[str]]:
    """Return the cells of each row that begins with code."""
    found = re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)
    return [[cell.strip() for cell in re.split(r" \|(?= )", line)] for line in found]


KEYS = {name: rows(text) for name, text in sections(CONFIGURATION.read_text("utf-8")).items()}
VARIABLES = KEYS.pop("Environment variables")


def test_the_documents_are_up_to_date():
    texts = render_documents()
    outdated = [path.name for path in texts if path.read_text(encoding="utf-8") != texts[path]]
    assert outdated == [], "run `make docs`"


@pytest.mark.parametrize("words", COMMANDS)
def test_exactly_the_flags_in_help_are_documented(words):
    arguments = [*words.split(), "--help"]
    output = CliRunner().invoke(main, arguments, prog_name="cartesia-exporter").output
    flags = re.findall(r"^ +(?:-\w, )?(--[\w.-]+)", output.partition("Options:")[2], re.MULTILINE)
    documented = [cells[0] for cells in rows(sections(FLAGS.read_text("utf-8"))[words])]
    names = [re.match("`(--[a-z.-]+)", cell) for cell in documented]
    assert [*(name[1] for name in names if name), "--help"] == flags


def test_every_default_in_help_is_documented():
    output = CliRunner().invoke(main, ["run", "--help"]).output
    defaults = re.findall(r"\[default:\s+([^\]]+)\]", output)
    documented = [cells[1].strip("`") for cells in rows(sections(FLAGS.read_text("utf-8"))["run"])]
    assert [default for default in documented if default] == defaults
    assert len(defaults) > 3


def test_every_command_has_a_section():
    text = FLAGS.read_text("utf-8")
    assert list(sections(text)) == [*COMMANDS, "Commands on stored data", "Completion"]
    assert re.findall(r"^\| \[`(.*?)`\]", text, re.MULTILINE) == COMMANDS
    assert {words.split()[0] for words in COMMANDS} == set(main.commands)


def keys(heading: str) -> list[str]:
    """Return the documented keys under a heading, with all forms of secrets."""
    return sorted(key for cells in KEYS[heading] for key in re.findall("`([^`]+)`", cells[0]))


def nested_keys(keys: Collection[str]) -> set[str]:
    """Return the keys of the sections that are values of these keys."""
    return {
        f"{key}.{name}"
        for key in NESTED.keys() & keys
        for name in (*NESTED[key].model_fields, *NESTED[key].EXTRA_KEYS)
    }


@pytest.mark.parametrize("heading", SECTIONS)
def test_exactly_the_keys_of_a_section_are_documented(heading):
    own = SECTIONS[heading].model_fields
    assert keys(heading) == sorted({*own, *nested_keys(own)})


def own_keys(receiver: type[Section]) -> set[str]:
    """Return the keys that only this type has, and those with another default than usual."""
    common, fields = CommonReceiver.model_fields, receiver.model_fields
    different = {key for key in common if fields[key].default != common[key].default}
    return fields.keys() - {*common, "type"} | different


@pytest.mark.parametrize("heading", ["receivers", *RECEIVERS])
def test_exactly_the_keys_of_a_receiver_are_documented(heading):
    common = {*CommonReceiver.model_fields, "type"}
    own = own_keys(RECEIVERS[heading]) if heading in RECEIVERS else common
    named = {"headers", "template_secrets"} & own
    forms = {f"{key}.NAME{form}" for key in named for form in ("", ".file", ".env")}
    assert keys(heading) == sorted({*own, *nested_keys(own), *forms})


def test_every_key_of_the_file_has_a_heading_or_a_row():
    secret = {"heartbeat_url", "heartbeat_url_file", "heartbeat_url_env"}
    assert keys("heartbeat_url") == sorted(secret)
    assert {*SECTIONS, "receivers", *secret} == set(Config.model_fields)


def test_every_environment_variable_of_the_configuration_is_documented():
    documented = {name for cells in VARIABLES for name in re.findall("`([A-Z_]+)`", cells[0])}
    used = {
        environment.API_KEY,
        environment.API_KEY_FILE,
        environment.STORAGE_VARIABLE,
        *environment.ACCOUNT_VARIABLES.values(),
        *environment.RECEIVER_VARIABLES.values(),
    }
    assert used <= documented


def test_every_type_of_receiver_is_documented():
    receivers = get_args(get_args(get_args(Config.model_fields["receivers"].annotation)[0])[0])
    assert set(receivers) == set(RECEIVERS.values())


def test_documented_defaults_are_the_defaults(tmp_path):
    """A file with every documented default equals one without."""

    def defaults(heading: str) -> dict[str, object]:
        pairs = ((cells[0], cells[2]) for cells in KEYS[heading] if cells[2].startswith("`"))
        found: dict[str, Any] = {}
        for key, text in pairs:
            *path, name = key.split("`")[1].split(".")
            section = found
            for each in path:
                section = section.setdefault(each, {})
            section[name] = yaml.safe_load(text.strip("`"))
        return found

    key = {"CARTESIA_API_KEY": "sk_car_x"}
    raw = {heading: defaults(heading) for heading in SECTIONS}
    raw["accounts"]["api_key_env"] = "CARTESIA_API_KEY"
    hook = {"name": "a", "url": "https://a.example", "type": "webhook"}
    alert = {"name": "b", "urls": ["https://a.example"], "type": "alertmanager"}
    receivers = [
        hook | defaults("receivers") | defaults("webhook"),
        alert | defaults("alertmanager"),
    ]
    assert sum(map(len, [*raw.values(), *receivers])) > 30
    (tmp_path / "long").write_text(
        yaml.safe_dump({**raw, "accounts": [raw["accounts"]], "receivers": receivers})
    )
    (tmp_path / "short").write_text(yaml.safe_dump({"receivers": [hook, alert]}))
    assert load(tmp_path / "long", key) == load(tmp_path / "short", key)


def test_every_key_has_a_meaning():
    missing = [cells[0] for found in KEYS.values() for cells in found if not cells[4]]
    assert missing == []


def test_documented_rules_of_some_keys():
    limits = {cells[0]: cells[3] for cells in KEYS["poll"]}
    assert limits["`page_size`"] == "be between 1 and 100"
    assert limits["`interval`"] == "be between 1s and 1d"
    (types,) = [cells[3] for cells in KEYS["receivers"] if cells[0] == "`type`"]
    assert types == "be `slack`, `webhook`, `alertmanager` or `apprise`"


def test_a_bar_in_a_cell_is_escaped():
    assert row(["[a|b]", "c"]) == r"| [a\|b] | c |"
