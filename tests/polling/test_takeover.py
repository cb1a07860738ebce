"""What a poller takes over from the one that it replaces on reload."""

from msgspec import structs
from msgspec.structs import replace
from structlog.testing import capture_logs

from exporter.cartesia.errors import CartesiaError
from exporter.core.view import SeriesOptions
from tests.polling.poller_fixture import SKIPPED, STALE_AFTER, listing, open_poller
from tests.store.sample_polls import NOW, fine_tune

TROUBLE = CartesiaError("server_error", "page 1: the API answered 500", status=500)
BUSY = CartesiaError("rate_limited", "page 1: the API answered 429", retry_after=120.0)
FOUND = listing(fine_tune("a", "completed"), structs.replace(fine_tune("b"), model_id="another"))
FOLDED = "cartesia_exporter_label_values_folded_total"


async def test_counts_stay_published_until_stale_by_the_new_settings(tmp_path):
    async with open_poller(tmp_path / "state.db", FOUND) as p:
        await p.poller.poll()
        counts, stale_at = p.status.counts, p.status.stale_at
        await p.reload(stale_after=STALE_AFTER + 60)
        assert (p.status.counts, p.status.stale_at) == (counts, stale_at + 60)
        await p.reload(options=SeriesOptions(("model_id", "language")))
        assert p.status.counts is None


async def test_an_outage_counts_from_its_start_before_the_reload(tmp_path):
    async with open_poller(tmp_path / "state.db", TROUBLE) as p:
        await p.poller.poll_if_due()
        p.clock.now += 500
        await p.reload(interval=30)
        p.clock.now += 101
        await p.poller.poll_if_due()
        assert [event.type for event in await p.queued()] == ["agent.poll_failing"]


async def test_retry_after_is_honoured_across_a_reload(tmp_path):
    async with open_poller(tmp_path / "state.db", BUSY, FOUND) as p:
        await p.poller.poll_if_due()
        await p.reload(interval=30)
        p.clock.now += 119
        await p.poller.poll_if_due()
        assert (p.source.asked, p.metric(SKIPPED)) == (1, 1)
        p.clock.now += 1
        await p.poller.poll_if_due()
        assert p.source.asked == 2


async def test_a_clock_jump_just_before_a_reload_is_detected(tmp_path):
    async with open_poller(tmp_path / "state.db", FOUND) as p:
        await p.poller.poll()
        p.clock.set_by = 86_400.0
        await p.reload(interval=30)
        with capture_logs() as logs:
            await p.poller.poll()
        assert ["clock" in line for line in logs if line["log_level"] == "warning"] == [True]


async def test_folded_label_values_are_not_counted_again_after_a_reload(tmp_path):
    async with open_poller(tmp_path / "state.db", FOUND) as p:
        await p.reload(rules=replace(p.poller._settings.rules, max_models=1))
        await p.poller.poll()
        assert p.registry.get_sample_value(FOLDED) == 1
        await p.reload(interval=30)
        await p.poller.poll()
        assert p.registry.get_sample_value(FOLDED) == 1


async def test_another_account_of_the_same_name_takes_over_nothing(tmp_path):
    async with open_poller(tmp_path / "state.db", BUSY, FOUND) as p:
        await p.poller.poll_if_due()
        rules = p.poller._settings.rules
        other = replace(rules.key, base_url="https://other.example")
        await p.reload(rules=replace(rules, key=other))
        await p.poller.poll_if_due()
        assert p.source.asked == 2
        assert p.status.succeeded_at == NOW
