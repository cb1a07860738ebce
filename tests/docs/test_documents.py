"""The documents that `make docs` writes say what the program does: its flags and its keys."""

import re
from typing import get_args

import pytest
import yaml
from click.testing import CliRunner

from docs.generate.documents import CONFIGURATION, FLAGS, README, render_documents
from docs.generate.flags import commands
from docs.generate.table import header, row
from exporter.cli.main import main
from exporter.config import (
    Account,
    AlertmanagerReceiver,
    Alerts,
    AppriseReceiver,
    BasicAuth,
    Config,
    Match,
    Metrics,
    Poll,
    SlackReceiver,
    Storage,
    WebhookReceiver,
    load,
)
from exporter.config.receivers import CommonReceiver
from exporter.config.section import Section

COMMANDS = [words for words, _ in commands()]
PLAIN: dict[str, type[Section]] = {
    "accounts": Account,
    "poll": Poll,
    "metrics": Metrics,
    "alerts": Alerts,
    "storage": Storage,
}
KINDS: dict[str, type[Section]] = {
    "slack": SlackReceiver,
    "webhook": WebhookReceiver,
    "alertmanager": AlertmanagerReceiver,
    "apprise": AppriseReceiver,
}
BELOW: dict[str, type[Section]] = {"match": Match, "basic_auth": BasicAuth}


def sections(text: str) -> dict[str, str]:
    """What stands under each heading."""
    parts = re.split(r"^##+ (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> list[list[str]]:
    """The cells of each row that begins with something typed."""
    found = re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)
    return [[cell.strip() for cell in re.split(r" \|(?= )", line)] for line in found]


KEYS = {name: rows(text) for name, text in sections(CONFIGURATION.read_text("utf-8")).items()}


def test_the_documents_are_as_they_would_be_written_now():
    made = render_documents()
    behind = [path.name for path in made if path.read_text(encoding="utf-8") != made[path]]
    assert behind == [], "run `make docs`"


@pytest.mark.parametrize("words", COMMANDS)
def test_every_flag_that_help_shows_is_documented_and_no_other(words):
    said = (
        CliRunner().invoke(main, [*words.split(), "--help"], prog_name="cartesia-exporter").output
    )
    shown = re.findall(r"^ +(?:-\w, )?(--[\w.-]+)", said.partition("Options:")[2], re.MULTILINE)
    documented = [cells[0] for cells in rows(sections(FLAGS.read_text("utf-8"))[words])]
    names = [re.match("`(--[a-z.-]+)", cell) for cell in documented]
    assert [*(name[1] for name in names if name), "--help"] == shown


def test_every_default_that_help_shows_is_documented():
    said = CliRunner().invoke(main, ["run", "--help"]).output
    defaults = re.findall(r"\[default:\s+([^\]]+)\]", said)
    readme = README.read_text(encoding="utf-8").partition(header("flag", "default", "meaning"))[2]
    documented = [cells[1].strip("`") for cells in rows(readme.partition("\n\n")[0])]
    assert [default for default in documented if default] == defaults
    assert len(defaults) > 3


def test_every_command_has_a_section():
    assert list(sections(FLAGS.read_text("utf-8"))) == COMMANDS
    assert {words.split()[0] for words in COMMANDS} == set(main.commands)


def keys(heading: str) -> list[str]:
    """The keys that are documented under a heading, each form of a secret for itself."""
    return sorted(key for cells in KEYS[heading] for key in re.findall("`([^`]+)`", cells[0]))


@pytest.mark.parametrize("heading", PLAIN)
def test_every_key_of_a_section_is_documented_and_no_other(heading):
    assert keys(heading) == sorted(PLAIN[heading].model_fields)


@pytest.mark.parametrize("heading", ["receivers", *KINDS])
def test_every_key_of_a_receiver_is_documented_and_no_other(heading):
    common = {*CommonReceiver.model_fields, "type"}
    known = KINDS[heading].model_fields.keys() - common if heading in KINDS else common
    below = {f"{key}.{name}" for key in BELOW.keys() & known for name in BELOW[key].model_fields}
    headers = {f"headers.NAME{form}" for form in ("", ".file", ".env") if "headers" in known}
    assert keys(heading) == sorted({*known, *below, *headers})


def test_every_key_of_the_file_has_a_heading_or_a_row():
    secret = {"heartbeat_url", "heartbeat_url_file", "heartbeat_url_env"}
    assert keys("heartbeat_url") == sorted(secret)
    assert {*PLAIN, "receivers", *secret} == set(Config.model_fields)


def test_a_receiver_is_of_a_kind_that_is_documented():
    kinds = get_args(get_args(get_args(Config.model_fields["receivers"].annotation)[0])[0])
    assert set(kinds) == set(KINDS.values())


def test_a_default_that_is_documented_is_the_one_that_counts(tmp_path):
    """Of each section: the file that spells them out says what one says that leaves them out."""

    def given(heading: str) -> dict[str, object]:
        pairs = ((cells[0], cells[2]) for cells in KEYS[heading] if cells[2].startswith("`"))
        return {key.split("`")[1]: yaml.safe_load(text.strip("`")) for key, text in pairs}

    key = {"CARTESIA_API_KEY": "sk_car_x"}
    raw = {heading: given(heading) for heading in PLAIN}
    raw["accounts"]["api_key_env"] = "CARTESIA_API_KEY"
    hook = {"name": "a", "url": "https://a.example", "type": "webhook"}
    alert = {"name": "b", "urls": ["https://a.example"], "type": "alertmanager"}
    spelled = [hook | given("receivers") | given("webhook"), alert | given("alertmanager")]
    assert sum(map(len, [*raw.values(), *spelled])) > 30
    (tmp_path / "long").write_text(
        yaml.safe_dump({**raw, "accounts": [raw["accounts"]], "receivers": spelled})
    )
    (tmp_path / "short").write_text(yaml.safe_dump({"receivers": [hook, alert]}))
    assert load(tmp_path / "long", key) == load(tmp_path / "short", key)


def test_every_key_says_what_it_means():
    silent = [cells[0] for found in KEYS.values() for cells in found if not cells[4]]
    assert silent == []


def test_a_limit_that_is_documented_is_the_one_that_refuses():
    limits = {cells[0]: cells[3] for cells in KEYS["poll"]}
    assert limits["`page_size`"] == "be between 1 and 100"
    assert limits["`interval`"] == "be between 1s and 1d"
    (tags,) = [cells[3] for cells in KEYS["receivers"] if cells[0] == "`type`"]
    assert tags == "be `slack`, `webhook`, `alertmanager` or `apprise`"


def test_a_bar_in_a_cell_does_not_end_it():
    assert row(["[a|b]", "c"]) == r"| [a\|b] | c |"
