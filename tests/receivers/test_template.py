"""Webhook bodies from the operator's map of templates, and their check."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.compose import build_message
from exporter.core.events import Event
from exporter.core.model import FineTune
from exporter.receivers.payload import ABSENT, NAMES, standard_body, variables
from exporter.receivers.template import _FILTERS, TemplateBody, TemplateError
from exporter.receivers.template_check import body_faults, line_fault
from tests.receivers.sample_events import (
    AT,
    FAILED,
    SETTINGS,
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


def body(*reported: Event, template: dict[str, Any] = TEMPLATE, minimal: bool = False) -> Any:
    return json.loads(TemplateBody(template)(build_message(reported, SETTINGS), minimal=minimal))


def failed(name: str = "", description: str = "") -> Event:
    fine_tune = FineTune("ft_1", name, description)
    return Event("evt", "fine_tune.failed", "default", AT, fine_tune)


def test_texts_are_rendered_and_other_values_are_kept():
    assert body(FAILED) == {
        "content": (
            "Fine-tune failed: My voice\nModel: sonic-2\nDataset: ds_1\nLanguage: en\n"
            "Status: training → failed\nAccount: default\nObserved: 2026-11-23 19:03 UTC\n"
            "Id: ft_1\nFor the <hotline>"
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


def test_a_text_stays_a_text():
    for text in ("1", "true", "null", "[1]", '{"a": 1}', "1.5", "0x10", ""):
        assert body(failed(text), template={"x": "{{ data.fine_tune.name }}"}) == {"x": text}


def test_a_text_of_the_api_is_neither_json_nor_a_template():
    template = {"x": "{% if data.fine_tune %}{{ data.fine_tune.name }}{% endif %}"}
    for text in ('", "y": "', "{{ title }}", "{% if %}", "\\", "\x00\n", "🗣"):
        assert body(failed(text), template=template) == {"x": text}


def test_data_is_the_first_event_of_a_digest_and_events_are_all():
    template = {
        "x": "{{ type }} {{ data.fine_tune.id }} {{ count }} {{ events|length }}"
        " {{ events[2].data.fine_tune.id }} {{ timestamp }}"
    }
    assert body(*failures(3), template=template) == {
        "x": "fine_tune.digest ft_0 3 3 ft_2 2026-11-23T19:03:02Z"
    }


def test_the_variables_are_those_of_the_standard_body():
    found = variables(build_message([FAILED], SETTINGS))
    standard = json.loads(standard_body(build_message([FAILED], SETTINGS), minimal=False))
    assert found["type"] == standard["type"]
    assert found["timestamp"] == standard["timestamp"]
    assert found["data"] == ABSENT | standard["data"]
    assert found["events"] == [standard | {"data": found["data"]}]


def test_what_an_event_lacks_is_null():
    data = variables(build_message([TEST], SETTINGS))["data"]
    assert data["fine_tune"] is data["reason"] is data["previous_status"] is None
    assert (
        variables(build_message([trouble("agent.poll_failing")], SETTINGS))["data"]["since"]
        == SINCE
    )
    assert variables(build_message([stuck(FineTune("ft"))], SETTINGS))["data"]["since"] == SINCE


@given(st.lists(events, min_size=1, max_size=10))
def test_variables_are_bounded(reported):
    def texts(value: Any):
        if isinstance(value, str):
            yield value
        for item in value.values() if isinstance(value, dict) else ():
            yield from texts(item)
        for item in value if isinstance(value, list) else ():
            yield from texts(item)

    found = variables(build_message(reported * 30, SETTINGS))
    assert len(found["events"]) == min(30 * len(reported), 100)
    assert found["count"] == 30 * len(reported)
    assert len(found.pop("text")) <= 8000
    assert all(len(text) <= 1000 for text in texts(found))


@given(st.lists(events, min_size=1, max_size=100), st.booleans())
def test_a_template_that_passes_the_check_renders_any_message(reported, minimal):
    found = body(*reported, minimal=minimal)
    assert found["embeds"][0]["color"] == 15548997
    assert found["embeds"][0]["title"].split()[1] == str(len(reported))


def test_the_template_of_these_tests_passes_the_check():
    assert body_faults(TEMPLATE) == []


def test_the_minimal_body_has_the_same_shape_without_what_people_wrote():
    found = body(FAILED, minimal=True)
    assert found["content"] == "fine_tune.failed\n"
    assert found["embeds"][0]["name"] == ""
    assert found["embeds"][0]["list"] == "ft_1 "
    assert found["embeds"][0]["color"] == 15548997


def test_the_error_of_a_template_names_its_place():
    template = TemplateBody({"a": ["{{ data.fine_tune.name }}"]})
    reason = "a.0: line 1: 'None' has no attribute 'name'"
    with pytest.raises(TemplateError, match=reason):
        template(build_message([TEST], SETTINGS), minimal=False)


def test_the_standard_body_replaces_a_minimal_form_that_cannot_be_rendered():
    message = build_message([TEST], SETTINGS)
    for text in ("{{ data.fine_tune.name }}", "{{ 1 / 0 }}", "{{ data }}"):
        rendered = TemplateBody({"a": text})(message, minimal=True)
        assert rendered == standard_body(message, minimal=True), text


def test_a_body_that_is_too_large_raises():
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


FAULTS = [
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
    (
        "{{ data.nam }}",
        "the names in data are account, observed_at, severity, links, previous_status",
    ),
    ("{{ nobody }}", f"the names here are {', '.join(NAMES)}"),
    ("{{ title", "line 1: is not valid Jinja2"),
]


def test_what_fails_for_some_message_only_is_found_by_the_check():
    for text, fault in FAULTS:
        [(path, found)] = body_faults({"a": [{"b": text}]})
        assert path == ("a", 0, "b"), text
        assert fault in found, text
        assert fault in str(line_fault(text, str)), text


ACCEPTED = [
    "{{ title }} {{ text }} {{ data|tojson }}",
    "{% for e in events[:9] %}{{ (e.data.fine_tune or e.data).id|default('-') }}{% endfor %}",
    "{{ data.reason or data.text or '' }}",
    "{{ data.failed_ones|default([], true)|map(attribute='name')|join(', ') }}",
    "{% for one in data.failed_ones or [] %}{{ one.name }} ({{ one.id }}) {% endfor %}",
    "{{ data.links.status_page or data.links.playground }}",
]


def test_a_template_that_renders_every_message_is_accepted():
    for text in ACCEPTED:
        assert body_faults({"a": text}) == [], text
        assert line_fault(text, str) is None, text


def test_every_fault_is_found():
    template = {"a": "{{ x }}", "b": {"c": ["ok", "{{ title"]}, "d": b"bytes"}
    assert [path for path, _ in body_faults(template)] == [("a",), ("b", "c", 1), ("d",)]


NOT_JSON: list[tuple[Any, str]] = [
    (float("nan"), "must be a finite number"),
    (float("-inf"), "must be a finite number"),
    (2**63, "must be a smaller number"),
    (b"bytes", "must be text, a number, true, false, null, a list or a map"),
    ({1, 2}, "must be text, a number, true, false, null, a list or a map"),
    ("\ud800", "must be valid Unicode text"),
    ({1: 2}, "must have text as its keys"),
    ({"\udfff": 2}, "must have text as its keys"),
]


def test_values_that_are_not_json_are_refused():
    for value, fault in NOT_JSON:
        assert body_faults({"a": {"b": value}}) == [(("a", "b"), fault)]


def test_cyclic_and_exponential_aliases_are_refused():
    cycle: dict[str, Any] = {}
    cycle["a"] = [cycle]
    forest: dict[str, Any] = {"x": "{{ title }}"}
    for _ in range(18):
        forest = {"a": forest, "b": forest, "c": forest}
    fault = "must have at most 500 values, at most 20 levels deep"
    assert body_faults(cycle) == body_faults(forest) == [((), fault)]


def test_a_line_is_checked_with_texts_as_its_receiver_writes_them():
    assert line_fault("{{ title[0] }}", str) is None
    assert "has no element 0" in str(line_fault("{{ title[0] }}", lambda _: ""))


def test_a_body_of_valid_texts_that_is_too_large_is_refused():
    text = "{% for e in events[:30] %}{{ e.data.fine_tune and e.data.fine_tune.name }}{% endfor %}"
    assert body_faults({"a": text}) == []
    [(path, fault)] = body_faults({str(n): text for n in range(9)})
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
    example, _ = re.findall(r"```yaml\n(.*?)```", documented(), re.DOTALL)
    [receiver] = yaml.safe_load(example)["receivers"]
    assert body_faults(receiver["template"]) == []
    content = body(*failures(12), template=receiver["template"])["content"]
    assert "- Voice 9 (ft_9)" in content
    assert "and 2 more" in content
