"""Log lines of a poller."""

import pytest
from msgspec import structs
from structlog.testing import capture_logs

from exporter.cartesia.errors import CartesiaError
from tests.polling.poller_fixture import listing, open_poller
from tests.store.sample_polls import fine_tune

BEFORE = listing(fine_tune("a"), fine_tune("b", "completed"))
AFTER = listing(fine_tune("a", "failed"), fine_tune("b", "completed"))


async def test_changes_are_logged_at_info_and_polls_are_not(tmp_path):
    async with open_poller(
        tmp_path / "state.db", BEFORE, BEFORE, AFTER, CartesiaError("timeout", "late"), AFTER
    ) as p:
        with capture_logs() as logs:
            for _ in range(6):
                await p.poller.poll()
        lines = [(line["log_level"], line["event"]) for line in logs]
        assert [line for line in lines if line[0] != "debug"] == [
            ("info", "baseline taken"),
            ("info", "fine-tune failed"),
            ("warning", "poll failed"),
            ("info", "poll recovered"),
        ]


@pytest.mark.parametrize(
    ("error", "refused", "next_poll"),
    [
        pytest.param(CartesiaError("timeout", "late"), False, "in 60s", id="next interval"),
        pytest.param(
            CartesiaError("rate_limited", "slow down", retry_after=300),
            False,
            "in 300s",
            id="Retry-After",
        ),
        pytest.param(CartesiaError("unauthorized", "no"), True, "in 600s", id="refused key"),
    ],
)
async def test_a_failed_poll_logs_when_the_next_one_is(tmp_path, error, refused, next_poll):
    """Without it, ten silent minutes look as if the poller had stopped."""
    async with open_poller(tmp_path / "state.db", error) as p:
        p.source.refused = refused
        with capture_logs() as logs:
            await p.poller.poll()
        [line] = [line for line in logs if line["log_level"] == "warning"]
        assert (line["event"], line["counts"]) == ("poll failed", "none")
        assert line["next_poll"] == next_poll


async def test_log_values_are_printable_and_bounded(tmp_path):
    nasty = "\x1b[31m\nlevel=error \u202e\x00" + "x" * 100_000
    failed = fine_tune(f"a{nasty}", "failed", name=nasty)
    hostile = listing(structs.replace(failed, model_id=nasty), fine_tune("b", nasty))
    answers = (
        listing(fine_tune("z")),
        hostile,
        CartesiaError("protocol", f"page 1 is odd: {nasty}"),
    )
    async with open_poller(tmp_path / "state.db", *answers) as p:
        with capture_logs() as logs:
            for _ in range(3):
                await p.poller.poll()
        assert len(logs) > 4
        for line in logs:
            for value in line.values():
                assert str(value).isprintable()
                assert len(str(value)) <= 1000


async def test_a_mass_change_logs_a_bounded_number_of_lines(tmp_path):
    many = listing(*(fine_tune(f"f{n}", "failed") for n in range(250)))
    async with open_poller(tmp_path / "state.db", listing(fine_tune("z")), many) as p:
        await p.poller.poll()
        with capture_logs() as logs:
            await p.poller.poll()
        lines = [line["event"] for line in logs if line["log_level"] == "info"]
        assert lines == ["fine-tune failed"] * 100 + ["more fine-tunes changed"]
        assert logs[-1]["number"] == 150
