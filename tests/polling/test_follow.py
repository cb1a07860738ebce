"""A poller that a reload puts in another's place goes on where that ended."""

from dataclasses import replace

from msgspec import structs
from structlog.testing import capture_logs

from exporter.cartesia.errors import CartesiaError
from exporter.core.view import SeriesOptions
from tests.polling.poller_fixture import SKIPPED, STALE_AFTER, Bench, listing, on_bench
from tests.store.sample_polls import NOW, fine_tune

TROUBLE = CartesiaError("server_error", "page 1: the API answered 500", status=500)
BUSY = CartesiaError("rate_limited", "page 1: the API answered 429", retry_after=120.0)
FOUND = listing(fine_tune("a", "completed"), structs.replace(fine_tune("b"), model_id="another"))
FOLDED = "cartesia_exporter_label_values_folded_total"


def test_what_was_shown_stays_shown_for_as_long_as_the_new_plan_says(tmp_path):
    async def test(b: Bench) -> None:
        await b.poller.poll()
        counts, stale_at = b.view.counts, b.view.stale_at
        await b.reload(stale_after=STALE_AFTER + 60)
        assert (b.view.counts, b.view.stale_at) == (counts, stale_at + 60)
        await b.reload(options=SeriesOptions(("model_id", "language")))
        assert b.view.counts is None

    on_bench(tmp_path / "state.db", test, FOUND)


def test_an_outage_is_told_by_its_beginning_before_the_reload(tmp_path):
    async def test(b: Bench) -> None:
        await b.poller.turn()
        b.clock.now += 500
        await b.reload(interval=30)
        b.clock.now += 101
        await b.poller.turn()
        assert [event.type for event in await b.owed()] == ["agent.poll_failing"]

    on_bench(tmp_path / "state.db", test, TROUBLE)


def test_a_wait_that_the_api_asked_for_goes_on(tmp_path):
    async def test(b: Bench) -> None:
        await b.poller.turn()
        await b.reload(interval=30)
        b.clock.now += 119
        await b.poller.turn()
        assert (b.source.asked, b.metric(SKIPPED)) == (1, 1)
        b.clock.now += 1
        await b.poller.turn()
        assert b.source.asked == 2

    on_bench(tmp_path / "state.db", test, BUSY, FOUND)


def test_a_clock_that_was_set_just_before_is_noticed(tmp_path):
    async def test(b: Bench) -> None:
        await b.poller.poll()
        b.clock.set_by = 86_400.0
        await b.reload(interval=30)
        with capture_logs() as logs:
            await b.poller.poll()
        assert [line["event"][:17] for line in logs if "clock" in line] == ["the clock was set"]

    on_bench(tmp_path / "state.db", test, FOUND)


def test_what_was_folded_already_is_not_counted_again(tmp_path):
    async def test(b: Bench) -> None:
        await b.reload(rules=replace(b.poller._plan.rules, max_models=1))
        await b.poller.poll()
        assert b.registry.get_sample_value(FOLDED) == 1
        await b.reload(interval=30)
        await b.poller.poll()
        assert b.registry.get_sample_value(FOLDED) == 1

    on_bench(tmp_path / "state.db", test, FOUND)


def test_another_account_of_the_same_name_goes_on_with_nothing(tmp_path):
    async def test(b: Bench) -> None:
        await b.poller.turn()
        rules = b.poller._plan.rules
        other = replace(rules.key, base_url="https://other.example")
        await b.reload(rules=replace(rules, key=other))
        await b.poller.turn()
        assert b.source.asked == 2
        assert b.view.succeeded_at == NOW

    on_bench(tmp_path / "state.db", test, BUSY, FOUND)
