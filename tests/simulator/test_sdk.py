"""Cartesia's own SDK reads the simulated API."""

from cartesia import Cartesia

from exporter.simulator.api import Simulation, create_app
from exporter.simulator.world import Population, World
from tests.simulator.served_app import KEY, served


def sdk(base_url: str) -> Cartesia:
    # In lower case the header replaces the SDK's own; otherwise the SDK sends both.
    version = {"cartesia-version": "2026-03-01"}
    return Cartesia(
        api_key=KEY, base_url=base_url, max_retries=0, timeout=10, default_headers=version
    )


def test_the_sdk_lists_all_in_order_forwards_and_backwards():
    world = World(Population(fine_tunes=253))
    every = [item.id for item in world]

    with served(create_app(Simulation(world))) as base_url, sdk(base_url) as cartesia:
        listed = cartesia.fine_tunes.list
        assert [item.id for item in listed(limit=100)] == every
        assert [item.id for item in listed()] == every

        # Backwards the newest page comes last; within a page the newest is first.
        listed_backwards = [item.id for item in listed(limit=100, ending_before=every[-1])]
        assert listed_backwards == every[152:252] + every[52:152] + every[:52]


def test_the_sdk_reads_each_field_and_has_more():
    world = World(Population(fine_tunes=101))
    newest = next(iter(world))

    with served(create_app(Simulation(world))) as base_url, sdk(base_url) as cartesia:
        page = cartesia.fine_tunes.list(limit=100)
        assert page.has_more is True  # type: ignore[attr-defined]
        last = cartesia.fine_tunes.list(limit=100, starting_after=page.data[-1].id)
        assert last.has_more is False  # type: ignore[attr-defined]
        assert len(last.data) == 1
        read = page.data[0]
        assert (read.name, read.description) == (newest.name, newest.description)
        assert (read.llm_model_id, read.dataset) == (newest.model_id, newest.dataset)
        assert (read.language, read.status) == (newest.language, newest.status)
        assert cartesia.fine_tunes.retrieve(newest.id) == read
        assert cartesia.get_status().ok is True
