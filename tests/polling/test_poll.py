"""One poll: what it stores and shows, in which order, and that a failed one changes nothing."""

import asyncio
from dataclasses import replace

import pytest
from msgspec import structs

from exporter.cartesia.errors import REASONS, CartesiaError
from exporter.cartesia.listing import Listing
from exporter.core.account import PollResult
from exporter.core.events import Event
from exporter.store.accounts import Accounts
from exporter.store.errors import StoreError
from exporter.store.outbox import Outbox, PendingEvent
from tests.polling.poller_fixture import FAILURES, POLLS, Bench, bench, listing, on_bench
from tests.store.sample_polls import KEY, NOW, fine_tune

BEFORE = listing(fine_tune("a"), fine_tune("b", "completed"), pages=3)
AFTER = listing(fine_tune("a", "failed"), fine_tune("b", "completed"))


def test_a_poll_shows_what_it_read(tmp_path):
    async def test(b: Bench) -> None:
        b.clock.now += 5
        await b.poller.poll()
        assert b.view.up
        assert b.view.pages == 3
        assert b.view.succeeded_at == b.view.polled_at == NOW + 5
        assert b.page()["cartesia_fine_tunes", "training"] == 1
        assert b.page()["cartesia_fine_tunes", "completed"] == 1
        assert b.page()["cartesia_fine_tunes", "failed"] == 0

    on_bench(tmp_path / "state.db", test, BEFORE)


def _fails(reason) -> CartesiaError:
    return CartesiaError(reason, "of no use")


@pytest.mark.parametrize("reason", [*REASONS, "storage"])
def test_a_poll_that_fails_keeps_the_counts_and_decides_nothing(tmp_path, reason):
    async def test(b: Bench) -> None:
        await b.poller.poll()
        shown, stored = b.view, await Accounts(b.database).load(KEY)
        b.clock.now += 60
        if reason == "storage":
            await b.forbid()
            b.then(AFTER)
        else:
            b.then(_fails(reason))
        for failures in (1, 2, 3):
            await b.poller.poll()
            assert b.metric(FAILURES, reason=reason) == failures
        assert b.view == replace(
            shown, up=False, polled_at=NOW + 60, duration=b.view.duration, failure=reason
        )
        assert b.page()["cartesia_up", "default"] == 0
        assert b.page()["cartesia_fine_tunes", "training"] == 1
        assert await Accounts(b.database).load(KEY) == stored
        assert await b.owed() == []
        assert b.wakes == []
        assert b.metric(POLLS) == 4

    on_bench(tmp_path / "state.db", test, BEFORE)


@pytest.mark.parametrize("reason", [*REASONS, "storage"])
def test_every_reason_is_counted_from_zero(tmp_path, reason):
    async def test(b: Bench) -> None:
        assert b.metric(FAILURES, reason=reason) == 0

    on_bench(tmp_path / "state.db", test, BEFORE)


def test_what_an_outage_hid_is_told_once_after_it(tmp_path):
    async def test(b: Bench) -> None:
        for _ in range(5):
            await b.poller.poll()
        assert b.view.up
        assert b.view.failure == ""
        assert [event.type for event in await b.owed()] == ["fine_tune.failed"]
        assert len(b.wakes) == 1

    on_bench(tmp_path / "state.db", test, BEFORE, _fails("timeout"), _fails("timeout"), AFTER)


def test_first_it_is_committed_then_shown_and_then_the_receivers_are_woken(tmp_path):
    async def run() -> None:
        async with bench(tmp_path / "state.db", BEFORE, AFTER) as b:
            await b.poller.poll()
            seen: list[tuple[str, int, bool]] = []

            def look(at: str) -> None:
                # In the store's one thread this runs after whatever was asked of it before.
                owed = asyncio.ensure_future(Outbox(b.database, "slack").unsent())
                looks.append((at, owed, b.page()["cartesia_fine_tunes", "failed"] == 1))

            looks: list[tuple[str, asyncio.Future[list[PendingEvent]], bool]] = []
            publish = b.poller._plan.publish

            def shown(view) -> None:
                publish(view)
                look("shown")

            b.poller._plan = replace(b.poller._plan, publish=shown, wake=lambda: look("woken"))
            await b.poller.poll()
            for at, owed, page in looks:
                seen.append((at, len(await owed), page))
            assert seen == [("shown", 1, True), ("woken", 1, True)]

    asyncio.run(run())


def test_a_commit_that_failed_is_detected_again_as_the_same_events(tmp_path, monkeypatch):
    async def test(b: Bench) -> None:
        await b.poller.poll()
        commit, tried = b.poller._accounts.commit, list[list[Event]]()

        async def noted(record) -> None:
            tried.append([event for event, _ in record.events])
            await commit(record)

        monkeypatch.setattr(b.poller._accounts, "commit", noted)
        await b.forbid()
        for _ in range(2):
            b.clock.now += 60
            await b.poller.poll()
        await b.allow()
        b.clock.now += 60
        await b.poller.poll()
        await b.poller.poll()
        ids = [[event.id for event in events] for events in tried]
        assert ids == [ids[0]] * 3
        assert [event.id for event in await b.owed()] == ids[0]

    on_bench(tmp_path / "state.db", test, BEFORE, AFTER)


