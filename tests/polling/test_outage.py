"""Events of a long outage and of its end, over restarts too."""

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from exporter.cartesia.errors import CartesiaError
from exporter.core.events import Event
from exporter.store.accounts import Accounts
from exporter.store.errors import StoreError
from tests.polling.poller_fixture import FAILURES, SKIPPED, PollerFixture, listing, open_poller
from tests.store.sample_polls import KEY, NOW, fine_tune

TROUBLE = CartesiaError("server_error", "page 1: the API answered 500", status=500)
BEFORE = listing(fine_tune("a", "completed"))
AFTER = listing(fine_tune("a", "failed"))
TYPES = ["agent.poll_failing", "agent.poll_recovered"]


async def poll_for(p: PollerFixture, seconds: float, every: float = 60) -> None:
    """Poll at an interval for this long, at first immediately."""
    end = p.clock.now + seconds
    while p.clock.now < end:
        await p.poller.poll_if_due()
        p.clock.now += every


async def queued(p: PollerFixture) -> list[str]:
    return [event.type for event in await p.queued()]


async def stored_outage(p: PollerFixture) -> float | None:
    outage = await Accounts(p.database).outage(KEY)
    return None if outage is None else outage.since


async def test_a_long_outage_and_its_end_are_notified_once(tmp_path):
    async with open_poller(tmp_path / "state.db", BEFORE, TROUBLE) as p:
        await p.poller.poll_if_due()
        p.clock.now += 60
        await poll_for(p, 600)
        assert await queued(p) == []
        assert p.wakes == []
        await poll_for(p, 3600)
        assert await queued(p) == ["agent.poll_failing"]
        assert p.wakes == [NOW + 660]
        p.answer(AFTER)
        await poll_for(p, 600)
        failing, recovered, failed = await p.queued()
        assert failing.observed_at == NOW + 660
        assert failing.facts["reason"] == "server_error"
        assert "(server_error): page 1: the API answered 500." in str(failing.facts["text"])
        assert (recovered.type, failed.type) == ("agent.poll_recovered", "fine_tune.failed")
        assert recovered.facts["seconds"] == 4200
        assert recovered.facts["since"] == failing.facts["since"] == "2027-01-15T08:01:00Z"
        assert len(p.wakes) == 2
        assert await stored_outage(p) is None


async def test_the_end_says_what_changed_meanwhile(tmp_path):
    before = [fine_tune("a"), fine_tune("b"), fine_tune("c"), fine_tune("gone")]
    after = [
        fine_tune("a", "failed"),
        fine_tune("b", "failed"),
        fine_tune("c", "completed"),
        fine_tune("new"),
        fine_tune("new and failed", "failed"),
    ]
    async with open_poller(tmp_path / "state.db", listing(*before)) as p:
        await p.poller.poll_if_due()
        p.answer(TROUBLE)
        await poll_for(p, 660)
        p.answer(listing(*after))
        await p.poller.poll_if_due()
        [recovered] = [e for e in await p.queued() if e.type == "agent.poll_recovered"]
        changes = {"failed": 3, "completed": 1, "created": 1, "removed": 1}
        assert {name: recovered.facts[name] for name in changes} == changes
        assert recovered.facts["text"] == (
            "It could not be read for 11 min. Meanwhile 3 fine-tunes failed, 1 completed, 1 was "
            "created and 1 is no longer listed."
        )


async def test_the_end_says_that_nothing_changed(tmp_path):
    async with open_poller(tmp_path / "state.db", BEFORE) as p:
        await p.poller.poll_if_due()
        p.answer(TROUBLE)
        await poll_for(p, 660)
        p.answer(BEFORE)
        await p.poller.poll_if_due()
        [_, recovered] = await p.queued()
        assert str(recovered.facts["text"]).endswith("Nothing changed meanwhile.")


async def test_a_short_outage_is_not_notified(tmp_path):
    async with open_poller(tmp_path / "state.db", BEFORE) as p:
        await p.poller.poll_if_due()
        p.answer(TROUBLE)
        await poll_for(p, 540)
        await p.refuse_events()
        p.answer(BEFORE)
        await poll_for(p, 120)
        assert p.status.up
        p.answer(TROUBLE)
        await poll_for(p, 540)  # with the first this would be long enough
        assert await queued(p) == []
        assert p.wakes == []


