"""A webhook's body out of the operator's map, whatever the message is."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.events import Event
from exporter.core.message import build_message
from exporter.core.model import FineTune
from exporter.receivers.payload import ABSENT, NAMES, standard_body, variables
from exporter.receivers.template import _FILTERS, TemplateBody, TemplateError
from exporter.receivers.template_check import body_faults, line_fault
from tests.receivers.sample_events import (
    AT,
    FAILED,
    LINK_TEMPLATES,
    SINCE,
    TEST,
    events,
    failures,
    stuck,
    trouble,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "webhook.md"

TEMPLATE: dict[str, Any] = {
    "content": "{{ title }}\n{{ text }}",
    "embeds": [
        {
            "title": "{{ type }} {{ count }} {{ timestamp }}",
            "color": 15548997,
            "inline": True,
            "nothing": None,
            "share": 0.5,
            "name": "{% if data.fine_tune %}{{ data.fine_tune.name }}{% endif %}",
            "list": (
                "{% for e in events[:20] if e.data.fine_tune %}"
                "{{ e.data.fine_tune.id|truncate(50) }} {% endfor %}"
            ),
        }
    ],
    "{{ title }}": "{{ data.account }}",
}


def body(*told: Event, template: dict[str, Any] = TEMPLATE, minimal: bool = False) -> Any:
    return json.loads(TemplateBody(template)(build_message(told, LINK_TEMPLATES), minimal=minimal))


def failed(name: str = "", description: str = "") -> Event:
    fine_tune = FineTune("ft_1", name, description)
    return Event("evt", "fine_tune.failed", "default", AT, fine_tune)


def test_the_texts_are_rendered_and_everything_else_stays_as_it_is():
    assert body(FAILED) == {
        "content": (
            "Fine-tune failed: My voice\nAccount: default\nModel: sonic-2\n"
            "Status: training → failed\nLanguage: en\nDataset: ds_1\nId: ft_1\n"
            "Observed: 2026-11-23T19:03:00Z\nFor the <hotline>"
        ),
        "embeds": [
            {
                "title": "fine_tune.failed 1 2026-11-23T19:03:00Z",
                "color": 15548997,
                "inline": True,
                "nothing": None,
                "share": 0.5,
                "name": "My voice",
                "list": "ft_1 ",
            }
        ],
        "{{ title }}": "default",
    }


@pytest.mark.parametrize("text", ["1", "true", "null", "[1]", '{"a": 1}', "1.5", "0x10", ""])
def test_a_text_stays_a_text_whatever_it_looks_like(text):
    assert body(failed(text), template={"x": "{{ data.fine_tune.name }}"}) == {"x": text}


@pytest.mark.parametrize("text", ['", "y": "', "{{ title }}", "{% if %}", "\\", "\x00\n", "🗣"])
def test_no_text_breaks_out_of_its_place_or_is_a_template_itself(text):
    template = {"x": "{% if data.fine_tune %}{{ data.fine_tune.name }}{% endif %}"}
    assert body(failed(text), template=template) == {"x": text}


def test_the_first_event_of_a_digest_is_data_and_all_of_them_are_events():
    template = {
        "x": "{{ type }} {{ data.fine_tune.id }} {{ count }} {{ events|length }}"
        " {{ events[2].data.fine_tune.id }} {{ timestamp }}"
    }
    assert body(*failures(3), template=template) == {
        "x": "fine_tune.digest ft_0 3 3 ft_2 2026-11-23T19:03:02Z"
    }


def test_the_variables_hold_what_the_standard_body_holds():
    seen = variables(build_message([FAILED], LINK_TEMPLATES))
    standard = json.loads(standard_body(build_message([FAILED], LINK_TEMPLATES), minimal=False))
    assert seen["type"] == standard["type"]
    assert seen["timestamp"] == standard["timestamp"]
    assert seen["data"] == ABSENT | standard["data"]
    assert seen["events"] == [standard | {"data": seen["data"]}]


def test_what_an_event_lacks_is_null_so_that_a_template_can_ask():
    data = variables(build_message([TEST], LINK_TEMPLATES))["data"]
    assert data["fine_tune"] is data["reason"] is data["previous_status"] is None
    assert (
        variables(build_message([trouble("agent.poll_failing")], LINK_TEMPLATES))["data"]["since"]
        == SINCE
    )
    assert (
        variables(build_message([stuck(FineTune("ft"))], LINK_TEMPLATES))["data"]["since"] == SINCE
    )


@given(st.lists(events, min_size=1, max_size=10))
def test_nothing_that_a_template_sees_is_endless(told):
    def texts(value: Any):
        if isinstance(value, str):
            yield value
        for item in value.values() if isinstance(value, dict) else ():
            yield from texts(item)
        for item in value if isinstance(value, list) else ():
            yield from texts(item)

    seen = variables(build_message(told * 30, LINK_TEMPLATES))
    assert len(seen["events"]) == min(30 * len(told), 100)
    assert seen["count"] == 30 * len(told)
    assert len(seen.pop("text")) <= 8000
    assert all(len(text) <= 1000 for text in texts(seen))


@given(st.lists(events, min_size=1, max_size=100), st.booleans())
def test_a_template_that_passed_the_check_renders_any_message(told, minimal):
    found = body(*told, minimal=minimal)
    assert found["embeds"][0]["color"] == 15548997
    assert found["embeds"][0]["title"].split()[1] == str(len(told))


def test_the_template_of_these_tests_passed_the_check():
    assert body_faults(TEMPLATE) == []


def test_the_minimal_body_has_the_same_shape_without_what_people_wrote():
    found = body(FAILED, minimal=True)
    assert found["content"] == "fine_tune.failed\n"
    assert found["embeds"][0]["name"] == ""
    assert found["embeds"][0]["list"] == "ft_1 "
    assert found["embeds"][0]["color"] == 15548997


def test_a_template_that_cannot_be_rendered_raises_and_names_the_place():
    template = TemplateBody({"a": ["{{ data.fine_tune.name }}"]})
    reason = "a.0: line 1: 'None' has no attribute 'name'"
    with pytest.raises(TemplateError, match=reason):
        template(build_message([TEST], LINK_TEMPLATES), minimal=False)


@pytest.mark.parametrize("text", ["{{ data.fine_tune.name }}", "{{ 1 / 0 }}", "{{ data }}"])
def test_when_not_even_the_minimal_form_can_be_rendered_the_standard_one_is_sent(text):
    told = build_message([TEST], LINK_TEMPLATES)
    assert TemplateBody({"a": text})(told, minimal=True) == standard_body(told, minimal=True)


def test_a_body_that_grows_too_large_raises_and_its_minimal_form_is_small():
    texts = {str(n): "{{ data.fine_tune.description|upper }}" for n in range(300)}
    long = failed(description="\x00" * 1000)
    with pytest.raises(TemplateError, match="makes a body of more than 512 KiB"):
        body(long, template=texts)
    assert body(long, template=texts, minimal=True) == dict.fromkeys(texts, "")


def test_all_texts_of_a_body_share_one_limit_of_work():
    text = "{% for e in events %}{% for f in events %}{% set a = 1 %}{% endfor %}{% endfor %}"
    assert body(*failures(100), template={"a": text}) == {"a": ""}
    assert body_faults({"a": text}) == []
    [(path, fault)] = body_faults({str(n): text for n in range(50)})
    assert path == ()
    assert fault.startswith("takes too much work")


def faults(template: dict[Any, Any]) -> list[tuple[tuple[str | int, ...], str]]:
    return body_faults(template)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "{{ data.fine_tune.name }}",
            "line 1: 'None' has no attribute 'name'; guard it, as in {% if data.fine_tune %}",
        ),
        (
            "{% for e in events %}{{ e.data.fine_tune and e.data.fine_tune.name }}{% endfor %}",
            "events[:20] (tried with a digest of 100 with long texts)",
        ),
        (
            "{{ 1 / (data.previous_status or '')|length }}",
            "cannot be evaluated (ZeroDivisionError)",
        ),
        ("{{ data.nam }}", "the names in data are account, observed_at, links, previous_status"),
        ("{{ nobody }}", f"the names here are {', '.join(NAMES)}"),
        ("{{ title", "line 1: is not valid Jinja2"),
    ],
)
def test_what_would_fail_only_with_some_message_is_told_before(text, fault):
    [(path, told)] = faults({"a": [{"b": text}]})
    assert path == ("a", 0, "b")
    assert fault in told
    assert fault in str(line_fault(text, str))


@pytest.mark.parametrize(
    "text",
    [
        "{{ title }} {{ text }} {{ data|tojson }}",
        "{% for e in events[:9] %}{{ (e.data.fine_tune or e.data).id|default('-') }}{% endfor %}",
        "{{ data.reason or data.text or '' }} {{ data.failed_ones|default([], true)|join(', ') }}",
        "{{ data.links.status_page or data.links.playground }}",
    ],
)
def test_what_copes_with_every_message_is_accepted(text):
    assert faults({"a": text}) == []
    assert line_fault(text, str) is None


def test_every_fault_is_told():
    template = {"a": "{{ x }}", "b": {"c": ["ok", "{{ title"]}, "d": b"bytes"}
    assert [path for path, _ in faults(template)] == [("a",), ("b", "c", 1), ("d",)]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (float("nan"), "must be a finite number"),
        (float("-inf"), "must be a finite number"),
        (2**63, "must be a smaller number"),
        (b"bytes", "must be text, a number, true, false, null, a list or a map"),
        ({1, 2}, "must be text, a number, true, false, null, a list or a map"),
        ("\ud800", "must be valid Unicode text"),
        ({1: 2}, "must have text as its keys"),
        ({"\udfff": 2}, "must have text as its keys"),
    ],
)
def test_what_json_cannot_hold_is_refused(value, fault):
    assert faults({"a": {"b": value}}) == [(("a", "b"), fault)]


def test_a_ring_or_a_forest_of_aliases_is_refused_at_once():
    ring: dict[str, Any] = {}
    ring["a"] = [ring]
    forest: dict[str, Any] = {"x": "{{ title }}"}
    for _ in range(18):
        forest = {"a": forest, "b": forest, "c": forest}
    fault = "must have at most 500 values, at most 20 levels deep"
    assert faults(ring) == faults(forest) == [((), fault)]


def test_a_body_that_only_as_a_whole_is_too_large_is_refused():
    text = "{% for e in events[:30] %}{{ e.data.fine_tune and e.data.fine_tune.name }}{% endfor %}"
    assert faults({"a": text}) == []
    [(path, fault)] = faults({str(n): text for n in range(9)})
    assert path == ()
    assert fault.startswith("makes a body of more than 512 KiB (tried with a digest of 100")


def documented() -> str:
    [section] = DOCUMENT.read_text(encoding="utf-8").split("\n## Templates\n")[1:]
    return section


def test_every_name_and_filter_is_documented():
    filters = _FILTERS.keys() - {"d", "e"}  # short for default and escape
    for name in (*NAMES, *ABSENT, *filters, "account", "observed_at", "links"):
        assert f"`{name}`" in documented(), name


def test_the_documented_template_passes_the_check():
    [example] = re.findall(r"```yaml\n(.*?)```", documented(), re.DOTALL)
    [receiver] = yaml.safe_load(example)["receivers"]
    assert body_faults(receiver["template"]) == []
    content = body(*failures(12), template=receiver["template"])["content"]
    assert "- Voice 9 (ft_9)" in content
    assert "and 2 more" in content
