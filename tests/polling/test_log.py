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
        [line] = [line for line in logs if line["event"] == "poll failed"]
        assert (line["log_level"], line["counts"]) == ("warning", "none")
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


TIMEOUT = CartesiaError("timeout", "no complete answer from api.test within 30 s")
DNS = CartesiaError("dns", "the host name api.test cannot be resolved: no address")


def lines_of(logs):
    """The lines of outages: event, reason, counts and whether they are warnings."""
    return [
        (line["event"], line.get("reason"), line.get("counts"))
        for line in logs
        if line["log_level"] in {"warning", "info"} and "baseline" not in line["event"]
    ]


async def poll_every(p, *answers, seconds=2.0):
    for answer in answers:
        p.answer(answer)
        await p.poller.poll_if_due()
        p.clock.now += seconds


async def test_an_outage_is_logged_when_it_begins_each_hour_and_when_it_ends(tmp_path):
    async with open_poller(tmp_path / "state.db", BEFORE, interval=2, failing_after=0) as p:
        await p.poller.poll_if_due()
        with capture_logs() as logs:
            await poll_every(p, *[TIMEOUT] * 3660)
            await poll_every(p, BEFORE, BEFORE)
        assert lines_of(logs) == [
            ("poll failed", "timeout", "shown"),
            ("polls still fail", "timeout", "withheld"),
            ("polls still fail", "timeout", "withheld"),
            ("poll recovered", None, None),
        ]
        first, second, third, end = [line for line in logs if line["log_level"] != "debug"]
        assert {each["since"] for each in (first, second, third, end)} == {"2027-01-15T08:00:00Z"}
        assert {each["last_success"] for each in (first, second)} == {"2027-01-15T08:00:00Z"}
        assert [each["lasted"] for each in (first, second, third)] == ["0s", "1h", "2h"]
        assert [each["failed_polls"] for each in (first, second, third)] == [1, 1801, 3601]
        assert (end["lasted"], end["failed_polls"], end["account"]) == ("2h2m", 3660, "default")


async def test_each_outage_has_its_own_lines(tmp_path):
    async with open_poller(tmp_path / "state.db", BEFORE, failing_after=0) as p:
        with capture_logs() as logs:
            await poll_every(p, *[BEFORE, TIMEOUT, TIMEOUT] * 2, BEFORE)
        outage = [("poll failed", "timeout", "shown"), ("poll recovered", None, None)]
        assert lines_of(logs) == outage * 2


async def test_the_reasons_of_one_outage_are_logged_once_an_hour_each(tmp_path):
    async with open_poller(tmp_path / "state.db", BEFORE, failing_after=0) as p:
        await p.poller.poll_if_due()
        with capture_logs() as logs:
            await poll_every(p, *[TIMEOUT, DNS] * 300, seconds=5)
        assert lines_of(logs)[:2] == [
            ("poll failed", "timeout", "shown"),
            ("poll failed", "dns", "shown"),
        ]
        assert [line["lasted"] for line in logs if line["log_level"] == "warning"] == ["0s", "1m5s"]
        assert sum(line["log_level"] == "debug" for line in logs) >= 598


async def test_a_new_outage_without_data_shows_no_counts(tmp_path):
    async with open_poller(tmp_path / "state.db", TIMEOUT, failing_after=0) as p:
        with capture_logs() as logs:
            await poll_every(p, *[TIMEOUT] * 100, seconds=60)
        assert {line["counts"] for line in logs} == {"none"}
        assert [line["event"] for line in logs if line["log_level"] != "debug"] == [
            "poll failed",
            "polls still fail",
        ]


async def test_an_outage_that_continues_after_a_reload_is_not_logged_anew(tmp_path):
    async with open_poller(tmp_path / "state.db", BEFORE, failing_after=0) as p:
        await poll_every(p, BEFORE, TIMEOUT)
        with capture_logs() as logs:
            await p.reload(timeout=20.0)
            await poll_every(p, TIMEOUT, BEFORE)
        assert lines_of(logs) == [("poll recovered", None, None)]
        [end] = [line for line in logs if line["event"] == "poll recovered"]
        assert end["failed_polls"] == 2
