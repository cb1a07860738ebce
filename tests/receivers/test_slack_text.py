"""The first line of Slack messages, from the operator's template."""

import json
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.compose import build_message
from exporter.core.events import Event
from exporter.core.model import FineTune
from exporter.http_client import HttpClient
from exporter.receivers.receiver import Endpoint
from exporter.receivers.slack import Slack, escape_text
from exporter.receivers.template import Template, TemplateError
from exporter.receivers.template_check import line_fault
from exporter.simulator.receiver import slack_refusal
from tests.fakes.secret import FakeSecret
from tests.receivers.sample_events import AT, FAILED, SETTINGS, TEST, always, events, failures
from tests.receivers.test_slack_render import assert_clean, assert_inert, texts

ENDPOINT = Endpoint(HttpClient(), FakeSecret("https://hooks.slack.com/services/T/B/x"), 15)
LINE = (
    ":rotating_light: *{{ title }}* {{ text }} {{ data.account }}"
    " {% for e in events[:20] if e.data.fine_tune %}{{ e.data.fine_tune.description }}{% endfor %}"
)


def rendered(
    text: str, *reported: Event, mention: str = "", minimal: bool = False
) -> dict[str, Any]:
    slack = Slack("team", ENDPOINT, always(mention), Template(text))
    body: dict[str, Any] = json.loads(
        slack.render(build_message(reported, SETTINGS), minimal=minimal)
    )
    return body


def first_line(text: str, *reported: Event) -> str:
    return str(rendered(text, *reported)["text"]).partition("\n")[0]


def test_the_line_replaces_the_title():
    body = rendered("*{{ data.fine_tune.name }}* <https://wiki/voices|what now>", FAILED)
    plain = json.loads(Slack("team", ENDPOINT).render(build_message([FAILED], SETTINGS)))
    line = "*My voice* <https://wiki/voices|what now>"
    assert body["text"].splitlines()[0] == line
    [head, *rest], [plain_head, *plain_rest] = body["blocks"], plain["blocks"]
    assert head["text"]["text"].splitlines() == [line, *plain_head["text"]["text"].splitlines()[1:]]
    assert rest == plain_rest


def test_the_mention_precedes_the_line():
    body = rendered("{{ title }}", FAILED, mention="<!here>")
    assert body["text"].splitlines()[0] == body["blocks"][0]["text"]["text"].splitlines()[0]
    assert body["text"].startswith("<!here> Fine-tune failed: My voice\n")
    assert json.dumps(body).count("<!here>") == 2


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("<!channel>", "&lt;!channel&gt; <@U1>"),
        ("a & b", "a &amp; b <@U1>"),
        ("`code`", "'code' <@U1>"),
        ("two\nlines", "two lines <@U1>"),
        ("\u202eright\x00", "right <@U1>"),
    ],
)
def test_only_the_operators_markup_is_kept(name, line):
    event = Event("evt", "fine_tune.failed", "a", AT, FineTune("ft", name))
    assert first_line("{{ data.fine_tune.name }} <@U1>", event) == line


def test_the_line_is_one_line():
    assert first_line("{{ title }}\n\n  and\tmore\n", TEST).endswith("failed and more")


def test_with_an_empty_line_the_title_is_kept():
    text = "{% if data.fine_tune %}{{ data.fine_tune.name }}{% endif %}"
    plain = json.loads(Slack("team", ENDPOINT).render(build_message([TEST], SETTINGS)))
    assert rendered(text, TEST) == plain


def test_a_line_that_is_too_long_is_not_cut_within_markup():
    markup = ("<https://example.com/x|a link>", "&amp;", "<!subteam^S123>")
    for before, end in product(range(980, 1000), markup):
        line = first_line("x" * before + end, TEST)
        assert len(line) <= 1000, (before, end)
        assert line in {"x" * before + end, "x" * before + "…", "x" * 999 + "…"}, (before, end)


def test_count_is_the_number_of_all_events_of_a_digest():
    assert first_line("{{ count }} of {{ events|length }}", *failures(5000)) == "5000 of 100"


def test_a_line_that_cannot_be_rendered_raises_and_the_minimal_message_has_none():
    with pytest.raises(TemplateError, match="'None' has no attribute 'name'"):
        rendered("{{ data.fine_tune.name }}", TEST)
    plain = Slack("team", ENDPOINT, always("<!here>")).render(
        build_message([TEST], SETTINGS), minimal=True
    )
    body = rendered("{{ data.fine_tune.name }}", TEST, mention="<!here>", minimal=True)
    assert body == json.loads(plain)


def test_the_line_of_these_tests_passes_the_check():
    assert line_fault(LINE, escape_text) is None


@given(st.lists(events, min_size=1, max_size=30), st.sampled_from(["", "<!here>", "@" * 500]))
def test_slack_accepts_any_message_with_a_line(reported, mention):
    body = rendered(LINE, *reported, mention=mention)
    assert slack_refusal(body) is None
    assert len(body["blocks"]) <= 50
    found = texts(body)
    assert 1 <= len(found[0]) <= 4_000
    assert all(1 <= len(text) <= 3000 for text in found[1:])
    assert sum(map(len, found)) <= 10_000
    for text in found[:2]:
        assert_clean(text)
        assert_inert(text, mention)
