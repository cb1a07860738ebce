"""The Grafana dashboard: every panel has data, a description and distinguishable colours."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import combinations

import pytest
import yaml
from starlette.responses import PlainTextResponse

from docs.generate.dashboard.fine_tunes import STUCK_SECONDS
from docs.generate.dashboard.receivers import BACKLOG_SECONDS
from docs.generate.dashboard.style import PALETTE, STATUS_LINES
from exporter.core.model import STATUSES
from exporter.simulator.world import Population, World
from tests.deploy.dashboard_file import (
    DASHBOARD,
    PANELS,
    VARIABLES,
    Target,
    fill_in,
    find_texts,
    targets,
)
from tests.deploy.promql import selectors, undocumented_names
from tests.deploy.test_rules import RULES, RULES_BY_ALERT
from tests.process.agent_process import Agent, until, url_of
from tests.process.fake_api import Api, ReceivedRequest, agent_config, fake_api, webhook
from tests.system.prometheus import Prometheus, prometheus

LABELS = ("account", "model_id", "receiver")


def answer(arrived: ReceivedRequest) -> PlainTextResponse:
    """Answer for three receivers: one accepts, one fails, one refuses the messages."""
    statuses = {"/ops": 200, "/broken": 500, "/refusing": 422}
    return PlainTextResponse("", statuses[arrived.path])


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, Prometheus]]:
    """A Prometheus with the data of new, failed and completed fine-tunes and of an outage."""
    folder = tmp_path_factory.mktemp("scraped")
    with fake_api(world=World(Population(fine_tunes=30, fail_rate=0.2))) as (api, inbox):
        inbox.answer = answer
        names = ("ops", "broken", "refusing")
        config = agent_config(api, *(webhook(inbox, name) for name in names))
        with Agent(folder, **config).process() as process:
            target = url_of(process).removeprefix("http://")
            with prometheus(folder, target, [RULES]) as scraping:
                produce_data(api, scraping)
                yield api, scraping


def produce_data(api: Api, scraping: Prometheus) -> None:
    """Cause one event after the other, each when Prometheus has scraped the one before."""
    world, value = api.world, scraping.value
    until(lambda: (value("count_over_time(cartesia_up[1m])") or 0) >= 2, seconds=30)
    new = [world.add(model_id="sonic-2", status="created").id for _ in range(2)]
    for status in ("training", "failed", "completed"):
        transitions = f'sum(cartesia_fine_tune_transitions_total{{to_status="{status}"}})'
        before = value(transitions) or 0
        until(lambda: value("sum(cartesia_fine_tunes)") == len(world))
        for each in new if status == "training" else [new.pop()]:
            world.set_status(each, status)
        until(partial(has_increased, scraping, transitions, before))
    api.answer = lambda _: PlainTextResponse("down", 500)
    until(lambda: value('sum(cartesia_exporter_poll_failures_total{reason="server_error"})'))
    api.answer = lambda _: None
    until(lambda: value("min_over_time(cartesia_up[1m])") == 0 and value("cartesia_up") == 1)
    until(lambda: value('cartesia_exporter_deliveries_dead{receiver="refusing"}'))


def has_data(scraping: Prometheus, target: Target) -> bool:
    query = fill_in(target.expr)
    if target.instant:
        value = scraping.value(query)
        return value is not None and math.isfinite(value)
    return any(math.isfinite(value) for value in scraping.values(query))


def has_increased(scraping: Prometheus, query: str, before: float) -> bool:
    return (scraping.value(query) or 0) > before


def targets_without_data(scraping: Prometheus) -> list[str]:
    return [str(target) for target in targets() if not has_data(scraping, target)]


def test_every_query_of_every_panel_has_data(scraped):
    _, scraping = scraped
    with suppress(AssertionError):
        until(lambda: targets_without_data(scraping) == [], 10)
    assert targets_without_data(scraping) == []
    assert len(targets()) > len(PANELS) > 25


def test_the_panels_show_the_state_of_the_api(scraped):
    api, scraping = scraped
    counts = Counter(each.status for each in api.world)
    queries = {str(target): target.expr for target in targets()}

    def value(name, **selected):
        return scraping.value(fill_in(queries[name], **selected))

    assert value("Fine-tunes A") == len(api.world)
    assert value("In training A") == counts["training"]
    assert value("Failed A") == 1
    assert value("Accounts not readable A") == 0
    assert (value("Deliveries A") or 0) > 0
    assert (value("Deliveries B") or 0) > 0
    model = Counter(each.model_id for each in api.world)["sonic-2"]
    assert value("Fine-tunes A", model="sonic-2", account="main") == model < len(api.world)
    assert value("Fine-tunes A", account="another") is None


def test_exemplars_of_failures_name_the_failed_fine_tune(scraped):
    api, scraping = scraped
    failed = {each.id for each in api.world if each.status == "failed"}
    (query,) = (fill_in(target.expr) for target in targets() if target.exemplars)
    assert len(scraping.exemplars(query) & failed) == 1


def test_the_rules_are_evaluated_without_error_and_alert(scraped):
    _, scraping = scraped

    def alerts_firing() -> set[tuple[str, ...]]:
        return {
            (alert["labels"]["alertname"], *(alert["labels"].get(name, "") for name in LABELS))
            for rule in scraping.rules()
            for alert in rule["alerts"]
            if alert["state"] == "firing"
        }

    expected = {
        ("CartesiaFineTuneFailed", "main", "sonic-2", ""),
        ("CartesiaDeliveriesDead", "", "", "refusing"),
    }
    until(lambda: alerts_firing() == expected)
    assert len(scraping.rules()) == len(RULES_BY_ALERT)
    until(lambda: {rule["health"] for rule in scraping.rules()} == {"ok"})


def test_the_variables_offer_the_existing_values(scraped):
    api, scraping = scraped
    offered = {}
    for name in ("account", "model"):
        query = re.fullmatch(r"label_values\((.+), (\w+)\)", VARIABLES[name]["query"])
        assert query is not None
        offered[name] = scraping.label_values(query[2], fill_in(query[1]))
    assert offered == {"account": {"main"}, "model": {each.model_id for each in api.world}}


@pytest.mark.parametrize("target", targets(), ids=str)
def test_a_panel_queries_only_documented_metrics_and_labels(target):
    query = fill_in(target.expr)
    assert list(selectors(query)) != []
    assert undocumented_names(query) == set()


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_has_description_unit_and_selected_data_source(panel):
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert all(each["datasource"] == panel["datasource"] for each in panel["targets"])
    defaults = panel["fieldConfig"]["defaults"]
    # Without thresholds of its own, Grafana gives a panel green ones that turn red.
    assert defaults["thresholds"]["steps"]
    assert "unit" in defaults or panel["type"] == "state-timeline"


def test_titles_and_ids_of_panels_are_unique():
    for name in ("title", "id"):
        counted = Counter(panel[name] for panel in DASHBOARD["panels"] if panel["type"] != "row")
        assert max(counted.values()) == 1


def test_the_variables_are_data_source_account_and_model():
    assert list(VARIABLES) == ["datasource", "account", "model"]


def test_thresholds_of_panels_equal_those_of_the_alerts():
    expr = {alert: rule["expr"] for alert, rule in RULES_BY_ALERT.items()}
    assert f"> {STUCK_SECONDS // 3600} * 3600" in expr["CartesiaFineTuneStuck"]
    assert f"> {BACKLOG_SECONDS // 60} * 60" in expr["CartesiaDeliveryBacklog"]


def test_every_colour_is_of_the_colour_blind_safe_palette():
    assert set(find_texts(DASHBOARD["panels"], "color", "fixedColor", "iconColor")) <= PALETTE
    modes = {panel["fieldConfig"]["defaults"].get("color", {}).get("mode") for panel in PANELS}
    assert modes <= {"thresholds", "shades", None}


# Machado, Oliveira and Fernandes 2009, "A physiologically-based model for simulation of color
# vision deficiency", severity 1.0; of linear RGB.
COLOUR_BLINDNESS = {
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
}


def perceived(colour: str, matrix: tuple[tuple[float, ...], ...]) -> list[float]:
    """Return a colour as it is scraped, as three numbers from 0 to 1."""
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    mixed = [sum(a * b for a, b in zip(row, linear, strict=True)) for row in matrix]
    return [max(part, 0) ** (1 / 2.2) for part in mixed]


@pytest.mark.parametrize("matrix", COLOUR_BLINDNESS.values(), ids=COLOUR_BLINDNESS)
def test_statuses_differ_in_perceived_colour_and_in_their_line(matrix):
    assert set(STATUS_LINES) == set(STATUSES)
    colours = {status: perceived(colour, matrix) for status, (colour, _) in STATUS_LINES.items()}
    for one, other in combinations(colours, 2):
        assert math.dist(colours[one], colours[other]) > 0.1, (one, other)
    red, green = (perceived(colour, matrix) for colour in ("#B04040", "#5E6E3A"))
    assert math.dist(red, green) < 0.25
    (panel,) = (panel for panel in PANELS if panel["title"] == "Fine-tunes by status")
    styles = [yaml.safe_dump(each["properties"][1:]) for each in panel["fieldConfig"]["overrides"]]
    assert len(set(styles)) == len(STATUSES)


def test_states_are_shown_as_distinct_texts():
    texts = [
        [each["text"] for each in mapping["options"].values()]
        for panel in PANELS
        if panel["type"] == "state-timeline"
        for mapping in panel["fieldConfig"]["defaults"]["mappings"]
    ]
    assert len(texts) == 2
    assert all(len(set(words)) == len(words) > 1 and all(words) for words in texts)
