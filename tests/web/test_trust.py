"""Whether the pages say so when the data or the receivers cannot be trusted."""

import re
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from exporter.core.retry import Outcome
from exporter.core.view import AccountStatus
from exporter.store.overview import ReceiverSummary
from tests.web.stored_pages import NOW, after_a_failure, fine_tune, stored_pages

pytestmark = pytest.mark.anyio


def verdict(text: str) -> tuple[str, str]:
    """Return the class and the words of the verdict on the data."""
    found = re.search(r'<p class="label (\w+)" id="l-data">([^<]*)</p>', text)
    assert found
    return found[1], found[2]


def headline(text: str) -> str:
    shown = text.split("<h1>")[1].split("</h1>", maxsplit=1)[0]
    return " ".join(re.sub(r"<[^>]*>", "", shown).split())


def title(text: str) -> str:
    return text.split("<title>")[1].split("</title>", maxsplit=1)[0]


STALE: dict[str, Any] = {"up": False, "failure": "unauthorized", "stale_at": -1.0}
STATES: list[tuple[dict[str, Any], str, str, str]] = [
    ({}, "current", "completed", "Data is complete and current"),
    ({"up": False, "failure": "timeout"}, "failing", "warn", "Data is getting old"),
    ({"next_poll_at": NOW - 121}, "late", "warn", "Data is getting old"),
    (STALE, "stale", "warn", "Data is not complete: the account is stale"),
    ({"stale_at": -1.0}, "stale", "warn", "Data is not complete: the account is stale"),
    ({"counts": None}, "waiting", "warn", "Data is not complete: the account is not read yet"),
]


@pytest.mark.parametrize(("fields", "state", "css", "words"), STATES)
async def test_only_current_data_is_green_on_every_page(fields, state, css, words, tmp_path):
    async with after_a_failure(tmp_path) as pages:
        pages.statuses["main"] = replace(pages.statuses["main"], **fields)
        for path in ("/", "/fine-tunes", "/fine-tunes/main/ada", "/notifications", "/config"):
            text = (await pages.get(path, accept="text/html")).text
            found_css, found = verdict(text)
            assert (path, found_css) == (path, css)
            assert found.startswith(words)
        status = await pages.json("/status")
        listed = await pages.json("/fine-tunes?account=main")
    assert status["accounts"][0]["state"] == state
    assert status["complete"] == listed["complete"] == (state == "current")


@pytest.mark.parametrize(("fields", "state", "_css", "_words"), STATES[1:])
async def test_an_etag_changes_with_the_state_of_trust_alone(fields, state, _css, _words, tmp_path):
    async with after_a_failure(tmp_path) as pages:
        paths = ("/", "/fine-tunes", "/api/v1/status", "/api/v1/fine-tunes")
        etags = {path: (await pages.get(path)).headers["etag"] for path in paths}
        same = [await pages.get(path, **{"If-None-Match": etags[path]}) for path in paths]
        pages.statuses["main"] = replace(pages.statuses["main"], **fields)
        changed = [await pages.get(path, **{"If-None-Match": etags[path]}) for path in paths]
    assert [each.status_code for each in same] == [304] * 4
    assert [each.status_code for each in changed] == [200] * 4


