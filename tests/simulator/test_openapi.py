"""The simulated API conforms to the OpenAPI document of the list."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, seed, settings

from exporter.simulator.api import Simulation, create_app
from exporter.simulator.world import Population, World
from tests.simulator.served_app import KEY, served

DOCUMENT = Path(__file__).parent / "fine-tunes.openapi.yaml"
AUTH = {"Authorization": f"Bearer {KEY}"}


def count_statuses(base_url: str, mode: str) -> Counter[int]:
    """Send generated requests, check each response, and count the statuses."""
    # Imported here: it takes a second, which each worker would spend at its start.
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
    )

    # The document has no errors and no limits, so refusals are not checked further.
    checks = [not_a_server_error, response_schema_conformance, content_type_conformance]
    generated = schemathesis.GenerationMode(mode)
    schema = schemathesis.openapi.from_path(DOCUMENT)
    schema.config.update(base_url=base_url)
    requests = schema["/fine-tunes/"]["GET"].as_strategy(generation_mode=generated)
    seen: Counter[int] = Counter()

    @seed(1)
    @settings(max_examples=50, deadline=None, database=None)
    @given(requests)
    def run(case):
        response = case.call_and_validate(headers=AUTH, checks=checks, timeout=10)
        seen[response.status_code] += 1

    run()
    return seen


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("positive", 200), ("negative", 400)],
)
def test_responses_to_generated_requests_are_as_documented(mode, expected):
    app = create_app(Simulation(World(Population(fine_tunes=250))))
    with served(app) as base_url:
        seen = count_statuses(base_url, mode)
    assert seen[expected] >= 5, seen
