"""An account that cannot be read for long is told of once, and so is its end, over restarts too."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from exporter.cartesia.errors import CartesiaError
from exporter.core.events import Event
from exporter.store.accounts import Accounts
from exporter.store.errors import StoreError
from tests.polling.poller_fixture import FAILURES, SKIPPED, Bench, listing, on_bench
from tests.store.sample_polls import KEY, NOW, fine_tune

TROUBLE = CartesiaError("server_error", "page 1: the API answered 500", status=500)
BEFORE = listing(fine_tune("a", "completed"))
AFTER = listing(fine_tune("a", "failed"))
TYPES = ["agent.poll_failing", "agent.poll_recovered"]


async def turns(b: Bench, seconds: float, every: float = 60) -> None:
    """Take turns for so long, the first of them now."""
    end = b.clock.now + seconds
    while b.clock.now < end:
        await b.poller.turn()
        b.clock.now += every


async def told(b: Bench) -> list[str]:
    return [event.type for event in await b.owed()]


async def outages(b: Bench) -> float | None:
    return await Accounts(b.database).outage_since(KEY)


def test_it_is_told_once_when_it_lasts_too_long_and_its_end_with_what_it_hid(tmp_path):
    async def test(b: Bench) -> None:
        await b.poller.turn()
        b.clock.now += 60
        await turns(b, 600)
        assert await told(b) == []
        assert b.wakes == []
        await turns(b, 3600)
        assert await told(b) == ["agent.poll_failing"]
        assert b.wakes == [NOW + 660]
        b.then(AFTER)
        await turns(b, 600)
        failing, recovered, failed = await b.owed()
        assert failing.observed_at == NOW + 660
        assert failing.facts["reason"] == "server_error"
        assert str(failing.facts["text"]).endswith("The last error: page 1: the API answered 500")
        assert (recovered.type, failed.type) == ("agent.poll_recovered", "fine_tune.failed")
        assert recovered.facts["seconds"] == 4200
        assert recovered.facts["since"] == failing.facts["since"] == "2027-01-15T08:01:00Z"
        assert len(b.wakes) == 2
        assert await outages(b) is None

    on_bench(tmp_path / "state.db", test, BEFORE, TROUBLE)


def test_a_short_one_is_not_told_and_writes_nothing(tmp_path):
    async def test(b: Bench) -> None:
        await b.poller.turn()
        b.then(TROUBLE)
        await turns(b, 540)
        await b.forbid()
        b.then(BEFORE)
        await turns(b, 120)
        assert b.view.up
        b.then(TROUBLE)
        await turns(b, 540)  # with the first this would be long enough
        assert await told(b) == []
        assert b.wakes == []

    on_bench(tmp_path / "state.db", test, BEFORE)


def test_zero_is_never(tmp_path):
    async def test(b: Bench) -> None:
        await turns(b, 86_400, every=3600)
        b.then(BEFORE)
        await b.poller.turn()
        assert await told(b) == []

    on_bench(tmp_path / "state.db", test, TROUBLE, failing_after=0)


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        pytest.param(
            CartesiaError("rate_limited", "slow down", retry_after=86_400), False, id="to wait"
        ),
        pytest.param(CartesiaError("unauthorized", "no"), True, id="a refused key"),
    ],
)
def test_the_turns_that_are_not_taken_count(tmp_path, error, refused):
    async def test(b: Bench) -> None:
        b.source.refused = refused
        await turns(b, 420)
        assert (b.source.asked, b.metric(SKIPPED)) == (1, 6)
        assert await told(b) == ["agent.poll_failing"]
        assert b.wakes == [NOW + 300]

    on_bench(tmp_path / "state.db", test, error, failing_after=300)


def test_a_restart_neither_tells_it_again_nor_forgets_its_end(tmp_path):
    path = tmp_path / "state.db"

    async def first(b: Bench) -> None:
        await b.poller.turn()
        b.then(TROUBLE)
        await turns(b, 660)
        assert await told(b) == TYPES[:1]

    async def second(b: Bench) -> None:
        b.clock.now += 1000
        await turns(b, 86_400, every=3600)
        assert await told(b) == TYPES[:1]
        b.then(BEFORE)
        await b.poller.turn()
        failing, recovered = await b.owed()
        assert recovered.type == "agent.poll_recovered"
        assert recovered.facts["since"] == failing.facts["since"]

    async def third(b: Bench) -> None:
        await turns(b, 120)
        assert await told(b) == TYPES

    on_bench(path, first, BEFORE)
    on_bench(path, second, TROUBLE)
    on_bench(path, third, BEFORE)


@pytest.mark.parametrize("failing_after", [600, 0])
def test_its_end_is_told_after_a_restart_whatever_is_configured_now(tmp_path, failing_after):
    """Somebody was woken for it; without its end they would go on looking for the trouble."""
    path = tmp_path / "state.db"

    async def first(b: Bench) -> None:
        await turns(b, 660)

    async def second(b: Bench) -> None:
        b.clock.now += 5000
        await b.poller.turn()
        assert await told(b) == TYPES
        assert (await b.owed())[1].facts["seconds"] == 5000
        assert await outages(b) is None

    on_bench(path, first, TROUBLE)
    on_bench(path, second, BEFORE, failing_after=failing_after)


def test_an_outage_that_began_in_the_future_lasts_from_the_restart_on(tmp_path):
    """The wall clock was set back while nobody ran."""
    path = tmp_path / "state.db"

    async def first(b: Bench) -> None:
        b.clock.now += 86_400
        await turns(b, 660)

    async def second(b: Bench) -> None:
        b.clock.now += 60
        await b.poller.turn()
        assert (await b.owed())[1].facts["seconds"] == 60

    on_bench(path, first, TROUBLE)
    on_bench(path, second, BEFORE)


def test_an_account_without_a_baseline_is_told_of_as_well(tmp_path):
    async def test(b: Bench) -> None:
        await turns(b, 660)
        assert await Accounts(b.database).load(KEY) is None
        b.then(BEFORE)
        await b.poller.turn()
        failing, recovered = await b.owed()
        assert "the watch has not begun" in str(failing.facts["text"])
        assert "Its watch begins now" in str(recovered.facts["text"])

    on_bench(tmp_path / "state.db", test, TROUBLE)


def test_each_outage_is_told(tmp_path):
    async def test(b: Bench) -> None:
        for _ in range(2):
            b.then(TROUBLE)
            await turns(b, 660)
            b.then(BEFORE)
            await turns(b, 60)
        assert await told(b) == TYPES * 2
        assert len(b.wakes) == 4

    on_bench(tmp_path / "state.db", test, BEFORE)


def test_a_store_that_fails_is_tried_again_at_each_turn_and_hurts_nothing(tmp_path):
    async def test(b: Bench) -> None:
        await b.poller.turn()
        await b.forbid()
        b.then(AFTER)
        with capture_logs() as logs:
            await turns(b, 1200)
        assert b.metric(FAILURES, reason="storage") == 20
        assert b.wakes == []
        lines = [line["event"] for line in logs]
        assert lines.count("account cannot be read for long") == 1
        assert lines.count("this cannot be stored, so the receivers are not told yet") == 10
        b.then(TROUBLE)
        await b.allow()
        await turns(b, 60)
        [failing] = await b.owed()
        assert failing.facts["reason"] == "server_error"

    on_bench(tmp_path / "state.db", test, BEFORE)


def test_what_could_not_be_stored_before_its_end_is_not_told(tmp_path):
    """A recovery from what nobody was told is a riddle."""

    async def test(b: Bench) -> None:
        await b.forbid()
        await turns(b, 1200)
        await b.allow()
        b.then(BEFORE)
        await turns(b, 60)
        assert b.view.up
        assert await told(b) == []

    on_bench(tmp_path / "state.db", test, TROUBLE)


def test_an_outage_whose_commit_was_not_seen_to_succeed_has_an_end(tmp_path, monkeypatch):
    async def test(b: Bench) -> None:
        begin = b.poller._accounts.begin_outage

        async def lost(account, since, owed) -> None:
            await begin(account, since, owed)
            raise StoreError("the answer was lost")

        monkeypatch.setattr(b.poller._accounts, "begin_outage", lost)
        await turns(b, 1200)
        assert await told(b) == TYPES[:1]
        b.then(BEFORE)
        await b.poller.turn()
        assert await told(b) == TYPES

    on_bench(tmp_path / "state.db", test, TROUBLE)


def test_an_end_that_could_not_be_stored_is_no_end_and_is_told_later(tmp_path):
    async def test(b: Bench) -> None:
        await turns(b, 660)
        await b.forbid()
        b.then(BEFORE)
        await turns(b, 300)
        assert b.metric(FAILURES, reason="storage") == 5
        assert b.view.failure == "storage"
        assert await told(b) == TYPES[:1]
        await b.allow()
        await turns(b, 300)
        assert b.view.failure == ""
        [_, recovered] = await b.owed()
        assert recovered.facts["seconds"] == 960

    on_bench(tmp_path / "state.db", test, TROUBLE)


def test_its_end_and_what_the_poll_saw_are_one_commit(tmp_path, monkeypatch):
    async def test(b: Bench) -> None:
        await b.poller.turn()
        b.then(TROUBLE)
        await turns(b, 660)
        commit, seen = b.poller._accounts.commit, list[list[Event]]()

        async def noted(record) -> None:
            seen.append([event for event, _ in (*record.recovery, *record.events)])
            await commit(record)

        monkeypatch.setattr(b.poller._accounts, "commit", noted)
        b.then(AFTER)
        await turns(b, 120)
        assert [[event.type for event in events] for events in seen] == [
            ["agent.poll_recovered", "fine_tune.failed"]
        ]

    on_bench(tmp_path / "state.db", test, BEFORE)


def test_nothing_but_the_message_is_changed_by_it(tmp_path):
    async def test(b: Bench) -> None:
        await b.poller.turn()
        shown, stored = b.view, await Accounts(b.database).load(KEY)
        b.then(TROUBLE)
        await turns(b, 1200)
        end = NOW + 1140
        assert b.view == replace(shown, up=False, polled_at=end, failure="server_error")
        assert await Accounts(b.database).load(KEY) == stored

    on_bench(tmp_path / "state.db", test, BEFORE)


def test_the_log_says_it_once_with_the_reason(tmp_path):
    nasty = CartesiaError("protocol", "page 1 is odd: \x1b[31m\nlevel=error \u202e" + "x" * 99_999)

    async def test(b: Bench) -> None:
        with capture_logs() as logs:
            await turns(b, 1200)
        [line] = [line for line in logs if line["event"] == "account cannot be read for long"]
        assert (line["log_level"], line["account"], line["reason"]) == (
            "warning",
            "default",
            "protocol",
        )
        assert (line["seconds"], line["since"]) == (600, "2027-01-15T08:00:00Z")
        assert str(line["error"]).isprintable()
        assert len(str(line["error"])) <= 1000

    on_bench(tmp_path / "state.db", test, nasty)
