"""The dashboard for Grafana: each panel has data, says what it shows, and needs no red or green."""

import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import combinations

import pytest
import yaml
from starlette.responses import PlainTextResponse

from docs.generate.dashboard.fine_tunes import STUCK_SECONDS
from docs.generate.dashboard.look import DASHES, PALETTE
from docs.generate.dashboard.receivers import BACKLOG_SECONDS
from exporter.core.model import STATUSES
from exporter.simulator.world import Population, World
from tests.deploy.boards import BOARD, PANELS, VARIABLES, Target, filled_in, found, targets
from tests.deploy.panel_answers import Span, answers
from tests.deploy.promql import selectors, strangers
from tests.deploy.test_rules import RULES, RULES_BY_ALERT
from tests.process.agent_process import Agent, until, url_of
from tests.process.fake_api import Api, ReceivedRequest, agent_config, fake_api, webhook
from tests.system.prometheus import Prometheus, prometheus

LABELS = ("account", "model_id", "receiver")


def answer(arrived: ReceivedRequest) -> PlainTextResponse:
    """Of the receivers one is well, one is broken, and one refuses what it is sent."""
    statuses = {"/ops": 200, "/broken": 500, "/refusing": 422}
    return PlainTextResponse("", statuses[arrived.path])


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, Prometheus]]:
    """A Prometheus that saw fine-tunes come, train, fail and be completed, and an outage."""
    folder = tmp_path_factory.mktemp("seen")
    with fake_api(world=World(Population(fine_tunes=30, fail_rate=0.2))) as (api, inbox):
        inbox.answer = answer
        names = ("ops", "broken", "refusing")
        config = agent_config(api, *(webhook(inbox, name) for name in names))
        with Agent(folder, **config).process() as process:
            target = url_of(process).removeprefix("http://")
            with prometheus(folder, target, [RULES]) as scraping:
                live_through(api, scraping)
                yield api, scraping


def live_through(api: Api, scraping: Prometheus) -> None:
    """Let happen what panels are about, each as soon as the one before was seen."""
    world, value = api.world, scraping.value
    until(lambda: (value("count_over_time(cartesia_up[1m])") or 0) >= 2, seconds=30)
    new = [world.add(model_id="sonic-2", status="created").id for _ in range(2)]
    for status in ("training", "failed", "completed"):
        moved = f'sum(cartesia_fine_tune_transitions_total{{to_status="{status}"}})'
        before = value(moved) or 0
        until(lambda: value("sum(cartesia_fine_tunes)") == len(world))
        for each in new if status == "training" else [new.pop()]:
            world.set_status(each, status)
        until(partial(grown, scraping, moved, before))
    api.answer = lambda _: PlainTextResponse("down", 500)
    until(lambda: value('sum(cartesia_exporter_poll_failures_total{reason="server_error"})'))
    api.answer = lambda _: None
    until(lambda: value("min_over_time(cartesia_up[1m])") == 0 and value("cartesia_up") == 1)
    until(lambda: value('cartesia_exporter_deliveries_dead{receiver="refusing"}'))


def has_data(scraping: Prometheus, target: Target) -> bool:
    query = filled_in(target.expr)
    if target.instant:
        value = scraping.value(query)
        return value is not None and math.isfinite(value)
    return any(math.isfinite(value) for value in scraping.values(query))


def grown(scraping: Prometheus, query: str, before: float) -> bool:
    return (scraping.value(query) or 0) > before


def silent(scraping: Prometheus) -> list[str]:
    return [str(target) for target in targets() if not has_data(scraping, target)]


def test_every_query_of_every_panel_has_data(seen):
    _, scraping = seen
    with suppress(AssertionError):
        until(lambda: silent(scraping) == [], 10)
    assert silent(scraping) == []
    assert len(targets()) > len(PANELS) > 25


def test_the_panels_show_what_there_is(seen):
    api, scraping = seen
    counts = Counter(each.status for each in api.world)
    asked = {str(target): target.expr for target in targets()}

    def shown(name, **chosen):
        return scraping.value(filled_in(asked[name], **chosen))

    assert shown("Fine-tunes A") == len(api.world)
    assert shown("In training A") == counts["training"]
    assert shown("Failed A") == 1
    assert shown("Accounts not readable A") == 0
    assert (shown("Alerts A") or 0) > 0
    assert (shown("Alerts B") or 0) > 0
    model = Counter(each.model_id for each in api.world)["sonic-2"]
    assert shown("Fine-tunes A", model="sonic-2", account="main") == model < len(api.world)
    assert shown("Fine-tunes A", account="another") is None


