"""API keys and empty lists, from the poll to the store: restarts, reloads, failed commits."""

from msgspec.structs import replace
from structlog.testing import capture_logs

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.listing import Listing
from exporter.core.model import FineTune
from exporter.store.accounts import Accounts
from tests.polling.poller_fixture import PollerFixture, listing, open_poller
from tests.store.raw_sqlite import count_rows
from tests.store.sample_polls import KEY, fine_tune

DOWN = CartesiaError("connect", "no route")


def read_with(key: str, *fine_tunes: FineTune) -> Listing:
    return replace(listing(*fine_tunes), key_fingerprint=key)


OURS = [fine_tune(f"a{n}", "failed" if n < 4 else "training") for n in range(10)]
OTHERS = [fine_tune(f"b{n}", "failed" if n < 3 else "training") for n in range(8)]


async def types(p: PollerFixture) -> list[str]:
    return [event.type for event in await p.queued()]


def route_all(p: PollerFixture) -> None:
    settings = p.poller._settings
    rules = replace(settings.rules, first_run="summary")
    p.poller._settings = replace(settings, rules=rules, route=lambda _: ["slack"])


async def polled(p: PollerFixture, *answers: Listing) -> list[str]:
    """The types of the events that these polls queue."""
    before = len(await p.queued())
    for answer in answers:
        p.answer(answer)
        p.clock.now += 60
        await p.poller.poll()
        assert p.status.up
    return (await types(p))[before:]


def training_others(p: PollerFixture) -> int:
    assert p.status.counts is not None
    return p.status.counts["other", "training"]


async def test_another_organisation_is_recognised_after_a_restart(tmp_path):
    path = tmp_path / "state.db"
    async with open_poller(path, DOWN) as p:
        route_all(p)
        assert await polled(p, read_with("1", *OURS)) == ["agent.baseline"]
    async with open_poller(path, DOWN) as p:
        route_all(p)
        with capture_logs() as logs:
            assert await polled(p, read_with("2", *OTHERS)) == ["agent.baseline"]
        [line] = [line for line in logs if line["log_level"] == "warning"]
        assert "another organisation" in line["event"]
        assert (line["fine_tunes"], line["retired"]) == (8, 10)
        assert p.samples()["cartesia_fine_tunes_removed_total", "training"] == 0
        assert p.samples()["cartesia_fine_tunes", "failed"] == 3
    async with open_poller(path, DOWN) as p:
        route_all(p)
        assert await polled(p, read_with("2", *OTHERS), read_with("2", *OTHERS)) == []
        failed = [*OTHERS[:-1], fine_tune("b7", "failed")]
        assert await polled(p, read_with("2", *failed)) == ["fine_tune.failed"]


async def test_a_new_key_of_the_same_organisation_is_stored(tmp_path):
    path = tmp_path / "state.db"
    async with open_poller(path, DOWN) as p:
        route_all(p)
        await polled(p, read_with("1", *OURS))
        with capture_logs() as logs:
            assert await polled(p, read_with("2", *OURS)) == []
        assert "API key changed, the fine-tunes are the same" in [line["event"] for line in logs]
        assert not [line for line in logs if line["log_level"] == "warning"]
        state = await Accounts(p.database).load(KEY)
        assert state is not None
        assert (state.key_fingerprint, state.baselines) == ("2", 1)


async def test_a_new_baseline_that_was_not_stored_is_taken_again(tmp_path):
    async with open_poller(tmp_path / "state.db", DOWN) as p:
        route_all(p)
        await polled(p, read_with("1", *OURS))
        await p.refuse_events()
        p.answer(read_with("2", *OTHERS))
        await p.poller.poll()
        assert not p.status.up
        await p.accept_events()
        assert await polled(p, read_with("2", *OTHERS), read_with("2", *OTHERS)) == [
            "agent.baseline"
        ]


async def test_an_empty_first_list_is_shown_at_once_and_stored_when_it_is_repeated(tmp_path):
    path = tmp_path / "state.db"
    async with open_poller(path, DOWN) as p:
        route_all(p)
        assert await polled(p, read_with("1")) == []
        assert p.status.counts is not None
        assert count_rows(path, "accounts") == 0
        assert await polled(p, read_with("1")) == ["agent.baseline"]
        assert await polled(p, read_with("1", OURS[0])) == ["fine_tune.failed"]


async def test_the_confirmation_of_an_empty_list_starts_again_after_a_restart(tmp_path):
    path = tmp_path / "state.db"
    for _ in range(2):
        async with open_poller(path, DOWN) as p:
            route_all(p)
            assert await polled(p, read_with("1")) == []


async def test_a_reload_does_not_interrupt_the_confirmation_of_an_empty_list(tmp_path):
    async with open_poller(tmp_path / "state.db", DOWN) as p:
        route_all(p)
        await polled(p, read_with("1"))
        await p.reload(interval=30)
        assert await polled(p, read_with("1")) == ["agent.baseline"]


