"""Retry and discard from the pages: who may, tokens, other sites, forms and the log."""

import re

import pytest
from structlog.testing import capture_logs

from exporter.core.retry import Outcome
from tests.web.stored_pages import NOW, StoredPages, after_a_failure, fine_tune

pytestmark = pytest.mark.anyio

DAY = 86_400.0
ADA = ("ada", "secret-of-ada")
BEN = ("ben", "secret-of-ben")


async def form_of(pages: StoredPages, auth=None) -> dict[str, str]:
    """Return the fields of the first form of the notifications, with the action to discard."""
    text = (await pages.request("GET", "/notifications?state=pending&receiver=ops", auth=auth)).text
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', text))
    return {**fields, "do": "discard"}


async def post(pages: StoredPages, form, auth=None, **headers: str):
    return await pages.request("POST", "/notifications", data=form, auth=auth, headers=headers)


async def states(pages: StoredPages) -> dict[str, str]:
    return {each["receiver"]: each["state"] for each in (await pages.json("/deliveries"))["data"]}


async def test_without_the_flag_there_is_no_form_and_a_change_is_refused(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        text = (await pages.get("/notifications")).text
        story = (await pages.get("/fine-tunes/main/ada")).text
        answer = await post(pages, {"do": "discard", "id": "x"})
        found = await states(pages)
    assert 'method="post"' not in text + story
    assert answer.status_code == 403
    assert "--web.enable-lifecycle" in answer.text
    assert found["ops"] == "pending"


async def test_a_form_discards_a_delivery_and_leads_back_to_its_page(tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        form = await form_of(pages)
        back = "http://agent/notifications?state=pending"
        answer = await post(pages, form, Referer=back)
        again = await post(pages, form)
        found = await states(pages)
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "/notifications?state=pending",
    )
    assert (found, pages.woken) == ({"slack": "delivered", "ops": "discarded"}, 1)
    assert again.status_code == 409
    assert "settled already" in again.text


@pytest.mark.parametrize(
    "referer",
    ["https://evil.example/x", "//evil.example", "http://agent//evil", "http://agent", ""],
)
async def test_a_change_never_leads_to_another_site(referer, tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        answer = await post(pages, await form_of(pages), Referer=referer)
    assert (answer.status_code, answer.headers["location"]) == (303, "/notifications")


async def test_a_delivery_that_is_delivered_meanwhile_is_a_conflict(tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        form = await form_of(pages)
        await pages.attempt("ops", "answered 204", Outcome.DELIVERED, NOW)
        answers = [await post(pages, {**form, "do": do}) for do in ("retry", "discard")]
        found = await states(pages)
    assert [each.status_code for each in answers] == [409, 409]
    assert (found["ops"], pages.woken) == ("delivered", 0)


@pytest.mark.parametrize(("days", "status"), [(0, 303), (1, 303), (2, 403), (-1, 403)])
async def test_a_token_is_valid_on_its_day_and_on_the_next(days, status, tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        form = await form_of(pages)
        pages.now = NOW + days * DAY
        assert (await post(pages, form)).status_code == status


@pytest.mark.parametrize("token", ["", "x", "0" * 64, "é", "\udc80", "\0"])
async def test_a_token_that_is_not_ours_is_refused(token, tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        form = {**(await form_of(pages)), "csrf": token.encode("utf-8", "surrogatepass")}
        answer = await post(pages, form)
        found = await states(pages)
    assert (answer.status_code, found["ops"]) == (403, "pending")


async def test_a_token_is_that_of_one_user_and_no_page_has_the_one_of_another(tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        tokens = [(await form_of(pages, auth))["csrf"] for auth in (None, ADA, BEN, ADA)]
        etags = {
            (await pages.request("GET", "/notifications", auth=auth)).headers["etag"]
            for auth in (None, ADA, BEN)
        }
        form = await form_of(pages, ADA)
        refused = await post(pages, form, BEN)
        accepted = await post(pages, form, ADA)
    assert len(set(tokens)) == len(etags) == 3
    assert tokens[1] == tokens[3]
    assert (refused.status_code, accepted.status_code) == (403, 303)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 303),
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "none"}, 303),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": ""}, 403),
        ({"Origin": "http://agent"}, 303),
        ({"Origin": "HTTP://AGENT"}, 303),
        ({"Origin": "http://agent:8080"}, 403),
        ({"Origin": "https://agent"}, 303),  # a proxy may have ended TLS
        ({"Origin": "https://agent", "Sec-Fetch-Site": "same-origin"}, 303),
        ({"Origin": "http://agent", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, 403),
        ({"Origin": "http://agent.evil.example"}, 403),
        ({"Origin": "http://agent@evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "http://["}, 403),
    ],
)
async def test_a_request_of_another_site_is_refused(headers, status, tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        form = await form_of(pages)
        api = await pages.request(
            "POST", f"/api/v1/deliveries/{form['id']}/retry", json={}, headers=headers
        )
        answer = await post(pages, form, **headers)
    assert answer.status_code == status
    assert api.status_code == (200 if status == 303 else 403)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"csrf=x&" + b"a" * 40_000, 400),
        (b"a=b&" * 100, 400),
        (b"", 403),
        (b"\xff\xfe%ff%zz", 403),
        (b'--x\r\nContent-Disposition: form-data; name="csrf"\r\n\r\nx\r\n--x--', 403),
    ],
)
async def test_a_form_that_is_not_valid_is_refused(body, status, tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        answer = await pages.request("POST", "/notifications", content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    "change",
    [{"do": "delete"}, {"do": ""}, {"id": ""}, {"id": ":"}, {"id": ":ops"}, {"id": "none:ops"},
     {"id": "x\0:ops"}, {"id": "%:ops"}, {"id": "x:" + "y" * 4000}],
)  # fmt: skip
async def test_a_change_of_nothing_known_is_a_conflict(change, tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        answer = await post(pages, {**(await form_of(pages)), **change})
        found = await states(pages)
    assert (answer.status_code, found["ops"]) == (409, "pending")
    assert len(answer.text) < 4000


async def test_all_events_of_a_digest_are_changed_together(tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        form = await form_of(pages)
        event, _, _ = form["id"].partition(":")
        await pages.attempt("ops", "answered 204", Outcome.DELIVERED, NOW - 10)
        more = [fine_tune(f"f{n}", "failed") for n in range(3)]
        await pages.poll(*more, at=NOW - 5)
        await pages.digest("ops", NOW - 4)
        form = await form_of(pages)
        answer = await post(pages, form)
        discarded = (await pages.json("/deliveries?state=discarded"))["data"]
    assert answer.status_code == 303
    assert event not in form["id"]
    assert [each["receiver"] for each in discarded] == ["ops"] * 3


@pytest.mark.parametrize(
    ("user", "logged"),
    [
        ("ada", "ada"),
        ("", "anonymous"),
        ("x" * 5000, "x" * 99 + "…"),
        ("<b>\n\x1b[31m\u202eada", "<b> [31mada"),
    ],
)
async def test_a_change_is_logged_with_its_user(user, logged, tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        auth = (user.encode(), b"pass-of-user")
        form = await form_of(pages, auth)
        with capture_logs() as logs:
            answer = await post(pages, form, auth)
    assert answer.status_code == 303
    [entry] = [each for each in logs if each["event"] == "deliveries changed"]
    assert entry["user"] == logged
    assert (entry["action"], entry["delivery"]) == ("discard", form["id"])
    assert "pass-of-user" not in repr(logs)
