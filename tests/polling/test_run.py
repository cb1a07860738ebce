"""The schedule of polls."""

import asyncio

import pytest
from structlog.testing import capture_logs

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.listing import Listing
from tests.polling.poller_fixture import (
    POLLS,
    SKIPPED,
    STALE_AFTER,
    Answer,
    PollerFixture,
    listing,
    open_poller,
)
from tests.polling.virtual_time import VIRTUAL_TIME, loop_clock
from tests.store.sample_polls import fine_tune

REFUSED = CartesiaError("unauthorized", "the API answered 401", status=401)
OUTAGE = CartesiaError("server_error", "the API answered 500", status=500)
NOTHING = listing()
LISTED = listing(fine_tune("a"))


@pytest.fixture
def anyio_backend():
    return VIRTUAL_TIME


class RecordedPolls:
    """A source whose polls last ``durations``; records when each began, in seconds of the loop."""

    def __init__(self, *durations: float) -> None:
        self.durations = list(durations)
        self.started_at: list[float] = []
        self.running = 0

    async def __call__(self) -> Listing:
        self.started_at.append(asyncio.get_running_loop().time())
        self.running += 1
        assert self.running == 1, "two polls at once"
        await asyncio.sleep(self.durations.pop(0) if self.durations else 0)
        self.running -= 1
        return NOTHING


