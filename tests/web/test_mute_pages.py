"""Mutes and held deliveries on the pages: what is shown, and the forms that mute and end."""

import html
import re
from typing import Any

import httpx
import pytest

from exporter.core.retry import Outcome
from exporter.store.outbox import NewMessage, Outbox
from exporter.store.overview import ReceiverSummary
from tests.web.stored_pages import (
    NOW,
    RECEIVERS,
    StoredPages,
    after_a_failure,
    fine_tune,
    stored_pages,
)

pytestmark = pytest.mark.anyio

HOSTILE = "<script>alert(1)</script>\"'&"


def text_of(markup: str) -> str:
    """Return the text of markup in one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", markup)).split()).replace(" ,", ",")


def section(page: str, identifier: str) -> str:
    """Return the text from the element with this id to the end of its section."""
    rest = page.partition(f'id="{identifier}"')[2].partition(">")[2]
    return text_of(rest.partition("</section>")[0])


async def story_mute(pages: StoredPages, name: str) -> str:
    """Return the markup about mutes on the page of a fine-tune."""
    text = (await pages.get(f"/fine-tunes/main/{name}")).text
    return text.split('<div class="mute" id="mute">')[1].split('<dl class="facts">')[0]


async def failure_line(pages: StoredPages, name: str) -> str:
    """Return the text of a failure in the overview."""
    rows = (await pages.get("/")).text.split('<li class="fail')
    return next(text_of(row) for row in rows if f">{name}<" in row)


async def submit(pages: StoredPages, **fields: Any) -> httpx.Response:
    """Send a form with the token of the page of notifications."""
    page = (await pages.get("/notifications")).text
    found = re.search(r'name="csrf" value="(\w+)"', page)
    assert found is not None
    form = {"csrf": found[1], "do": "mute", **fields}
    referer = fields.pop("referer", "")
    return await pages.request(
        "POST", "/notifications", data=form, headers={"Referer": referer} if referer else {}
    )


async def fail(pages: StoredPages, name: str, **fields: Any) -> None:
    await pages.poll(fine_tune("ada", "failed"), fine_tune(name, "failed", **fields), at=NOW - 5)


async def test_a_mute_is_shown_with_its_end_its_author_its_reason_and_what_it_holds(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        before = (await pages.get("/notifications")).text
        await fail(pages, "cleo")
        await pages.mute(author="bo", reason=HOSTILE)
        await pages.mute(account="main", fine_tune="ada", seconds=None, reason="")
        await pages.mute(account="main", fine_tune="gone", seconds=60.0, reason="")
        page = (await pages.get("/notifications")).text
    assert "Nothing is muted. cartesia-exporter mutes add" in section(before, "mutes")
    table = page.split('<div id="mutes">')[1]
    rows = [text_of(row.partition(">")[2]) for row in table.split("<tr ")[2:5]]
    assert rows[0].startswith("gone main 08:01:00 in 1 min 0 alice since 08:00:00")
    assert rows[1].startswith("Ada main when it recovers at the latest 14 Feb 08:00 0 alice")
    assert re.match(r"dataset=calls 09:00:00 in 1 h 2 bo <script>.*; since 08:00:00", rows[2])
    assert "<script>alert" not in page
    assert 'method="post"' not in page


async def test_many_mutes_are_counted(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        for _ in range(22):
            await pages.mute()
        page = (await pages.get("/notifications")).text
    assert page.count('id="mute_') == 20
    assert "2 more: cartesia-exporter mutes list" in section(page, "mutes")


@pytest.mark.parametrize(
    ("matchers", "match", "words"),
    [
        ({"pattern1": "calls"}, {"dataset": "calls"}, "3 of the present fine-tunes match."),
        ({"pattern1": " calls ", "key2": "name", "pattern2": "Ada"},
         {"dataset": "calls", "name": "Ada"}, "1 of the present fine-tunes matches."),
        ({"pattern1": "other"}, {"dataset": "other"},
         "None of the present fine-tunes matches; those that will match are muted."),
        ({"pattern1": "", "key2": "label.team", "pattern2": "voices"},
         {"label.team": "voices"}, "3 of the present fine-tunes match."),
    ],
)  # fmt: skip
async def test_the_form_mutes_what_matches_and_the_page_says_how_many(
    matchers, match, words, tmp_path
):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        page = (await pages.get("/notifications")).text
        form = {"key1": "dataset", "key2": "model_id", "pattern2": "", **matchers}
        answer = await submit(pages, **form, **{"for": "24h", "reason": "why", "author": "cy"})
        location = answer.headers["location"]
        after = (await pages.get(location.partition("#")[0])).text
        [mute] = (await pages.json("/mutes"))["data"]
        pages.now += 61
        later = (await pages.get(location.partition("#")[0])).text
    assert "<option>label.team</option>" in page
    assert (answer.status_code, location) == (303, f"/notifications?added={mute['id']}#mutes")
    assert (mute["match"], mute["author"], mute["reason"]) == (match, "cy", "why")
    assert mute["until"] == "2027-01-16T08:00:00Z"
    assert f"Muted until 16 Jan 08:00 . {words}" in section(after, "mutes")
    assert "of the present fine-tunes" not in later
    assert 'href="/api/v1/deliveries"' in after


async def test_a_user_is_the_author_and_is_not_asked_for_a_name(tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        page = (await pages.request("GET", "/notifications", auth=("bo", "x"))).text
        found = re.search(r'name="csrf" value="(\w+)"', page)
        assert found is not None
        form = {"csrf": found[1], "do": "mute", "key1": "name", "pattern1": "x", "for": "1h"}
        await pages.request(
            "POST", "/notifications", data={**form, "author": "mallory"}, auth=("bo", "x")
        )
        [mute] = (await pages.json("/mutes"))["data"]
        anonymous = (await pages.get("/notifications")).text
    assert mute["author"] == "bo"
    assert ('name="author"' in page, 'name="author"' in anonymous) == (False, True)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"key1": "dataset", "pattern1": "x"}, "a mute must end"),
        ({"key1": "dataset", "pattern1": "x", "for": "1s"}, "1m to 30d"),
        ({"key1": "dataset", "pattern1": "x", "for": "recovery"}, "only a mute of one fine-tune"),
        ({"key1": "dataset", "pattern1": "(", "for": "1h"}, "dataset: must be a regular expr"),
        ({"key1": "colour", "pattern1": "x", "for": "1h"}, "unknown matcher colour"),
        (
            {"key1": "id", "pattern1": "x", "key2": "id", "pattern2": "y", "for": "1h"},
            "id is given twice",
        ),
        ({"for": "1h"}, "give matchers"),
        ({"fine_tune": "ada", "for": "1h"}, "give the account"),
        ({"key1": "name", "pattern1": "x", "for": "1h", "reason": "y" * 501}, "the reason must"),
    ],
)
async def test_a_mute_that_is_not_valid_is_refused_with_what_to_do(form, words, tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        answer = await submit(pages, **form)
        found = (await pages.json("/mutes"))["data"]
    assert (answer.status_code, found) == (400, [])
    assert "Nothing was muted" in answer.text
    assert words in text_of(answer.text)


async def test_a_form_without_a_valid_token_mutes_nothing(tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        form = {"key1": "dataset", "pattern1": "x", "for": "1h", "csrf": "0" * 64}
        statuses = [
            (await submit(pages, **form)).status_code,
            (await submit(pages, do="end-mute", id="mute_1", csrf="")).status_code,
        ]
        found = (await pages.json("/mutes"))["data"]
    assert (statuses, found) == ([403, 403], [])


async def test_a_mute_is_ended_on_its_page_once(tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        mute = await pages.mute()
        page = (await pages.get("/notifications")).text
        back = "http://agent/fine-tunes/main/ada"
        ended = await submit(pages, do="end-mute", id=mute, referer=back)
        again = await submit(pages, do="end-mute", id=mute)
        after = (await pages.get("/notifications")).text
    assert page.count("End mute") == 1
    assert (ended.status_code, ended.headers["location"]) == (303, "/fine-tunes/main/ada")
    assert (again.status_code, pages.woken) == (409, 1)
    assert "Nothing is muted." in section(after, "mutes")


@pytest.mark.parametrize(
    ("duration", "shown"),
    [
        ("4h", "Muted until 12:00:00, by anonymous"),
        ("24h", "Muted until 16 Jan 08:00, by anonymous"),
        ("recovery", "Muted until it recovers, at the latest 14 Feb 08:00, by anonymous"),
    ],
)
async def test_one_click_mutes_a_fine_tune_on_its_page(duration, shown, tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        form = await story_mute(pages, "ada")
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form))
        buttons = re.findall(r'<button name="for" value="(\w+)">', form)
        answer = await pages.request("POST", "/notifications", data={**fields, "for": duration})
        after = await story_mute(pages, "ada")
        other = await story_mute(pages, "bea")
        [mute] = (await pages.json("/fine-tunes/main/ada"))["data"]["mutes"]
        none = (await pages.json("/fine-tunes/main/bea"))["data"]["mutes"]
    assert buttons == ["4h", "24h", "recovery"]
    assert (answer.status_code, answer.headers["location"]) == (303, "/fine-tunes/main/ada")
    assert text_of(after) == f"{shown} End mute"
    assert (mute["fine_tune"], none) == ("ada", [])
    assert re.findall(r'<button name="for" value="(\w+)">', other) == ["4h", "24h"]


async def test_the_page_of_a_fine_tune_shows_a_mute_that_matches_it(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        await pages.mute(match={"dataset": "calls", "label.team": "v.*"}, reason=HOSTILE)
        await pages.mute(match={"dataset": "other"})
        shown = await story_mute(pages, "ada")
        await fail(pages, "zoe", dataset="other")
        await pages.apply_mutes()
        page = (await pages.get("/fine-tunes/main/zoe")).text
    assert text_of(shown) == (
        f"Muted until 09:00:00, by alice, with all of dataset=calls label.team=v.* : {HOSTILE}"
    )
    assert "Muted for ops, slack." in text_of(page)
    assert "2 muted" in section(page, "notified")
    assert "until 09:00:00, by alice" in section(page, "notified")


HELD = (ReceiverSummary("slack", "slack", ("failed",), 900.0), RECEIVERS[1])


async def send_as_group(pages: StoredPages, receiver: str, at: float) -> None:
    """Deliver what is queued for a receiver as one message, with which its interval begins."""
    outbox = Outbox(pages.database, receiver)
    items = await outbox.unsent()
    numbers = tuple(each.number for each in items)
    message = NewMessage(items[0].event.id, b"{}", numbers, starts_interval=True)
    await outbox.create_messages([message], at)
    await pages.attempt(receiver, "answered 200", Outcome.DELIVERED, at)


async def test_a_failure_says_for_whom_it_is_held_or_muted_until_when(tmp_path):
    async with after_a_failure(tmp_path, receivers=HELD) as pages:
        await fail(pages, "cleo")
        await send_as_group(pages, "slack", NOW - 4)
        listed = [fine_tune(each, "failed") for each in ("ada", "cleo")]
        await pages.poll(*listed, fine_tune("dan", "failed"), at=NOW - 3)
        await pages.poll(*listed, fine_tune("dan", "failed"), fine_tune("eve", "failed"), at=NOW)
        await pages.mute(match={"id": "eve"}, author="bo")
        await pages.mute(account="main", fine_tune="eve", seconds=None)
        held, muted = await failure_line(pages, "Dan"), await failure_line(pages, "Eve")
        page = (await pages.get("/notifications")).text
        story = (await pages.get("/fine-tunes/main/dan")).text
        receivers = {each["id"]: each for each in (await pages.json("/receivers"))["data"]}
    assert "slack held until 08:14:56" in held
    assert "ops muted until 09:00:00, by bo" in muted
    slack = receivers["slack"]
    assert (slack["pending"], slack["held"], slack["muted"]) == (1, 1, 1)
    shown = section(page, "receivers")
    assert "1 held back until 08:14:56, one message per 15 min" in shown
    assert "Notifications: 4 pending (1 held back), 2 muted" in text_of(page)
    assert "; 1 held back until 08:14:56 ; 1 muted" in section(page, "trust")
    assert re.search("slack held . until 08:14:56", section(page, "deliveries"))
    assert "Held back for slack." in text_of(story)


async def test_only_held_and_muted_deliveries_are_no_trouble(tmp_path):
    async with stored_pages(tmp_path, receivers=HELD[:1]) as pages:
        await pages.poll(at=NOW - 60)
        await fail(pages, "cleo")
        await send_as_group(pages, "slack", NOW - 4)
        await pages.poll(fine_tune("dan", "failed"), fine_tune("eve", "failed"), at=NOW - 3)
        await pages.mute(match={"id": "eve"})
        page = (await pages.get("/notifications")).text
    assert '<p class="label muted" id="l-recv">Notifications: 1 held back, 1 muted</p>' in page


async def test_who_discarded_a_delivery_is_shown(tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        await fail(pages, "cleo")
        mute = await pages.mute()
        [ops, slack] = (await pages.json("/deliveries?state=muted"))["data"]
        page = (await pages.get("/notifications?state=muted")).text
        await pages.request(
            "POST", f"/api/v1/deliveries/{ops['id']}/discard", json={}, auth=("cy", "x")
        )
        await pages.poll(fine_tune("cleo", "completed"), at=NOW + 60)
        await pages.poll(fine_tune("cleo", "completed"), at=NOW + 120)
        pages.now = NOW + 4000
        await pages.apply_mutes()
        line = await failure_line(pages, "Cleo")
        table = (await pages.get("/notifications?state=discarded")).text
    assert page.count('value="discard"') == 2
    assert 'value="retry"' not in page
    assert "ops discarded 08:00:00 by cy" in line
    assert f"slack discarded 09:06:40 by {mute}" in line
    assert f"by {mute}" in section(table, "deliveries")
    assert slack["mute"] == mute