async def test_failing_after_zero_disables_notifications(tmp_path):
    async with open_poller(tmp_path / "state.db", TROUBLE, failing_after=0) as p:
        await poll_for(p, 86_400, every=3600)
        p.answer(BEFORE)
        await p.poller.poll_if_due()
        assert await queued(p) == []


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        pytest.param(
            CartesiaError("rate_limited", "slow down", retry_after=86_400), False, id="Retry-After"
        ),
        pytest.param(CartesiaError("unauthorized", "no"), True, id="refused key"),
    ],
)
async def test_an_outage_continues_while_polls_are_skipped(tmp_path, error, refused):
    async with open_poller(tmp_path / "state.db", error, failing_after=300) as p:
        p.source.refused = refused
        await poll_for(p, 420)
        assert (p.source.asked, p.metric(SKIPPED)) == (1, 6)
        assert await queued(p) == ["agent.poll_failing"]
        assert p.wakes == [NOW + 300]


async def test_an_outage_and_its_end_are_notified_once_over_restarts(tmp_path):
    path = tmp_path / "state.db"
    async with open_poller(path, BEFORE) as p:
        await p.poller.poll_if_due()
        p.answer(TROUBLE)
        await poll_for(p, 660)
        assert await queued(p) == TYPES[:1]
    async with open_poller(path, TROUBLE) as p:
        p.clock.now += 1000
        await poll_for(p, 86_400, every=3600)
        assert await queued(p) == TYPES[:1]
        p.answer(BEFORE)
        await p.poller.poll_if_due()
        failing, recovered = await p.queued()
        assert recovered.type == "agent.poll_recovered"
        assert recovered.facts["since"] == failing.facts["since"]
    async with open_poller(path, BEFORE) as p:
        await poll_for(p, 120)
        assert await queued(p) == TYPES


@pytest.mark.parametrize("failing_after", [600, 0])
async def test_the_end_is_notified_after_a_restart_with_any_failing_after(tmp_path, failing_after):
    """Without the end, whoever was notified would keep looking for the cause."""
    path = tmp_path / "state.db"
    async with open_poller(path, TROUBLE) as p:
        await poll_for(p, 660)
    async with open_poller(path, BEFORE, failing_after=failing_after) as p:
        p.clock.now += 5000
        await p.poller.poll_if_due()
        assert await queued(p) == TYPES
        assert (await p.queued())[1].facts["seconds"] == 660 + 5000
        assert await stored_outage(p) is None


@pytest.mark.parametrize("jump", [-9e8, -86_400, 0, 86_400, 9e8])
async def test_the_length_of_an_outage_does_not_depend_on_the_wall_clock(tmp_path, jump):
    path = tmp_path / "state.db"
    async with open_poller(path, TROUBLE) as p:
        await poll_for(p, 120)
        p.clock.set_by = jump
        await poll_for(p, 420)
        assert await queued(p) == []
    async with open_poller(path, TROUBLE) as p:
        p.clock.set_by = 2 * jump
        await poll_for(p, 60)
        assert await queued(p) == []
        await poll_for(p, 60)
        assert await queued(p) == TYPES[:1]
        p.answer(BEFORE)
        await p.poller.poll_if_due()
        failing, recovered = await p.queued()
        assert recovered.facts["seconds"] == 660
        assert failing.facts["since"] == recovered.facts["since"] == "2027-01-15T08:00:00Z"


async def test_an_outage_that_is_short_in_each_process_is_notified(tmp_path):
    for number in range(12):
        async with open_poller(tmp_path / "state.db", TROUBLE) as p:
            await poll_for(p, 60, every=20)
            assert await queued(p) == TYPES[: number >= 10]


async def test_an_outage_ends_although_it_was_not_notified_and_nothing_changed(tmp_path):
    async with open_poller(tmp_path / "state.db", BEFORE) as p:
        await p.poller.poll_if_due()
        p.answer(TROUBLE)
        await poll_for(p, 540)
    async with open_poller(tmp_path / "state.db", BEFORE) as p:
        assert await stored_outage(p) is not None
        await p.poller.poll_if_due()
        assert await stored_outage(p) is None
        p.answer(TROUBLE)
        await poll_for(p, 540)
        assert await queued(p) == []


async def test_an_outage_without_a_baseline_is_notified(tmp_path):
    async with open_poller(tmp_path / "state.db", TROUBLE) as p:
        await poll_for(p, 660)
        assert await Accounts(p.database).load(KEY) is None
        p.answer(BEFORE)
        await p.poller.poll_if_due()
        failing, recovered = await p.queued()
        assert "its watch has not begun" in str(failing.facts["text"])
        assert "Its watch begins now" in str(recovered.facts["text"])