class RecordedWarnings:
    """A log that records when counts were withheld, in seconds of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, logged_at: list[float]) -> None:
        self.loop, self.logged_at = loop, logged_at

    def warning(self, event: str, **facts: object) -> None:
        if "withheld" in event:
            assert facts["counts"] == "withheld"
            self.logged_at.append(self.loop.time())

    def info(self, event: str, **facts: object) -> None: ...

    debug = info


async def run_for(p: PollerFixture, seconds: float) -> None:
    """Run the poller, and stop it after this many seconds."""
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    await p.poller.run(stop)


@pytest.mark.parametrize(
    ("durations", "starts"),
    [
        ([], [0, 60, 120, 180]),
        ([20, 59, 0], [0, 60, 120, 180]),  # from start to start
        ([90, 0, 0], [0, 90, 150, 210]),  # missed polls are not made up for
        ([60, 60, 60], [0, 60, 120, 180]),
    ],
)
async def test_polls_start_at_intervals_and_never_overlap(tmp_path, durations, starts):
    source = RecordedPolls(*durations)
    async with open_poller(tmp_path / "state.db", source, clock=loop_clock()) as p:
        await run_for(p, 239)
        assert source.started_at == pytest.approx(starts)
        assert p.metric(SKIPPED) == 0


async def test_a_poller_that_is_stopped_before_it_runs_does_not_poll(tmp_path):
    async with open_poller(tmp_path / "state.db", NOTHING, clock=loop_clock()) as p:
        stop = asyncio.Event()
        stop.set()
        await p.poller.run(stop)
        assert p.source.asked == 0


async def test_a_stop_between_polls_takes_effect_immediately(tmp_path):
    async with open_poller(tmp_path / "state.db", NOTHING, clock=loop_clock()) as p:
        await run_for(p, 30)
        assert p.source.asked == 1
        assert asyncio.get_running_loop().time() == pytest.approx(30)


async def test_a_stop_during_a_poll_lets_it_finish(tmp_path):
    source = RecordedPolls(50)
    async with open_poller(tmp_path / "state.db", source, clock=loop_clock()) as p:
        await run_for(p, 20)
        assert source.started_at == [0]
        assert p.status.up


async def test_retry_after_skips_polls_and_counts_them(tmp_path):
    source = RecordedPolls()
    wait = CartesiaError("rate_limited", "429", status=429, retry_after=181)
    async with open_poller(tmp_path / "state.db", wait, source, clock=loop_clock()) as p:
        await run_for(p, 359)
        assert source.started_at == pytest.approx([240, 300])
        assert p.metric(SKIPPED) == 3  # at 60, 120 and 180
        assert p.metric(POLLS) == 3


async def test_a_refused_key_is_used_at_every_tenth_interval_only(tmp_path):
    async with open_poller(tmp_path / "state.db", REFUSED, clock=loop_clock()) as p:
        p.source.refused = True
        await run_for(p, 60 * 25)
        assert p.source.asked == 3  # at 0, 10 and 20 intervals
        assert p.metric(SKIPPED) == 22


async def test_a_key_that_has_worked_is_slowed_down_after_three_refused_polls_in_a_row(tmp_path):
    """An authentication service that fails refuses valid keys: ten minutes would be lost."""
    answers: list[Answer] = [
        LISTED,
        REFUSED,
        REFUSED,
        OUTAGE,
        REFUSED,
        REFUSED,
        LISTED,
        *[REFUSED] * 3,
    ]
    async with open_poller(tmp_path / "state.db", *answers, clock=loop_clock()) as p:
        p.source.refused = True
        with capture_logs() as logs:
            await run_for(p, 60 * 9 + 30)
            assert (p.source.asked, p.metric(SKIPPED)) == (10, 0)
            await run_for(p, 60 * 8)
            assert (p.source.asked, p.status.up) == (10, False)
        slowed = [line for line in logs if "polling slowed" in line["event"]]
        assert [(line["refused_polls"], line["interval"]) for line in slowed] == [(3, "10m")]


async def test_the_first_refusal_of_a_rotated_key_that_never_worked_slows_down(tmp_path):
    async with open_poller(tmp_path / "state.db", NOTHING, REFUSED, clock=loop_clock()) as p:
        p.source.refused, p.source.worked = True, False
        await run_for(p, 60 * 10)
        assert p.source.asked == 2


async def test_a_stored_baseline_means_that_the_key_has_worked(tmp_path):
    async with open_poller(tmp_path / "state.db", LISTED, clock=loop_clock()) as p:
        await p.poller.poll()
    async with open_poller(tmp_path / "state.db", REFUSED, clock=loop_clock()) as p:
        p.source.refused = True
        await run_for(p, 60 * 10)
        assert p.source.asked == 3


async def test_a_key_that_cannot_be_read_is_read_again_at_each_interval(tmp_path):
    """Its file may be written at any time; the API is not asked."""
    async with open_poller(tmp_path / "state.db", REFUSED, clock=loop_clock()) as p:
        await run_for(p, 60 * 5 - 1)
        assert (p.source.asked, p.metric(SKIPPED)) == (5, 0)


async def test_a_new_key_is_used_at_the_next_interval(tmp_path):
    source = RecordedPolls()
    async with open_poller(tmp_path / "state.db", REFUSED, source, clock=loop_clock()) as p:
        p.source.refused = True
        asyncio.get_running_loop().call_later(130, setattr, p.source, "refused", False)
        await run_for(p, 250)
        assert source.started_at == pytest.approx([180, 240])
        assert p.metric(SKIPPED) == 2


async def test_other_errors_do_not_end_the_slow_down_of_a_refused_key(tmp_path):
    error = CartesiaError("server_error", "the API answered 500", status=500)
    async with open_poller(tmp_path / "state.db", REFUSED, error, error, clock=loop_clock()) as p:
        p.source.refused = True
        await run_for(p, 60 * 25)
        assert p.source.asked == 3  # at 0, 10 and 20 intervals


async def test_a_successful_poll_ends_the_slow_down_of_a_refused_key(tmp_path):
    source = RecordedPolls()
    async with open_poller(tmp_path / "state.db", REFUSED, source, clock=loop_clock()) as p:
        p.source.refused = True
        loop = asyncio.get_running_loop()
        loop.call_later(130, setattr, p.source, "refused", False)
        loop.call_later(190, setattr, p.source, "refused", True)
        await run_for(p, 359)
        assert source.started_at == pytest.approx([180, 240, 300])


@pytest.mark.parametrize("interval", [60, 150])
async def test_the_moment_at_which_counts_are_withheld_is_logged_once(tmp_path, interval):
    async with open_poller(
        tmp_path / "state.db", NOTHING, OUTAGE, clock=loop_clock(), interval=interval
    ) as p:
        loop, logged_at = asyncio.get_running_loop(), list[float]()
        p.poller._outage_log._log = RecordedWarnings(loop, logged_at)
        await run_for(p, 3000)
        assert logged_at == pytest.approx([STALE_AFTER])
        p.answer(NOTHING, OUTAGE)
        await run_for(p, 1000)
        assert logged_at == pytest.approx([STALE_AFTER, 3000 + STALE_AFTER])


async def test_a_stop_before_counts_are_withheld_logs_nothing(tmp_path):
    async with open_poller(
        tmp_path / "state.db", NOTHING, OUTAGE, clock=loop_clock(), interval=200
    ) as p:
        with capture_logs() as logs:
            await run_for(p, 250)
        assert [line for line in logs if "withheld" in line["event"]] == []


async def test_a_bug_is_raised_by_run(tmp_path):
    async def bug() -> Listing:
        raise KeyError("a bug")

    async with open_poller(tmp_path / "state.db", bug, clock=loop_clock()) as p:
        with pytest.raises(KeyError, match="a bug"):
            await p.poller.run(asyncio.Event())