def test_every_panel_has_its_answers_in_a_picture(seen):
    _, scraping = seen
    now = time.time()
    drawn = list(answers(BOARD["panels"], scraping, Span(now - 60, now)))
    answered = [each.panel["title"] for each in drawn if each.lines]
    assert answered == [panel["title"] for panel in PANELS]
    assert [bool(each.examples) for each in drawn].count(True) == 1


def test_the_failures_point_to_the_fine_tune_that_failed(seen):
    api, scraping = seen
    failed = {each.id for each in api.world if each.status == "failed"}
    (query,) = (filled_in(target.expr) for target in targets() if target.exemplars)
    assert len(scraping.exemplars(query) & failed) == 1


def test_the_rules_are_evaluated_without_error_and_tell_what_failed(seen):
    _, scraping = seen

    def firing() -> set[tuple[str, ...]]:
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
    until(lambda: firing() == expected)
    assert len(scraping.rules()) == len(RULES_BY_ALERT)
    until(lambda: {rule["health"] for rule in scraping.rules()} == {"ok"})


def test_the_variables_offer_what_there_is(seen):
    api, scraping = seen
    offered = {}
    for name in ("account", "model"):
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", VARIABLES[name]["query"])
        assert asked is not None
        offered[name] = scraping.label_values(asked[2], filled_in(asked[1]))
    assert offered == {"account": {"main"}, "model": {each.model_id for each in api.world}}


@pytest.mark.parametrize("target", targets(), ids=str)
def test_a_panel_names_only_metrics_and_labels_that_are_documented(target):
    query = filled_in(target.expr)
    assert list(selectors(query)) != []
    assert strangers(query) == set()


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_in_which_unit_and_from_the_chosen_source(panel):
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert all(each["datasource"] == panel["datasource"] for each in panel["targets"])
    defaults = panel["fieldConfig"]["defaults"]
    # Without thresholds of its own, Grafana gives a panel green ones that turn red.
    assert defaults["thresholds"]["steps"]
    assert "unit" in defaults or panel["type"] == "state-timeline"


def test_titles_and_ids_of_panels_are_their_own():
    for name in ("title", "id"):
        counted = Counter(panel[name] for panel in BOARD["panels"] if panel["type"] != "row")
        assert max(counted.values()) == 1


def test_variables_are_the_source_the_account_and_the_model():
    assert list(VARIABLES) == ["datasource", "account", "model"]


def test_the_limits_of_panels_are_those_of_the_alerts():
    expr = {alert: rule["expr"] for alert, rule in RULES_BY_ALERT.items()}
    assert f"> {STUCK_SECONDS // 3600} * 3600" in expr["CartesiaFineTuneStuck"]
    assert f"> {BACKLOG_SECONDS // 60} * 60" in expr["CartesiaDeliveryBacklog"]


def test_every_colour_is_one_that_colour_blind_people_tell_from_the_others():
    assert set(found(BOARD["panels"], "color", "fixedColor", "iconColor")) <= PALETTE
    modes = {panel["fieldConfig"]["defaults"].get("color", {}).get("mode") for panel in PANELS}
    assert modes <= {"thresholds", "shades", None}


# Machado, Oliveira and Fernandes 2009, "A physiologically-based model for simulation of color
# vision deficiency", severity 1.0; of linear RGB.
SIGHT = {
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


def perceived(colour: str, sight: tuple[tuple[float, ...], ...]) -> list[float]:
    """The colour as it is seen, each part from 0 to 1."""
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    mixed = [sum(a * b for a, b in zip(row, linear, strict=True)) for row in sight]
    return [max(part, 0) ** (1 / 2.2) for part in mixed]


@pytest.mark.parametrize("sight", SIGHT)
def test_statuses_differ_in_colour_as_colour_blind_people_see_it_and_in_their_line(sight):
    assert set(DASHES) == set(STATUSES)
    seen_as = {status: perceived(colour, SIGHT[sight]) for status, (colour, _) in DASHES.items()}
    for one, other in combinations(seen_as, 2):
        assert math.dist(seen_as[one], seen_as[other]) > 0.1, (one, other)
    red, green = (perceived(colour, SIGHT[sight]) for colour in ("#B04040", "#5E6E3A"))
    assert math.dist(red, green) < 0.25
    (panel,) = (panel for panel in PANELS if panel["title"] == "Fine-tunes by status")
    styles = [yaml.safe_dump(each["properties"][1:]) for each in panel["fieldConfig"]["overrides"]]
    assert len(set(styles)) == len(STATUSES)


def test_states_are_written_out_with_a_shape_of_their_own():
    texts = [
        [each["text"] for each in mapping["options"].values()]
        for panel in PANELS
        if panel["type"] == "state-timeline"
        for mapping in panel["fieldConfig"]["defaults"]["mappings"]
    ]
    assert len(texts) == 2
    assert all(len(set(words)) == len(words) > 1 and all(words) for words in texts)