async def test_each_outage_is_notified(tmp_path):
    async with open_poller(tmp_path / "state.db", BEFORE) as p:
        for _ in range(2):
            p.answer(TROUBLE)
            await poll_for(p, 660)
            p.answer(BEFORE)
            await poll_for(p, 60)
        assert await queued(p) == TYPES * 2
        assert len(p.wakes) == 4


async def test_storing_the_outage_is_retried_at_each_interval(tmp_path):
    async with open_poller(tmp_path / "state.db", BEFORE) as p:
        await p.poller.poll_if_due()
        await p.refuse_events()
        p.answer(AFTER)
        with capture_logs() as logs:
            await poll_for(p, 1200)
        assert p.metric(FAILURES, reason="storage") == 20
        assert p.wakes == []
        lines = [line["event"] for line in logs]
        assert lines.count("account cannot be read") == 1
        assert lines.count("cannot store the outage; receivers are not notified yet") == 10
        p.answer(TROUBLE)
        await p.accept_events()
        await poll_for(p, 60)
        [failing] = await p.queued()
        assert failing.facts["reason"] == "server_error"


async def test_an_outage_that_was_never_stored_has_no_recovery(tmp_path):
    async with open_poller(tmp_path / "state.db", TROUBLE) as p:
        await p.refuse_events()
        await poll_for(p, 1200)
        await p.accept_events()
        p.answer(BEFORE)
        await poll_for(p, 60)
        assert p.status.up
        assert await queued(p) == []


async def test_an_outage_whose_successful_commit_was_unnoticed_has_a_recovery(
    tmp_path, monkeypatch
):
    async with open_poller(tmp_path / "state.db", TROUBLE) as p:
        store = p.poller._accounts.store_outage

        async def lost(account, outage, events) -> None:
            await store(account, outage, events)
            raise StoreError("the answer was lost")

        monkeypatch.setattr(p.poller._accounts, "store_outage", lost)
        await poll_for(p, 1200)
        assert await queued(p) == TYPES[:1]
        p.answer(BEFORE)
        await p.poller.poll_if_due()
        assert await queued(p) == TYPES


async def test_an_end_that_cannot_be_stored_is_notified_later(tmp_path):
    async with open_poller(tmp_path / "state.db", TROUBLE) as p:
        await poll_for(p, 660)
        await p.refuse_events()
        p.answer(BEFORE)
        await poll_for(p, 300)
        assert p.metric(FAILURES, reason="storage") == 5
        assert p.status.failure == "storage"
        assert await queued(p) == TYPES[:1]
        await p.accept_events()
        await poll_for(p, 300)
        assert p.status.failure == ""
        [_, recovered] = await p.queued()
        assert recovered.facts["seconds"] == 960


async def test_the_recovery_and_the_changes_of_the_poll_are_one_commit(tmp_path, monkeypatch):
    async with open_poller(tmp_path / "state.db", BEFORE) as p:
        await p.poller.poll_if_due()
        p.answer(TROUBLE)
        await poll_for(p, 660)
        commit, seen = p.poller._accounts.commit, list[list[Event]]()

        async def noted(record) -> None:
            seen.append([event for event, _ in (*record.recovery, *record.events)])
            await commit(record)

        monkeypatch.setattr(p.poller._accounts, "commit", noted)
        p.answer(AFTER)
        await poll_for(p, 120)
        assert [[event.type for event in events] for events in seen] == [
            ["agent.poll_recovered", "fine_tune.failed"]
        ]


async def test_an_outage_changes_neither_state_nor_counts(tmp_path):
    async with open_poller(tmp_path / "state.db", BEFORE) as p:
        await p.poller.poll_if_due()
        before, stored = p.status, await Accounts(p.database).load(KEY)
        p.answer(TROUBLE)
        await poll_for(p, 1200)
        end = NOW + 1140
        assert p.status == replace(
            before,
            up=False,
            polled_at=end,
            failure="server_error",
            next_poll_at=end + 60,
            failing_since=NOW,
        )
        assert await Accounts(p.database).load(KEY) == stored


async def test_a_long_outage_is_logged_once_with_its_reason(tmp_path):
    nasty = CartesiaError("protocol", "page 1 is odd: \x1b[31m\nlevel=error \u202e" + "x" * 99_999)
    async with open_poller(tmp_path / "state.db", nasty) as p:
        with capture_logs() as logs:
            await poll_for(p, 1200)
        [line] = [line for line in logs if line["event"] == "account cannot be read"]
        assert (line["log_level"], line["account"], line["reason"]) == (
            "warning",
            "default",
            "protocol",
        )
        assert (line["seconds"], line["since"]) == (600, "2027-01-15T08:00:00Z")
        assert str(line["error"]).isprintable()
        assert len(str(line["error"])) <= 1000
