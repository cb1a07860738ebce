"""The picture is of the dashboard of today, each panel in it, whatever its series are named."""

import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.deploy.boards import BOARD
from tests.documents.picture.answers import Answer, Line, Span
from tests.documents.picture.page import PICTURE, picture
from tests.documents.picture.units import shown, ticks

SPAN = Span(1000, 1600)
TITLES = sorted(panel["title"] for panel in BOARD["panels"])


def titles(drawn: str) -> list[str]:
    texts = ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")
    bold = [each for each in texts if each.get("font-weight") == "bold"]
    return sorted(str(each.text) for each in bold if each.get("font-size") == "12")


def made_up(panel: dict[str, Any]) -> Answer:
    """Two series a query, the second with a gap; of a table one cell."""
    labels = {"model_id": "<b>&", "status": "failed"}
    values = [(1000.0, 1.0), (1020.0, 0.0), (1400.0, 1.0)]
    lines = [
        Line(name, target["refId"], labels, values[begin:])
        for target in panel.get("targets", ())
        for begin, name in enumerate(("failed", "]]><&\"' \u202e"))
    ]
    return Answer(panel, lines, [(1300.0, 1.0)])


def test_the_picture_is_of_the_dashboard_of_today():
    assert titles(PICTURE.read_text(encoding="utf-8")) == TITLES, "run `make picture`"


def test_the_picture_says_that_grafana_did_not_draw_it():
    assert "not by Grafana" in PICTURE.read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [made_up, lambda panel: Answer(panel, [], [])])
def test_every_panel_is_drawn_with_whatever_series_it_has_and_with_none(content):
    drawn = picture([content(panel) for panel in BOARD["panels"]], SPAN)
    assert titles(drawn) == TITLES
    assert drawn.count("no data") == (content is not made_up) * 12
    assert ("&lt;b&gt;&amp;" in drawn) == (content is made_up)
    assert not re.search(r"nan|inf\b|None", drawn)


@given(st.floats(min_value=1e-6, max_value=1e12), st.sampled_from(["short", "s"]))
def test_the_marks_of_an_axis_hold_every_value_and_are_few(highest, unit):
    marks = ticks(highest, unit)
    assert marks[0] == 0
    assert marks[-1] >= highest * (1 - 1e-6)
    assert 2 <= len(marks) <= 6
    assert marks == sorted(set(marks))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "s", "0"),
        (0.0125, "s", "12.5 ms"),
        (90, "s", "1.5 min"),
        (7200, "s", "2 h"),
        (75 * 2**20, "bytes", "75 MiB"),
        (0.255, "percentunit", "25.5%"),
        (2.345, "reqps", "2.35 req/s"),
        (1234.5, "short", "1234"),
    ],
)
def test_a_number_is_shown_with_its_unit(value, unit, text):
    assert shown(value, unit) == text
