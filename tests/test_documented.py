"""What the README and the example promise is what the program does."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from exporter.agent import new_registry
from exporter.cartesia.client import ClientMetrics
from exporter.cli import main
from exporter.core.circuit import WELL
from exporter.delivery.metrics import DeliveryMetrics
from exporter.housekeeping import Housekeeper, HousekeepingPlan
from exporter.poll_metrics import PollMetrics
from exporter.store.database import Database
from exporter.store.metrics import StoreMetrics
from exporter.store.records import Backlog
from tests.core.everything import EVERYTHING
from tests.core.exposed import metrics_of
from tests.fakes.clock import FakeClock

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def served(tmp_path):
    """Every metric family of ours that a running agent serves: name, type, labels."""
    registry: CollectorRegistry = new_registry()
    for metrics in (ClientMetrics(registry), PollMetrics(registry)):
        metrics.initialise("default")
    told = DeliveryMetrics(registry)
    told.initialise("slack")
    told.show("slack", Backlog(1, 0, 0.0), WELL)
    database = Database(tmp_path / "state.db")
    database.path.touch()
    registry.register(StoreMetrics(database))
    Housekeeper(database, HousekeepingPlan((), 0.0), registry, FakeClock(0).clock)
    given = metrics_of([EVERYTHING])
    for family in (*given, *registry.collect()):
        if family.name.startswith("cartesia_"):
            suffix = "_total" if family.type == "counter" else ""
            labels = {name for sample in family.samples for name in sample.labels} - {"le"}
            yield f"{family.name}{suffix}", family.type, frozenset(labels)


def documented():
    """Every row of the README's table of metrics: name, type, labels."""
    for name, kind, labels in re.findall(
        r"^\| `(cartesia_\w+)` \| (\w+) \|([^|]*)\|", README, re.MULTILINE
    ):
        yield name, kind, frozenset(label for label in labels.strip().split(", ") if label)


def test_the_readme_lists_every_metric_that_is_served_with_its_type_and_labels(tmp_path):
    assert sorted(documented()) == sorted(served(tmp_path))
    assert len(set(documented())) > 20


@pytest.mark.parametrize("name", sorted(main.commands))
def test_the_readme_names_every_command(name):
    assert re.search(rf"^\| `[^`]*{name}", README, re.MULTILINE)


def test_the_readme_begins_with_two_sentences_and_two_commands():
    title, about, commands = README.split("\n\n")[:3]
    assert title == "# cartesia-exporter"
    assert len(re.findall(r"\.(?:\s|$)", about)) == 2
    assert re.findall(r"^make \w+", commands, re.MULTILINE) == ["make demo", "make test"]


@pytest.mark.parametrize(
    "document",
    ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/webhook.md", "docs/alerts.md"],
)
def test_links_to_files_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / document).parent.joinpath(target).exists(), target


def test_the_changelog_has_a_section_for_what_is_not_released():
    assert "## [Unreleased]" in CHANGELOG
