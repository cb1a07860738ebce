"""README.md and docs/metrics.md agree with the program."""

import re

from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from exporter.agent.housekeeping import Housekeeper
from exporter.agent.ownership import OwnerMetrics
from exporter.agent.registry import new_registry
from exporter.agent.reload import Reloader, Reloading
from exporter.cartesia.client import ClientMetrics
from exporter.config import Config
from exporter.core.ownership import AGENT
from exporter.core.retry import CIRCUIT_CLOSED
from exporter.delivery.metrics import DeliveryMetrics
from exporter.polling.metrics import PollMetrics
from exporter.store.database import Database
from exporter.store.metrics import StoreMetrics
from exporter.store.receiver_outbox import Backlog
from exporter.store.retention import Retention
from tests.core.sample_account import EVERYTHING
from tests.docs.documents import ROOT, documents
from tests.exposition.rendered import metrics_of
from tests.fakes.clock import FakeClock
from tests.store.raw_sqlite import state_path

DOCUMENTS = documents()
README = DOCUMENTS["README.md"]
METRICS = DOCUMENTS["docs/metrics.md"]
CHANGELOG = DOCUMENTS["CHANGELOG.md"]
MAX_README_WORDS = 1500


async def never(config: Config) -> None:
    raise AssertionError(config)


def served_metrics(tmp_path):
    """Yield name, type, labels and HELP of each of our metrics that a running agent serves."""
    registry: CollectorRegistry = new_registry()
    for metrics in (ClientMetrics(registry), PollMetrics(registry)):
        metrics.initialise("default")
    deliveries = DeliveryMetrics(registry)
    deliveries.initialise("slack")
    deliveries.update("slack", Backlog(1, 0, 0.0), CIRCUIT_CLOSED, 0.0)
    database = Database(tmp_path / "state.db")
    state_path(database).touch()
    registry.register(StoreMetrics(database))
    registry.register(OwnerMetrics("0123456789", lambda: [AGENT], lambda _: True))
    clock = FakeClock(0).clock
    Housekeeper(Retention(database), Config, registry, clock)
    Reloader(Reloading(Config), never, registry, clock)
    options = replace(EVERYTHING.options, constant=())
    account_metrics = metrics_of([replace(EVERYTHING, options=options)])
    for family in (*account_metrics, *registry.collect()):
        if family.name.startswith("cartesia_"):
            suffix = "_total" if family.type == "counter" else ""
            labels = {name for sample in family.samples for name in sample.labels} - {"le"}
            yield f"{family.name}{suffix}", family.type, frozenset(labels), family.documentation


def documented_metrics():
    """Yield the cells of every row in the tables of docs/metrics.md."""
    for row in re.findall(r"^\| `cartesia_\w+` \|.*\|$", METRICS, re.MULTILINE):
        yield [cell.strip() for cell in row.strip("|").split(" | ")]


def test_every_served_metric_is_documented(tmp_path):
    rows = [
        (name.strip("`"), metric_type, frozenset(labels.split(", ")) - {""}, meaning)
        for name, metric_type, labels, meaning, *_ in documented_metrics()
    ]
    assert sorted(rows) == sorted(served_metrics(tmp_path))
    assert len(rows) > 30


def test_every_metric_has_an_example_query_and_a_stability():
    for name, _, _, _, query, stability in documented_metrics():
        assert re.fullmatch(rf"`[^`]*{name.strip('`')}(_bucket)?\b[^`]*`", query), name
        assert stability in {"stable", "experimental"}, name


def test_the_readme_names_only_documented_metrics():
    names = {row[0].strip("`") for row in documented_metrics()}
    named = set(re.findall(r"`(cartesia_\w+)", README))
    assert named <= names
    assert "](docs/metrics.md)" in README


def test_the_readme_begins_with_two_sentences_and_two_commands():
    title, about, commands = README.split("\n\n")[:3]
    assert title == "# cartesia-exporter"
    assert len(re.findall(r"\.(?:\s|$)", about)) == 2
    assert re.findall(r"^make \w+", commands, re.MULTILINE) == ["make demo", "make test"]


def test_the_readme_is_short():
    assert len(README.split()) <= MAX_README_WORDS


def test_the_readme_has_its_sections_in_order():
    assert re.findall(r"^## (.*)$", README, re.MULTILINE) == [
        "Install",
        "Slack",
        "Prometheus",
        "Alerts",
        "What happens when …",
        "Documentation",
    ]


def test_the_changelog_has_an_unreleased_section():
    assert "## [Unreleased]" in CHANGELOG


def test_the_design_names_modules_and_tests_that_exist():
    design = DOCUMENTS["docs/design.md"]
    files = re.findall(r"`((?:exporter/|tests/)?[\w/]+\.py)`", design)
    assert len(files) > 40
    for file in files:
        assert (ROOT / file).exists() or (ROOT / "exporter" / file).exists(), file
    for cell in re.findall(r"^\|.*\| (`tests/.*) \|$", design, re.MULTILINE):
        for file, names in re.findall(r"`(tests/[\w/]+\.py)`((?:,? `test_\w+`)*)", cell):
            for name in re.findall(r"test_\w+", names):
                assert f"def {name}(" in (ROOT / file).read_text("utf-8"), name
