"""Every form of message as Slack shows it; `make messages` makes pictures of them."""

import html
import json
import re

import pytest

from exporter.simulator.receiver import slack_refusal
from tests.receivers.block_kit import message_html
from tests.receivers.message_forms import SLACK, forms, page

FORMS = forms()
HOSTILE = {name for name in FORMS if "hostile" in name}


def html_of(name: str) -> str:
    return message_html(json.loads(SLACK.render(FORMS[name])))


def shown(name: str) -> str:
    """Return what a person reads of a form, in lines."""
    return html.unescape(re.sub(r"<[^>]*>", "", html_of(name).replace("</div>", "\n")))


@pytest.mark.parametrize("name", FORMS)
def test_slack_accepts_every_form(name):
    assert slack_refusal(json.loads(SLACK.render(FORMS[name]))) is None


@pytest.mark.parametrize("name", FORMS)
def test_links_lead_nowhere_else(name):
    found = re.findall(r'href="(https?://[^/"]*)', html_of(name))
    assert found
    assert {*found} <= {
        "https://cartesia.example.com",
        "https://grafana.example.com",
        "https://play.cartesia.ai",
        "https://github.com",
    }
    assert 'class="mention"' not in html_of(name)


@pytest.mark.parametrize("name", sorted(FORMS.keys() - HOSTILE))
def test_a_person_sees_no_markup(name):
    assert re.search(r"[<>|^*`{}]|&\w+;", shown(name)) is None


def test_the_first_lines_of_a_failure_are_what_a_person_on_call_needs():
    title, history, facts = shown("one failure with history").splitlines()[2:5]
    assert title.endswith(" Fine-tune failed: Ada, audiobook")
    assert history == (
        "Trained 2 h 10 min, usually 5 h · 3rd failure of dataset dataset_8QnV2h7kT1 in 7 days"
    )
    assert facts == "Model sonic-3-2026-01-12 · Language en · Account default"


def test_all_of_36_failures_are_named():
    lines = [line for line in shown("a digest of 36").splitlines() if line.startswith("• ")]
    assert len(lines) == 36


def test_times_are_those_of_the_reader():
    assert "Observed today 20:03" in shown("one failure with history")


def test_the_page_has_every_form():
    text = page()
    assert all(f"<h2>{name}</h2>" in text for name in FORMS)
