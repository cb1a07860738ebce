"""Metrics of a poller's status: staleness, counters and labels over restarts, exemplars."""

import asyncio
import math

from msgspec import structs

from exporter.cartesia.errors import CartesiaError
from exporter.core.model import FineTune
from exporter.core.view import SeriesOptions
from tests.exposition.rendered import metrics_of, openmetrics
from tests.polling.poller_fixture import STALE_AFTER, PollerFixture, listing, open_poller

DAY = 86_400.0
DOWN = CartesiaError("connect", "no route")
TRAINS = FineTune("a", model_id="m", language="en", status="training")
FAILED = structs.replace(TRAINS, status="failed")


def freshness(p: PollerFixture) -> tuple[bool, float, float]:
    """Whether there are data series now, and the values of up and stale."""
    values = {
        sample.name: sample.value
        for metric in metrics_of([p.status], p.clock.now)
        for sample in metric.samples
    }
    return "cartesia_fine_tunes" in values, values["cartesia_up"], values["cartesia_stale"]


async def test_data_is_shown_in_an_outage_until_it_is_stale(tmp_path):
    async with open_poller(tmp_path / "state.db", listing(TRAINS)) as p:
        assert freshness(p) == (False, 0, 0)
        await p.poller.poll_if_due()
        assert freshness(p) == (True, 1, 0)
        p.answer(DOWN)
        p.clock.now += 60
        await p.poller.poll_if_due()
        assert freshness(p) == (True, 0, 0)
        p.clock.now += STALE_AFTER - 61
        assert freshness(p) == (True, 0, 0)
        p.clock.now += 1
        assert freshness(p) == (False, 0, 1)
        await p.poller.poll_if_due()
        assert freshness(p) == (False, 0, 1)
        assert p.status.succeeded_at == p.clock.now - STALE_AFTER
        p.answer(listing(TRAINS))
        await p.poller.poll_if_due()
        assert freshness(p) == (True, 1, 0)


async def test_data_becomes_stale_while_a_poll_hangs(tmp_path):
    async with open_poller(tmp_path / "state.db", listing(TRAINS)) as p:
        await p.poller.poll_if_due()
        asked = asyncio.Event()

        async def hang():
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

        p.answer(hang)
        hanging = asyncio.create_task(p.poller.poll_if_due())
        await asked.wait()
        p.clock.now += STALE_AFTER
        assert freshness(p) == (False, 1, 1)
        hanging.cancel()


async def test_an_account_that_was_never_read_becomes_stale(tmp_path):
    async with open_poller(tmp_path / "state.db", DOWN) as p:
        await p.poller.poll_if_due()
        assert freshness(p) == (False, 0, 0)
        p.clock.now += STALE_AFTER
        assert freshness(p) == (False, 0, 1)


async def test_a_clock_jump_does_not_change_staleness(tmp_path):
    async with open_poller(tmp_path / "state.db", listing(TRAINS)) as p:
        await p.poller.poll_if_due()
        p.clock.set_by = 86_400.0
        assert freshness(p) == (True, 1, 0)
        await p.poller.poll_if_due()
        p.clock.set_by = -86_400.0
        p.clock.now += STALE_AFTER
        assert freshness(p) == (False, 1, 1)


async def test_durations_and_label_values_survive_a_restart_and_exemplars_do_not(tmp_path):
    options = SeriesOptions(("language", "model_id"))
    async with open_poller(tmp_path / "state.db", listing(), options=options) as p:
        for _ in range(2):
            await p.poller.poll_if_due()
        p.answer(listing(TRAINS))
        p.clock.now += 60
        await p.poller.poll_if_due()
        p.answer(listing(FAILED))
        p.clock.now += 2 * DAY
        await p.poller.poll_if_due()
        durations, labels = p.status.counters.durations, p.status.labels
        assert [(key, each.total, each.seconds) for key, each in durations.items()] == [
            (("training", math.inf), 1, 2 * DAY)
        ]
        assert '# {fine_tune_id="a"} 1.0' in openmetrics(p.status)
    async with open_poller(tmp_path / "state.db", DOWN, options=options) as again:
        assert again.status.counters.durations == durations
        assert again.status.labels == labels
        assert labels.languages == ("en",)
        assert "fine_tune_id" not in openmetrics(again.status)
        again.answer(listing(TRAINS))
        again.clock.now += 3 * DAY
        for _ in range(2):
            await again.poller.poll_if_due()
        assert again.status.counters.durations.keys() == {
            ("training", math.inf),
            ("failed", DAY),
        }


async def test_an_exemplar_is_shown_until_it_is_replaced(tmp_path):
    async with open_poller(tmp_path / "state.db", listing()) as p:
        for _ in range(2):
            await p.poller.poll_if_due()
        for fine_tunes in ([TRAINS], [TRAINS], [TRAINS, structs.replace(TRAINS, id="b")]):
            p.answer(listing(*fine_tunes))
            await p.poller.poll_if_due()
            last = fine_tunes[-1].id
            assert f'# {{fine_tune_id="{last}"}} 1.0' in openmetrics(p.status)