async def test_failed_polls_do_not_interrupt_the_confirmation_of_an_empty_list(tmp_path):
    async with open_poller(tmp_path / "state.db", DOWN) as p:
        route_all(p)
        await polled(p, read_with("1"))
        p.answer(DOWN)
        await p.poller.poll()
        assert await polled(p, read_with("1")) == ["agent.baseline"]


async def test_an_empty_first_list_ends_an_outage(tmp_path):
    path = tmp_path / "state.db"
    async with open_poller(path, DOWN) as p:
        await p.poller.poll_if_due()
        p.clock.now += 700
        await p.poller.poll_if_due()
        assert await types(p) == ["agent.poll_failing"]
        assert await polled(p, read_with("1")) == ["agent.poll_recovered"]
        assert (count_rows(path, "poll_outages"), count_rows(path, "accounts")) == (0, 0)


async def test_a_list_that_is_empty_once_after_a_key_change_removes_nothing(tmp_path):
    async with open_poller(tmp_path / "state.db", DOWN) as p:
        route_all(p)
        await polled(p, read_with("1", *OURS))
        assert await polled(p, read_with("2"), read_with("2", *OURS)) == []
        assert p.samples()["cartesia_fine_tunes_removed_total", "training"] == 0


async def test_an_unknown_status_is_reported_once_over_restarts(tmp_path):
    path = tmp_path / "state.db"
    odd = fine_tune("odd", "paused")
    for number in range(3):
        async with open_poller(path, DOWN) as p:
            route_all(p)
            with capture_logs() as logs:
                found = await polled(p, read_with("1", *OURS, odd), read_with("1", *OURS, odd))
            lines = [line for line in logs if line["event"] == "unknown status"]
            if number:
                assert (found, lines) == ([], [])
                continue
            assert found == ["agent.baseline", "agent.unknown_status"]
            [line] = lines
            assert (line["log_level"], line["status"], line["fine_tunes"]) == (
                "warning",
                "paused",
                1,
            )
            assert 'alerts.failed_statuses: [failed, "paused"]' in line["text"]


async def test_a_status_that_a_reload_configures_is_notified(tmp_path):
    error = fine_tune("a", "error")
    async with open_poller(tmp_path / "state.db", DOWN) as p:
        route_all(p)
        await polled(p, read_with("1", fine_tune("a")), read_with("1", error))
        rules = replace(p.poller._settings.rules, failed_statuses=frozenset({"error"}))
        await p.reload(rules=rules)
        assert p.status.counts is None, "counted by the rules before"
        assert await polled(p, read_with("1", error)) == ["fine_tune.failed"]
        assert p.samples()["cartesia_fine_tunes", "failed"] == 1
        assert p.samples()["cartesia_fine_tunes", "unknown"] == 0


async def test_a_removed_fine_tune_that_returns_is_observed_anew(tmp_path):
    trains = fine_tune("a")
    async with open_poller(tmp_path / "state.db", DOWN) as p:
        route_all(p)
        stays = fine_tune("b", "completed")
        await polled(p, read_with("1", stays), read_with("1", stays, trains))
        assert await polled(p, *[read_with("1", stays)] * 2) == ["fine_tune.removed"]
        p.clock.now += 36_000
        assert await polled(p, read_with("1", stays, trains)) == []
        assert await polled(p, read_with("1", stays, fine_tune("a", "failed"))) == [
            "fine_tune.failed"
        ]
        assert p.status.counters.durations == {}


async def test_removed_fine_tunes_are_kept_in_the_store_only(tmp_path):
    """Or memory would grow with every fine-tune that the account ever had."""
    path = tmp_path / "state.db"
    stays, returns = fine_tune("b", "completed"), fine_tune("a", "failed")
    async with open_poller(path, DOWN) as p:
        route_all(p)
        await polled(p, read_with("1", stays, returns), *[read_with("1", stays)] * 3)
        assert p.source.tracked.keys() == {"b"}
    async with open_poller(path, DOWN) as p:
        route_all(p)
        assert await polled(p, read_with("1", stays, returns)) == [], "it has failed before"
        assert await polled(p, *[read_with("1", stays)] * 2) == ["fine_tune.removed"]
        assert await polled(p, read_with("1", stays)) == []
        assert p.source.tracked.keys() == {"b"}
        assert count_rows(path, "fine_tunes") == 2


async def test_folded_labels_fall_to_zero_also_after_a_restart(tmp_path):
    path = tmp_path / "state.db"
    many = [FineTune(f"a{n}", model_id=f"m{n}", status="training") for n in range(4)]
    async with open_poller(path, DOWN, max_models=2) as p:
        await polled(p, read_with("1", *many))
        assert training_others(p) == 2
        await polled(p, read_with("1", *many[:2]))
        assert training_others(p) == 0
    async with open_poller(path, DOWN, max_models=2) as p:
        await polled(p, read_with("1", *many[:2]))
        assert training_others(p) == 0