def lose_the_next_answer(b: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the next commit succeed without being seen to."""
    accounts = b.poller._accounts
    commit = accounts.commit

    async def lost(record: PollResult) -> None:
        await commit(record)
        monkeypatch.setattr(accounts, "commit", commit)
        raise StoreError("the answer was lost")

    monkeypatch.setattr(accounts, "commit", lost)


def test_a_commit_whose_success_was_not_seen_owes_nothing_twice(tmp_path, monkeypatch):
    async def test(b: Bench) -> None:
        await b.poller.poll()
        lose_the_next_answer(b, monkeypatch)
        await b.poller.poll()
        assert b.metric(FAILURES, reason="storage") == 1
        await b.poller.poll()
        assert len(await b.owed()) == 1
        state = await Accounts(b.database).load(KEY)
        assert state is not None
        assert state.counters == b.view.counters
        assert sum(state.counters.transitions.values()) == 1

    on_bench(tmp_path / "state.db", test, BEFORE, AFTER)


def test_a_failure_behind_a_commit_whose_success_was_not_seen_is_an_event_of_its_own(
    tmp_path, monkeypatch
):
    """Counted from what was known before that commit, it had the id of the failure before it."""

    async def test(b: Bench) -> None:
        await b.poller.poll()
        lose_the_next_answer(b, monkeypatch)
        for _ in range(4):
            await b.poller.poll()
        assert len({event.id for event in await b.owed()}) == 2

    on_bench(tmp_path / "state.db", test, BEFORE, AFTER, BEFORE, BEFORE, AFTER)


def test_a_poll_that_found_nothing_new_writes_nothing_and_wakes_nobody(tmp_path, monkeypatch):
    async def test(b: Bench) -> None:
        await b.poller.poll()
        await b.forbid()
        await b.execute("CREATE TRIGGER u BEFORE UPDATE ON fine_tunes BEGIN SELECT 1/0; END")

        async def refuse(record) -> None:
            raise AssertionError(record)

        monkeypatch.setattr(b.poller._accounts, "commit", refuse)
        await b.poller.poll()
        assert b.view.up
        assert b.wakes == []

    on_bench(tmp_path / "state.db", test, BEFORE)


def test_after_a_restart_the_counters_are_shown_before_the_first_poll_and_no_data(tmp_path):
    path = tmp_path / "state.db"

    async def first(b: Bench) -> None:
        await b.poller.poll()
        await b.poller.poll()

    async def second(b: Bench) -> None:
        [view] = b.views
        assert view.counts is None
        assert not view.up
        assert view.counters.transitions == {("sonic-3", "training", "failed"): 1}
        names = {name for name, _ in b.page()}
        assert "cartesia_fine_tunes" not in names
        assert "cartesia_fine_tune_transitions_total" in names
        await b.poller.poll()
        assert len(await b.owed()) == 1  # told before the restart, not again

    on_bench(path, first, BEFORE, AFTER)
    on_bench(path, second, AFTER)


def test_before_the_first_complete_poll_there_is_no_data(tmp_path):
    async def test(b: Bench) -> None:
        await b.poller.poll()
        assert b.view.counts is None
        assert b.page()["cartesia_up", "default"] == 0
        assert "cartesia_fine_tunes" not in {name for name, _ in b.page()}

    on_bench(tmp_path / "state.db", test, _fails("dns"))


def test_a_bug_is_not_a_failed_poll(tmp_path):
    async def bug() -> Listing:
        raise KeyError("a bug")

    async def test(b: Bench) -> None:
        with pytest.raises(KeyError, match="a bug"):
            await b.poller.poll()
        assert [b.metric(FAILURES, reason=reason) for reason in REASONS] == [0] * len(REASONS)

    on_bench(tmp_path / "state.db", test, bug)


def test_a_model_that_is_folded_is_counted_once_as_long_as_it_stays(tmp_path):
    async def run() -> None:
        def models(*names: str) -> Listing:
            return listing(*(structs.replace(fine_tune(name), model_id=name) for name in names))

        answers = (models("m1", "m2"), models("m1", "m2", "m3", "m4"), models("m3", "m5"))
        async with bench(tmp_path / "state.db", *answers, max_models=2) as b:
            folded = []
            for _ in range(4):
                await b.poller.poll()
                folded.append(
                    b.registry.get_sample_value("cartesia_exporter_label_values_folded_total")
                )
            assert folded == [0, 2, 3, 3]
            assert b.view.labels.models == ("m1", "m2")
            assert {model for model, _ in b.view.counts or ()} == {"m1", "m2", "other"}

    asyncio.run(run())
