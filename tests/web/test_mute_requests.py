"""The API's requests that add, list and end mutes: who may, what is refused, and the answers."""

from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from tests.web.stored_pages import NOW, StoredPages, after_a_failure, fine_tune

pytestmark = pytest.mark.anyio

CALLS = {"match": {"dataset": "calls"}, "for": "4h"}
ADA = {"account": "main", "fine_tune": "ada", "until_recovered": True}


async def post(pages: StoredPages, path: str, body: Any, **options: Any) -> httpx.Response:
    return await pages.request("POST", f"/api/v1/mutes{path}", json=body, **options)


async def listed(pages: StoredPages, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await pages.json(f"/mutes{query}"))["data"]
    return found


async def test_a_mute_is_added_listed_and_ended(tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        with capture_logs() as logs:
            added = await post(pages, "", {**CALLS, "reason": "new recordings"}, auth=("bo", "x"))
            [mute] = await listed(pages, "?active=true")
            ended = await post(pages, f"/{mute['id']}/end", {}, auth=("cy", "x"))
        again = await post(pages, f"/{mute['id']}/end", {})
        active, all_of_them = await listed(pages, "?active=true"), await listed(pages)
        over = await listed(pages, "?active=false")
    assert added.status_code == 200, added.text
    assert added.json() == {"mute": mute, "matches": 3}
    assert (mute["until"], mute["created_at"]) == ("2027-01-15T12:00:00Z", "2027-01-15T08:00:00Z")
    assert (mute["author"], mute["reason"], mute["match"]) == (
        "bo",
        "new recordings",
        {"dataset": "calls"},
    )
    assert ended.json()["mute"] == over[0] == all_of_them[0]
    assert (over[0]["active"], over[0]["ended_by"]) == (False, "cy")
    assert (active, again.status_code, pages.woken) == ([], 404, 2)
    assert [(each["event"], each["user"]) for each in logs] == [
        ("mute added", "bo"),
        ("mute ended", "cy"),
    ]


@pytest.mark.parametrize(
    ("body", "matches"),
    [
        (CALLS, 3),
        (ADA, 1),
        ({**ADA, "fine_tune": "none"}, 0),
        ({**ADA, "account": "other"}, 0),
        ({"match": {"dataset": "calls", "name": "(Ada|Bea)"}, "for": "1h"}, 2),
        ({"match": {"label.team": "voices", "id": "old"}, "for": "1h"}, 1),
        ({"match": {"label.team": "voice"}, "for": "1h"}, 0),
        ({"match": {"label.other": ""}, "for": "1h"}, 3),
        ({"match": {"account": "ma.*"}, "for": "1h"}, 3),
        ({"match": {"dataset": ""}, "for": "1h"}, 0),
    ],
)
async def test_the_answer_says_how_many_fine_tunes_match_now(body, matches, tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        pages.accounts.append("empty")
        answer = await post(pages, "", body)
    assert (answer.status_code, answer.json()["matches"]) == (200, matches)


async def test_removed_fine_tunes_and_accounts_do_not_count(tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        await pages.poll(fine_tune("x", "training"), at=NOW - 90, account="second")
        before = (await post(pages, "", CALLS)).json()["matches"]
        pages.accounts.append("second")
        added = (await post(pages, "", CALLS)).json()["matches"]
        for at in (NOW - 10, NOW - 5):
            await pages.poll(fine_tune("ada", "failed"), at=at)
        removed = (await post(pages, "", CALLS)).json()["matches"]
        of_one = (await post(pages, "", {**ADA, "fine_tune": "bea"})).json()["matches"]
    assert (before, added, removed, of_one) == (3, 4, 2, 0)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "a mute must end: give either for or until_recovered"),
        ({"match": {"dataset": "x"}}, "a mute must end"),
        ({**ADA, "for": "1h"}, "a mute must end"),
        ({**CALLS, "for": "59s"}, "1m to 30d"),
        ({**CALLS, "for": "721h"}, "1m to 30d"),
        ({**CALLS, "for": "soon"}, "the duration must be a duration such as"),
        ({"for": "1h"}, "give matchers, or the account"),
        ({**CALLS, "account": "main"}, "as a matcher, write account=NAME"),
        ({**CALLS, "until_recovered": True, "for": ""}, "only a mute of one fine-tune"),
        ({**CALLS, "match": {"colour": "x"}}, "unknown matcher colour"),
        ({**CALLS, "match": {"y" * 5000: "x"}}, "unknown matcher yyy"),
        ({**CALLS, "match": {"name": "("}}, "name: must be a regular expression"),
        ({**CALLS, "match": {"name": 3}}, "Expected `str`, got `int`"),
        ({**CALLS, "dataset": "x"}, "unknown field `dataset`"),
        ({**ADA, "fine_tune": "x\0"}, "no account and no fine-tune has such"),
        ({**CALLS, "reason": "x" * 501}, "$.reason"),
        ([], "The body is not valid"),
        ({**CALLS, "reason": "x" * 200_000}, "longer than 128 KiB"),
    ],
)
async def test_a_mute_that_is_not_valid_is_refused_with_what_to_do(body, words, tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        answer = await post(pages, "", body)
        found = await listed(pages)
    assert (answer.status_code, found) == (400, [])
    assert words in answer.json()["message"]
    assert len(answer.text) < 1000


@pytest.mark.parametrize("path", ["", "/{id}/end"])
async def test_who_may_not_change_anything_is_refused(path, tmp_path):
    async with after_a_failure(tmp_path) as pages:
        path = path.format(id=await pages.mute())
        off = await post(pages, path, CALLS)
        pages.with_actions = True
        foreign = await post(pages, path, CALLS, headers={"Origin": "https://evil.example"})
        form = await pages.request("POST", f"/api/v1/mutes{path}", data={"x": "y"})
        found = await listed(pages)
    assert (off.status_code, foreign.status_code, form.status_code) == (403, 403, 415)
    assert "--web.enable-lifecycle" in off.json()["message"]
    assert [each["active"] for each in found] == [True]


@pytest.mark.parametrize(
    ("auth", "author", "kept"),
    [
        (("bo", "x"), "mallory", "bo"),
        (None, "carol", "carol"),
        (None, " \n\x1b[31m", "[31m"),
        (None, "", "anonymous"),
        (("", "x"), "\u202e", "anonymous"),
        (("u" * 500, "x"), "", "u" * 99 + "…"),
    ],
)
async def test_the_author_is_the_user_else_who_the_client_says(auth, author, kept, tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        await post(pages, "", {**CALLS, "author": author}, auth=auth)
        [mute] = await listed(pages)
        await post(pages, f"/{mute['id']}/end", {"author": author}, auth=auth)
        [ended] = await listed(pages)
    assert (mute["author"], ended["ended_by"]) == (kept, kept)


async def test_mutes_page_by_page_newest_first(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        ids = [await pages.mute() for _ in range(5)][::-1]
        first = await pages.json("/mutes?limit=3")
        second = await pages.json(f"/mutes?limit=3&starting_after={ids[2]}")
        unknown = await pages.get("/api/v1/mutes?starting_after=mute_none")
        wrong = await pages.get("/api/v1/mutes?active=yes")
    assert [each["id"] for each in first["data"] + second["data"]] == ids
    assert (first["has_more"], second["has_more"], first["complete"]) == (True, False, True)
    assert (unknown.status_code, wrong.status_code) == (404, 400)
    assert "active is one of false, true" in wrong.json()["message"]


async def test_a_muted_delivery_says_until_when_by_whom_and_who_discarded_it(tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        await pages.poll(fine_tune("cleo", "failed"), at=NOW - 5)
        mute = await pages.mute(author="bo")
        muted = await pages.json("/deliveries?state=muted")
        [record] = await listed(pages)
        delivery = muted["data"][0]
        await pages.request(
            "POST", f"/api/v1/deliveries/{delivery['id']}/discard", json={}, auth=("cy", "x")
        )
        [discarded] = (await pages.json("/deliveries?state=discarded"))["data"]
        events = await pages.json("/events?state=muted")
    assert [each["receiver"] for each in muted["data"]] == ["ops", "slack"]
    assert (record["deliveries"], delivery["mute"]) == (2, mute)
    assert (delivery["muted_until"], delivery["muted_by"], delivery["discarded_by"]) == (
        "2027-01-15T09:00:00Z",
        "bo",
        "",
    )
    assert (discarded["id"], discarded["discarded_by"]) == (delivery["id"], "cy")
    assert (discarded["muted_until"], discarded["muted_by"], discarded["mute"]) == (None, "", mute)
    assert len(events["data"]) == 1


async def test_a_delivery_that_is_muted_until_recovery_says_so(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        await pages.poll(fine_tune("cleo", "failed"), at=NOW - 5)
        await pages.mute(account="main", fine_tune="cleo", seconds=None)
        muted = (await pages.json("/deliveries?state=muted"))["data"]
    assert [each["muted_until_recovered"] for each in muted] == [True, True]
