"""What a poller publishes: data that ages by itself, stays that outlive a restart, labels."""

import asyncio
import math

from msgspec import structs

from exporter.cartesia.errors import CartesiaError
from exporter.core.model import FineTune
from exporter.core.view import SeriesOptions
from tests.exposition.rendered import metrics_of, openmetrics
from tests.polling.poller_fixture import STALE_AFTER, Bench, bench, listing, on_bench

DAY = 86_400.0
DOWN = CartesiaError("connect", "no route")
TRAINS = FineTune("a", model_id="m", language="en", status="training")
FAILED = structs.replace(TRAINS, status="failed")


def shown(b: Bench) -> tuple[bool, float, float]:
    """Whether there are data series now, and what up and stale are."""
    values = {
        sample.name: sample.value
        for metric in metrics_of([b.view], b.clock.now)
        for sample in metric.samples
    }
    return "cartesia_fine_tunes" in values, values["cartesia_up"], values["cartesia_stale"]


def test_an_outage_goes_from_keep_to_drop_and_back_by_itself(tmp_path):
    async def test(b: Bench) -> None:
        assert shown(b) == (False, 0, 0)
        await b.poller.turn()
        assert shown(b) == (True, 1, 0)
        b.then(DOWN)
        b.clock.now += 60
        await b.poller.turn()
        assert shown(b) == (True, 0, 0)
        b.clock.now += STALE_AFTER - 61
        assert shown(b) == (True, 0, 0)
        b.clock.now += 1
        assert shown(b) == (False, 0, 1)
        await b.poller.turn()
        assert shown(b) == (False, 0, 1)
        assert b.view.succeeded_at == b.clock.now - STALE_AFTER
        b.then(listing(TRAINS))
        await b.poller.turn()
        assert shown(b) == (True, 1, 0)

    on_bench(tmp_path / "state.db", test, listing(TRAINS))


def test_data_gets_too_old_while_a_poll_hangs(tmp_path):
    async def test(b: Bench) -> None:
        await b.poller.turn()
        asked = asyncio.Event()

        async def hang():
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

        b.then(hang)
        hanging = asyncio.create_task(b.poller.turn())
        await asked.wait()
        b.clock.now += STALE_AFTER
        assert shown(b) == (False, 1, 1)
        hanging.cancel()

    on_bench(tmp_path / "state.db", test, listing(TRAINS))


def test_an_account_that_was_never_read_is_stale_once_that_took_too_long(tmp_path):
    async def test(b: Bench) -> None:
        await b.poller.turn()
        assert shown(b) == (False, 0, 0)
        b.clock.now += STALE_AFTER
        assert shown(b) == (False, 0, 1)

    on_bench(tmp_path / "state.db", test, DOWN)


def test_a_clock_that_is_set_makes_nothing_older_or_younger(tmp_path):
    async def test(b: Bench) -> None:
        await b.poller.turn()
        b.clock.set_by = 86_400.0
        assert shown(b) == (True, 1, 0)
        await b.poller.turn()
        b.clock.set_by = -86_400.0
        b.clock.now += STALE_AFTER
        assert shown(b) == (False, 1, 1)

    on_bench(tmp_path / "state.db", test, listing(TRAINS))


def test_stays_and_label_values_outlive_a_restart_and_exemplars_do_not(tmp_path):
    shape = SeriesOptions(("language", "model_id"))

    async def run() -> None:
        async with bench(tmp_path / "state.db", listing(), shape=shape) as b:
            await b.poller.turn()
            b.then(listing(TRAINS))
            b.clock.now += 60
            await b.poller.turn()
            b.then(listing(FAILED))
            b.clock.now += 2 * DAY
            await b.poller.turn()
            stays, labels = b.view.counters.durations, b.view.labels
            assert [(key, each.total, each.seconds) for key, each in stays.items()] == [
                (("training", math.inf), 1, 2 * DAY)
            ]
            assert '# {fine_tune_id="a"} 1.0' in openmetrics(b.view)
        async with bench(tmp_path / "state.db", DOWN, shape=shape) as again:
            assert again.view.counters.durations == stays
            assert again.view.labels == labels
            assert labels.languages == ("en",)
            assert "fine_tune_id" not in openmetrics(again.view)
            again.then(listing(TRAINS))
            again.clock.now += 3 * DAY
            for _ in range(2):
                await again.poller.turn()
            assert again.view.counters.durations.keys() == {
                ("training", math.inf),
                ("failed", DAY),
            }

    asyncio.run(run())


def test_an_exemplar_stays_until_another_takes_its_place(tmp_path):
    async def test(b: Bench) -> None:
        await b.poller.turn()
        for fine_tunes in ([TRAINS], [TRAINS], [TRAINS, structs.replace(TRAINS, id="b")]):
            b.then(listing(*fine_tunes))
            await b.poller.turn()
            last = fine_tunes[-1].id
            assert f'# {{fine_tune_id="{last}"}} 1.0' in openmetrics(b.view)

    on_bench(tmp_path / "state.db", test, listing())