async def test_a_poller_that_hangs_makes_the_page_late_as_time_passes(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        pages.statuses["main"] = replace(pages.statuses["main"], next_poll_at=NOW + 30)
        first = await pages.get("/")
        pages.now = NOW + 30 + 121
        second = await pages.get("/", **{"If-None-Match": first.headers["etag"]})
    assert verdict(first.text)[0] == "completed"
    assert second.status_code == 200
    assert verdict(second.text)[0] == "warn"
    assert "late: no poll ended since" in second.text


async def test_a_page_says_from_when_on_its_data_is_stale(tmp_path):
    async with after_a_failure(tmp_path, accounts=["main", "eu"]) as pages:
        pages.statuses["main"] = replace(pages.statuses["main"], stale_at=300.0)
        pages.statuses["eu"] = replace(pages.statuses["main"], account="eu", stale_at=120.0)
        text = (await pages.get("/")).text
    assert 'data-stale-at="2027-01-15T08:02:00Z"' in text


async def test_a_failure_leaves_the_last_hour_and_the_last_day_without_a_commit(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        first = await pages.get("/")
        pages.now = NOW + 3600
        second = await pages.get("/", **{"If-None-Match": first.headers["etag"]})
        pages.now = NOW + 86_400
        third = await pages.get("/", **{"If-None-Match": second.headers["etag"]})
    assert headline(first.text) == "1 failed in the last 24 hours 1 in the last hour"
    assert headline(second.text) == "1 failed in the last 24 hours none in the last hour"
    assert headline(third.text) == "Nothing failed in the last 24 hours"
    assert title(first.text) == "(1) Overview · cartesia-exporter"
    assert title(third.text) == "Overview · cartesia-exporter"


@pytest.mark.parametrize(
    ("fields", "seen"),
    [(STALE, "eu not seen since 07:30:00"), ({"counts": None}, "eu not seen since 07:30:00")],
)
async def test_failures_are_at_least_so_many_while_an_account_is_not_seen(fields, seen, tmp_path):
    async with after_a_failure(tmp_path, accounts=["main", "eu"]) as pages:
        await pages.poll(fine_tune("x", "training"), at=NOW - 1800, account="eu")
        pages.statuses["eu"] = replace(
            pages.statuses["eu"], succeeded_at=NOW - 1800, failing_since=NOW - 1740, **fields
        )
        text = (await pages.get("/")).text
        pages.now += 86_400
        later = (await pages.get("/")).text
    assert headline(text) == f"At least 1 failed in the last 24 hours 1 in the last hour; {seen}"
    assert headline(later).startswith("No failure seen in the last 24 hours")
    totals = text.split('class="totals"')[1].split("</ul>")[0]
    assert "main only" in totals
    assert re.search(r"<b>0</b> training", totals)


async def test_a_title_names_the_account_that_is_stale(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        pages.statuses["main"] = replace(pages.statuses["main"], **STALE)
        text = (await pages.get("/")).text
    assert title(text) == "(1) main stale · Overview · cartesia-exporter"


@asynccontextmanager
async def many_accounts(folder, number, bad):
    """Yield pages of many accounts, of which the first ``bad`` are stale."""
    names = [f"a{n:03}" for n in range(number)]
    receivers = [ReceiverSummary(f"r{n:02}", "slack", ("failed",)) for n in range(20)]
    async with stored_pages(folder, accounts=names, receivers=receivers) as pages:
        for position, name in enumerate(names):
            await pages.poll(fine_tune("x", "training"), at=NOW - 50, account=name)
            if position < bad:
                status = pages.statuses[name]
                pages.statuses[name] = replace(status, failing_since=NOW - 400, **STALE)
        yield pages


async def test_of_many_accounts_those_that_are_well_share_a_line_and_bad_ones_do_not(tmp_path):
    async with many_accounts(tmp_path, 200, 2) as pages:
        text = (await pages.get("/")).text
    trust = text.split('id="trust"')[1].split("</section>")[0]
    assert "<b>198 accounts</b>" in trust
    assert trust.count('class="bad stale"') == 2
    assert "<b>20 receivers</b>" in trust
    assert trust.count("<li") == 4
    assert len(text) < 150_000


async def test_of_many_bad_accounts_three_are_spelled_out(tmp_path):
    async with many_accounts(tmp_path, 30, 30) as pages:
        text = (await pages.get("/")).text
    trust = text.split('id="trust"')[1].split("</section>")[0]
    assert trust.count('class="bad stale"') == 3
    assert "27 more are not current" in trust
    assert title(text).startswith("30 accounts not current")


async def test_a_receiver_that_does_not_deliver_stays_in_sight(tmp_path):
    receivers = [ReceiverSummary(f"r{n:02}", "slack", ("failed",)) for n in range(20)]
    async with stored_pages(tmp_path, receivers=receivers) as pages:
        await pages.poll(fine_tune("x", "training"), at=NOW - 100)
        await pages.poll(fine_tune("x", "failed"), at=NOW - 50)
        await pages.attempt("r07", "answered 503", Outcome.TRANSIENT, NOW - 40)
        for each in receivers:
            if each.name != "r07":
                await pages.attempt(each.name, "answered 200", Outcome.DELIVERED, NOW - 40)
        text = (await pages.get("/")).text
    trust = text.split('id="trust"')[1].split("</section>")[0]
    assert "<bdi>r07</bdi>" in trust
    assert "<b>19 receivers</b>" in trust
    assert "Notifications: 1 pending" in trust
    deliveries = text.split('aria-label="Notified"')[1].split("</ul>")[0]
    assert deliveries.index("r07") < deliveries.index("19 delivered")


async def test_pages_before_anything_was_read_say_what_to_expect(tmp_path):
    async with stored_pages(tmp_path) as pages:
        pages.statuses["main"] = AccountStatus("main")
        texts = {path: (await pages.get(path)).text for path in ("/", "/fine-tunes")}
        texts["/notifications"] = (await pages.get("/notifications")).text
    assert headline(texts["/"]) == "Nothing read yet"
    assert "The first complete poll of an account is its baseline" in texts["/"]
    assert verdict(texts["/"])[0] == "warn"
    assert "No fine-tune has been read yet" in texts["/fine-tunes"]
    assert "Nothing was queued yet" in texts["/notifications"]


async def test_pages_without_accounts_and_receivers_are_not_green(tmp_path):
    async with stored_pages(tmp_path, accounts=[], receivers=()) as pages:
        text = (await pages.get("/")).text
        notifications = (await pages.get("/notifications")).text
    assert verdict(text) == ("warn", "No data")
    assert "nobody is notified" in text
    assert "No receiver is configured" in notifications


async def test_no_number_is_shown_before_the_first_poll(tmp_path):
    async with stored_pages(tmp_path) as pages:
        text = (await pages.get("/", accept="text/html")).text
    totals = text.split('class="totals"')[1].split("</ul>")[0]
    assert totals.count("<b>\u2013</b>") == 5
    for untrue in ("Nothing is training", "0 training", "0 failures", "none failed"):
        assert untrue not in text


async def test_many_receivers_and_accounts_are_counted_not_listed(tmp_path):
    receivers = [ReceiverSummary(f"receiver-{n}", "webhook", ("failed",)) for n in range(9)]
    accounts = [f"team-{n}" for n in range(6)]
    async with stored_pages(tmp_path, accounts=accounts, receivers=receivers) as pages:
        for name in accounts:
            await pages.poll(fine_tune("ada", "training"), at=NOW - 900, account=name)
        await pages.poll(fine_tune("ada", "failed"), at=NOW - 60, account="team-3")
        pages.statuses["team-0"] = replace(pages.statuses["team-0"], **STALE)
        text = (await pages.get("/", accept="text/html")).text
        story = (await pages.get("/fine-tunes/team-3/ada", accept="text/html")).text
    assert "5 of 6 accounts" in text.split('class="totals"')[1].split("</ul>")[0]
    notified = text.split('aria-label="Notified"')[1].split("</ul>")[0]
    assert notified.count("<li") == 5
    assert "and 5 more" in notified
    assert "7 more are not delivered." in story
