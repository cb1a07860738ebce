"""Links to a fine-tune and to a dashboard."""

import pytest

from exporter.core.links import LinkTemplates, details_url, fine_tune_path, grafana_url, links
from exporter.core.model import FineTune
from tests.core.sample_messages import AT, PAGES, of


def test_links_quote_the_fine_tune_id():
    assert links(of(FineTune("a/b?c=<d>|é")), PAGES.links) == {
        "details": "https://watch.example/fine-tunes/default/a%2Fb%3Fc%3D%3Cd%3E%7C%C3%A9",
        "playground": "https://play.example/tunes/a%2Fb%3Fc%3D%3Cd%3E%7C%C3%A9",
        "status_page": "https://watch.example/",
    }


def test_several_events_have_no_link_to_a_single_fine_tune():
    assert links(None, LinkTemplates("https://play.example/{id}")) == {
        "playground": "https://play.example/"
    }


def test_a_link_to_details_that_is_too_long_is_left_out():
    begin = len("https://watch.example/fine-tunes/default/")
    assert details_url(of(FineTune("a" * (2000 - begin))), PAGES.links)
    assert details_url(of(FineTune("a" * (2001 - begin))), PAGES.links) is None


@pytest.mark.parametrize("fine_tune_id", [".", ".."])
def test_an_id_that_a_browser_would_take_for_a_folder_is_a_parameter(fine_tune_id):
    assert fine_tune_path("a b", fine_tune_id) == f"/fine-tunes/a%20b/?fine_tune={fine_tune_id}"


def test_a_value_cannot_be_a_placeholder_and_a_long_url_is_left_out():
    templates = LinkTemplates("https://play.example/", grafana="https://g.example/{model_id}/{id}")
    event = of(FineTune("{from_ms}", model_id="{id}"))
    assert grafana_url(event, templates, None) == "https://g.example/%7Bid%7D/%7Bfrom_ms%7D"
    assert grafana_url(of(FineTune("x" * 2000)), templates, None) is None
    assert grafana_url(event, LinkTemplates("https://play.example/"), None) is None
    assert int(AT * 1000) == 1795460580900
