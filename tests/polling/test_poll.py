"""A poll: commit, publish and wake, in this order. A failed poll changes nothing."""

import asyncio

import pytest
from msgspec import structs
from msgspec.structs import replace

from exporter.cartesia.errors import REASONS, CartesiaError
from exporter.cartesia.listing import Listing
from exporter.core.account import PollResult
from exporter.core.events import Event
from exporter.core.grouping import QueuedEvent
from exporter.core.view import AccountStatus
from exporter.store.accounts import Accounts
from exporter.store.errors import StoreError
from exporter.store.outbox import Outbox
from tests.polling.poller_fixture import FAILURES, POLLS, PollerFixture, listing, open_poller
from tests.store.sample_polls import KEY, NOW, fine_tune

BEFORE = listing(fine_tune("a"), fine_tune("b", "completed"), pages=3)
AFTER = listing(fine_tune("a", "failed"), fine_tune("b", "completed"))


async def test_a_poll_publishes_what_it_read(tmp_path):
    async with open_poller(tmp_path / "state.db", BEFORE) as p:
        p.clock.now += 5
        await p.poller.poll()
        assert p.status.up
        assert p.status.pages == 3
        assert p.status.succeeded_at == p.status.polled_at == NOW + 5
        assert p.samples()["cartesia_fine_tunes", "training"] == 1
        assert p.samples()["cartesia_fine_tunes", "completed"] == 1
        assert p.samples()["cartesia_fine_tunes", "failed"] == 0


def error_of(reason) -> CartesiaError:
    return CartesiaError(reason, "of no use")


async def test_a_failed_poll_keeps_the_counts_and_queues_nothing(tmp_path):
    for reason in (*REASONS, "storage"):
        async with open_poller(tmp_path / f"{reason}.db", BEFORE) as p:
            assert p.metric(FAILURES, reason=reason) == 0
            await p.poller.poll()
            before, stored = p.status, await Accounts(p.database).load(KEY)
            p.clock.now += 60
            if reason == "storage":
                await p.refuse_events()
                p.answer(AFTER)
            else:
                p.answer(error_of(reason))
            for failures in (1, 2, 3):
                await p.poller.poll()
                assert p.metric(FAILURES, reason=reason) == failures
            assert p.status == replace(
                before,
                up=False,
                polled_at=NOW + 60,
                duration=p.status.duration,
                failure=reason,
                next_poll_at=p.status.next_poll_at,
                failing_since=NOW + 60,
            )
            assert p.status.next_poll_at >= NOW + 120
            assert p.samples()["cartesia_up", "default"] == 0, reason
            assert p.samples()["cartesia_fine_tunes", "training"] == 1, reason
            assert await Accounts(p.database).load(KEY) == stored, reason
            assert await p.queued() == [], reason
            assert p.wakes == [], reason
            assert p.metric(POLLS) == 4, reason


async def test_a_failure_during_an_outage_is_queued_once_afterwards(tmp_path):
    async with open_poller(
        tmp_path / "state.db", BEFORE, error_of("timeout"), error_of("timeout"), AFTER
    ) as p:
        for _ in range(5):
            await p.poller.poll()
        assert p.status.up
        assert p.status.failure == ""
        assert [event.type for event in await p.queued()] == ["fine_tune.failed"]
        assert len(p.wakes) == 1


async def test_a_poll_commits_then_publishes_then_wakes_the_receivers(tmp_path):
    async with open_poller(tmp_path / "state.db", BEFORE, AFTER) as p:
        await p.poller.poll()
        seen: list[tuple[str, asyncio.Future[list[QueuedEvent]], bool]] = []

        def observe(step: str) -> None:
            # The store's thread reads this after all that was requested before.
            pending = asyncio.ensure_future(Outbox(p.database, "slack").unsent())
            seen.append((step, pending, p.samples()["cartesia_fine_tunes", "failed"] == 1))

        settings = p.poller._settings

        def publish(status: AccountStatus) -> None:
            settings.publish(status)
            observe("publish")

        p.poller._settings = replace(settings, publish=publish, wake=lambda: observe("wake"))
        await p.poller.poll()
        steps = [(step, len(await pending), published) for step, pending, published in seen]
        assert steps == [("publish", 1, True), ("wake", 1, True)]


async def test_the_retry_of_a_failed_commit_has_the_same_event_ids(tmp_path, monkeypatch):
    async with open_poller(tmp_path / "state.db", BEFORE, AFTER) as p:
        await p.poller.poll()
        commit, tried = p.poller._accounts.commit, list[list[Event]]()

        async def noted(record) -> None:
            tried.append([event for event, _ in record.events])
            await commit(record)

        monkeypatch.setattr(p.poller._accounts, "commit", noted)
        await p.refuse_events()
        for _ in range(2):
            p.clock.now += 60
            await p.poller.poll()
        await p.accept_events()
        p.clock.now += 60
        await p.poller.poll()
        await p.poller.poll()
        ids = [[event.id for event in events] for events in tried]
        assert ids == [ids[0]] * 3
        assert [event.id for event in await p.queued()] == ids[0]


