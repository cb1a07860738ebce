"""What a poller writes to the log: a line for each change, none for a poll, all of it tame."""

import pytest
from msgspec import structs
from structlog.testing import capture_logs

from exporter.cartesia.errors import CartesiaError
from tests.polling.poller_fixture import Bench, listing, on_bench
from tests.store.sample_polls import fine_tune

BEFORE = listing(fine_tune("a"), fine_tune("b", "completed"))
AFTER = listing(fine_tune("a", "failed"), fine_tune("b", "completed"))


def test_at_info_there_is_a_line_for_each_change_and_none_for_a_poll(tmp_path):
    async def test(b: Bench) -> None:
        with capture_logs() as logs:
            for _ in range(6):
                await b.poller.poll()
        told = [(line["log_level"], line["event"]) for line in logs if line["log_level"] != "debug"]
        assert told == [
            ("info", "baseline taken"),
            ("info", "fine-tune failed"),
            ("warning", "poll failed, the last counts stay"),
            ("info", "poll recovered"),
        ]

    on_bench(
        tmp_path / "state.db", test, BEFORE, BEFORE, AFTER, CartesiaError("timeout", "late"), AFTER
    )


@pytest.mark.parametrize(
    ("error", "refused", "next_poll"),
    [
        pytest.param(CartesiaError("timeout", "late"), False, "in 60s", id="the next turn"),
        pytest.param(
            CartesiaError("rate_limited", "slow down", retry_after=300), False, "in 300s", id="told"
        ),
        pytest.param(CartesiaError("unauthorized", "no"), True, "in 600s", id="slowed down"),
    ],
)
def test_a_poll_that_failed_says_when_the_next_one_is(tmp_path, error, refused, next_poll):
    """Without it the log falls silent for ten minutes, and nobody knows whether it has given up."""

    async def test(b: Bench) -> None:
        b.source.refused = refused
        with capture_logs() as logs:
            await b.poller.poll()
        [line] = [line for line in logs if line["log_level"] == "warning"]
        assert line["event"] == "poll failed, there are no counts yet"
        assert line["next_poll"] == next_poll

    on_bench(tmp_path / "state.db", test, error)


def test_log_lines_hold_no_control_characters_and_have_an_end(tmp_path):
    nasty = "\x1b[31m\nlevel=error \u202e\x00" + "x" * 100_000
    failed = fine_tune(f"a{nasty}", "failed", name=nasty)
    hostile = listing(structs.replace(failed, model_id=nasty), fine_tune("b", nasty))

    async def test(b: Bench) -> None:
        with capture_logs() as logs:
            for _ in range(3):
                await b.poller.poll()
        assert len(logs) > 4
        for line in logs:
            for value in line.values():
                assert str(value).isprintable()
                assert len(str(value)) <= 1000

    answers = (listing(), hostile, CartesiaError("protocol", f"page 1 is odd: {nasty}"))
    on_bench(tmp_path / "state.db", test, *answers)


def test_a_mass_change_does_not_fill_the_disk_with_lines(tmp_path):
    async def test(b: Bench) -> None:
        await b.poller.poll()
        with capture_logs() as logs:
            await b.poller.poll()
        told = [line["event"] for line in logs if line["log_level"] == "info"]
        assert told == ["fine-tune failed"] * 100 + ["more fine-tunes changed"]
        assert logs[-1]["number"] == 150

    many = listing(*(fine_tune(f"f{n}", "failed") for n in range(250)))
    on_bench(tmp_path / "state.db", test, listing(), many)
