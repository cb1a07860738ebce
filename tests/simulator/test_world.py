"""The simulated world: numbers, order, pages, status changes and random choices."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.simulator.world import (
    HOSTILE_TEXTS,
    FineTune,
    Population,
    UnknownFineTuneError,
    World,
)

ALLOWED_CHANGES = {
    ("created", "training"),
    ("training", "completed"),
    ("training", "failed"),
    ("failed", "created"),
}

populations = st.builds(
    Population,
    fine_tunes=st.integers(0, 120),
    fail_rate=st.floats(0, 1),
    churn=st.floats(0, 5),
    reattempt_rate=st.floats(0, 0.5),
    seed=st.integers(0, 2**32),
)


def ids(world: World) -> list[str]:
    return [fine_tune.id for fine_tune in world]


def forwards(world: World, limit: int) -> list[str]:
    found: list[str] = []
    while True:
        page = world.page(limit, starting_after=found[-1] if found else None)
        found += [fine_tune.id for fine_tune in page.data]
        if not page.has_more:
            return found


def backwards(world: World, limit: int, start: str) -> list[str]:
    found = [start]
    while True:
        page = world.page(limit, ending_before=found[0])
        found[:0] = [fine_tune.id for fine_tune in page.data]
        if not page.has_more:
            return found


@given(populations, st.integers(0, 8), st.integers(1, 100))
def test_following_the_pages_lists_each_fine_tune_once_in_order(population, ticks, limit):
    world = World(population)
    for _ in range(ticks):
        world.tick()
    every = ids(world)
    assert len(set(every)) == len(every) == len(world)
    assert forwards(world, limit) == every
    if every:
        assert backwards(world, limit, every[-1]) == every


@given(st.integers(0, 30), st.integers(1, 40), st.data())
def test_a_page_is_the_slice_next_to_its_cursor(count, limit, data):
    world = World(Population(fine_tunes=count))
    every = ids(world)
    first = world.page(limit)
    assert ([item.id for item in first.data], first.has_more) == (every[:limit], count > limit)
    if count:
        at = data.draw(st.integers(0, count - 1))
        after = world.page(limit, starting_after=every[at])
        assert [item.id for item in after.data] == every[at + 1 : at + 1 + limit]
        assert after.has_more == (at + 1 + limit < count)
        before = world.page(limit, ending_before=every[at])
        assert [item.id for item in before.data] == every[max(at - limit, 0) : at]
        assert before.has_more == (at - limit > 0)


@given(populations, st.integers(0, 8))
def test_churn_keeps_the_number_of_fine_tunes(population, ticks):
    world = World(population)
    for _ in range(ticks):
        world.tick()
        assert len(world) == population.fine_tunes


def test_churn_above_the_number_of_fine_tunes_replaces_all():
    world = World(Population(fine_tunes=3, churn=1000))
    before = set(ids(world))
    world.tick()
    assert len(world) == 3
    assert before.isdisjoint(ids(world))


def test_churn_is_the_average_number_of_new_fine_tunes_per_tick():
    world = World(Population(fine_tunes=1000, churn=2.5))
    before = set(ids(world))
    for _ in range(40):
        world.tick()
    new = len(set(ids(world)) - before)
    assert 75 <= new <= 110  # 100, less those created and deleted within the 40 ticks
    assert len(world) == 1000


def test_without_churn_the_ids_stay_the_same():
    world = World(Population(fine_tunes=50, reattempt_rate=0.5))
    before = ids(world)
    for _ in range(50):
        world.tick()
    assert ids(world) == before


@settings(max_examples=25)
@given(populations, st.integers(0, 8))
def test_the_same_seed_gives_the_same_world(population, ticks):
    one, other = World(population), World(population)
    for _ in range(ticks):
        one.tick()
        other.tick()
    assert list(one) == list(other)


def test_another_seed_gives_another_world():
    assert not set(ids(World(Population(seed=1)))) & set(ids(World(Population(seed=2))))


@given(populations)
def test_statuses_change_only_as_in_the_real_api(population):
    world = World(population)
    for _ in range(10):
        before = {item.id: item.status for item in world}
        world.tick()
        changes = {(before[item.id], item.status) for item in world if item.id in before}
        assert {change for change in changes if change[0] != change[1]} <= ALLOWED_CHANGES


def test_a_tick_visits_only_fine_tunes_that_may_change():
    world = World(Population(fine_tunes=500, churn=3, reattempt_rate=0.1))
    for _ in range(20):
        world.tick()
        assert set(world._changing) == {item.id for item in world if item.status != "completed"}


def test_without_reattempts_every_fine_tune_ends_for_good():
    world = World(Population(fine_tunes=100, reattempt_rate=0, fail_rate=0.5))
    for _ in range(200):
        world.tick()
    ended = list(world)
    assert {item.status for item in ended} == {"completed", "failed"}
    for _ in range(20):
        world.tick()
    assert list(world) == ended


def test_a_reattempt_keeps_the_id():
    world = World(Population(fine_tunes=0, reattempt_rate=1))
    new = world.add(status="failed")
    world.tick()
    assert world.get(new.id).status == "created"


@pytest.mark.parametrize(("fail_rate", "absent"), [(0, "failed"), (1, "completed")])
def test_the_fail_rate_decides_the_final_status(fail_rate, absent):
    world = World(Population(fine_tunes=60, fail_rate=fail_rate, reattempt_rate=0))
    for _ in range(100):
        world.tick()
    assert absent not in {item.status for item in world}


def test_the_initial_world_has_plausible_shares_and_hostile_texts():
    world = World(Population(fine_tunes=1000))
    count = Counter(item.status for item in world)
    assert count["completed"] > 800
    assert 60 < count["failed"] < 140
    assert 0 < count["created"] + count["training"] < 40
    assert {item.name for item in world} >= set(HOSTILE_TEXTS)
    assert len({item.model_id for item in world}) == 4
    assert all(len(item.id) == len("fine_tune_") + 22 for item in world)


def test_fine_tunes_can_be_added_changed_and_deleted():
    world = World(Population(fine_tunes=3))
    new = world.add(name="Ada", model_id="sonic-9")
    assert isinstance(new, FineTune)
    assert (new.name, new.model_id, new.status) == ("Ada", "sonic-9", "created")
    assert ids(world)[0] == new.id
    world.set_status(new.id, "queued")
    world.tick()
    assert world.get(new.id).status == "queued"
    world.delete(new.id)
    assert len(world) == 3
    world.add(id=new.id)
    with pytest.raises(ValueError, match="already"):
        world.add(id=new.id)
    assert len(world) == 4


def test_every_method_refuses_an_unknown_id():
    world = World(Population())
    gone = ids(world)[5]
    world.delete(gone)
    for method in (world.get, world.delete, lambda gone: world.page(10, gone)):
        with pytest.raises(UnknownFineTuneError):
            method(gone)
    with pytest.raises(UnknownFineTuneError):
        world.page(10, ending_before=gone)
    with pytest.raises(UnknownFineTuneError):
        world.set_status(gone, "failed")
    with pytest.raises(ValueError, match="exclude"):
        world.page(10, ids(world)[0], ids(world)[1])