def hide_success_of_next_commit(p: PollerFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the next commit succeed, but raise StoreError."""
    accounts = p.poller._accounts
    commit = accounts.commit

    async def lost(record: PollResult) -> None:
        await commit(record)
        monkeypatch.setattr(accounts, "commit", commit)
        raise StoreError("the answer was lost")

    monkeypatch.setattr(accounts, "commit", lost)


async def test_an_unnoticed_successful_commit_queues_nothing_twice(tmp_path, monkeypatch):
    async with open_poller(tmp_path / "state.db", BEFORE, AFTER) as p:
        await p.poller.poll()
        hide_success_of_next_commit(p, monkeypatch)
        await p.poller.poll()
        assert p.metric(FAILURES, reason="storage") == 1
        await p.poller.poll()
        assert len(await p.queued()) == 1
        state = await Accounts(p.database).load(KEY)
        assert state is not None
        assert state.counters == p.status.counters
        assert sum(state.counters.transitions.values()) == 1


async def test_a_failure_after_an_unnoticed_successful_commit_has_its_own_event_id(
    tmp_path, monkeypatch
):
    """Counted from the state before that commit, it got the id of the earlier failure."""
    async with open_poller(tmp_path / "state.db", BEFORE, AFTER, BEFORE, BEFORE, AFTER) as p:
        await p.poller.poll()
        hide_success_of_next_commit(p, monkeypatch)
        for _ in range(4):
            await p.poller.poll()
        assert len({event.id for event in await p.queued()}) == 2


async def test_an_unchanged_poll_stores_nothing_and_does_not_wake_the_receivers(
    tmp_path, monkeypatch
):
    async with open_poller(tmp_path / "state.db", BEFORE) as p:
        await p.poller.poll()
        await p.refuse_events()
        await p.execute("CREATE TRIGGER u BEFORE UPDATE ON fine_tunes BEGIN SELECT 1/0; END")

        async def refuse(record) -> None:
            raise AssertionError(record)

        monkeypatch.setattr(p.poller._accounts, "commit", refuse)
        await p.poller.poll()
        assert p.status.up
        assert p.wakes == []


async def test_after_a_restart_counters_but_no_data_are_published_before_the_first_poll(tmp_path):
    path = tmp_path / "state.db"
    async with open_poller(path, BEFORE, AFTER) as p:
        await p.poller.poll()
        await p.poller.poll()
    async with open_poller(path, AFTER) as p:
        [status] = p.statuses
        assert status.counts is None
        assert not status.up
        assert status.counters.transitions == {("sonic-3", "training", "failed"): 1}
        names = {name for name, _ in p.samples()}
        assert "cartesia_fine_tunes" not in names
        assert "cartesia_fine_tune_transitions_total" in names
        await p.poller.poll()
        assert len(await p.queued()) == 1  # queued before the restart, not again


async def test_there_is_no_data_before_the_first_complete_poll(tmp_path):
    async with open_poller(tmp_path / "state.db", error_of("dns")) as p:
        await p.poller.poll()
        assert p.status.counts is None
        assert p.samples()["cartesia_up", "default"] == 0
        assert "cartesia_fine_tunes" not in {name for name, _ in p.samples()}


async def test_a_bug_is_raised_and_not_counted_as_a_failed_poll(tmp_path):
    async def bug() -> Listing:
        raise KeyError("a bug")

    async with open_poller(tmp_path / "state.db", bug) as p:
        with pytest.raises(KeyError, match="a bug"):
            await p.poller.poll()
        assert [p.metric(FAILURES, reason=reason) for reason in REASONS] == [0] * len(REASONS)


async def test_a_folded_label_value_is_counted_once(tmp_path):
    def models(*names: str) -> Listing:
        return listing(*(structs.replace(fine_tune(name), model_id=name) for name in names))

    answers = (models("m1", "m2"), models("m1", "m2", "m3", "m4"), models("m3", "m5"))
    async with open_poller(tmp_path / "state.db", *answers, max_models=2) as p:
        folded = []
        for _ in range(4):
            await p.poller.poll()
            folded.append(
                p.registry.get_sample_value("cartesia_exporter_label_values_folded_total")
            )
        assert folded == [0, 2, 3, 3]
        assert p.status.labels.models == ("m1", "m2", "other")
        assert {model for model, _ in p.status.counts or ()} == {"m1", "m2", "other"}
