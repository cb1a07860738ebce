"""The JSON API: lists, filters, paging, errors and its OpenAPI document."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, seed, settings

from exporter.core.retry import Outcome
from exporter.web.application import Application
from exporter.web.openapi import document
from tests.simulator.served_app import served
from tests.web.stored_pages import NOW, after_a_failure, fine_tune, stored_pages

pytestmark = pytest.mark.anyio


async def test_status_says_what_failed_and_whether_the_data_can_be_trusted(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        status = await pages.json("/status")
    assert (status["failures_1h"], status["failures_24h"]) == (1, 1)
    assert (status["complete"], status["as_of"]) == (True, "2027-01-15T07:59:42Z")
    [account] = status["accounts"]
    assert (account["id"], account["state"], account["fine_tunes"]) == ("main", "current", 3)
    assert account["counts"]["failed"] == 1
    states = {each["id"]: (each["state"], each["pending"]) for each in status["receivers"]}
    assert states == {"slack": ("delivering", 0), "ops": ("retrying", 1)}


async def test_events_have_their_deliveries_with_time_answer_and_next_attempt(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        answer = await pages.json("/events?type=failed")
    [event] = answer["data"]
    assert (event["fine_tune"], event["name"], event["previous_status"]) == (
        "ada",
        "Ada",
        "training",
    )
    ops, slack = event["deliveries"]
    assert (slack["receiver"], slack["state"], slack["answer"]) == (
        "slack",
        "delivered",
        "answered 200",
    )
    assert slack["settled_at"] == "2027-01-15T07:50:02Z"
    assert (ops["state"], ops["attempts"], ops["answer"]) == ("pending", 1, "answered 503")
    assert ops["next_attempt_at"] == "2027-01-15T07:55:10Z"


async def test_a_story_has_statuses_trainings_events_and_siblings(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        answer = await pages.json("/fine-tunes/main/ada")
    story = answer["data"]
    assert story["fine_tune"]["trained_seconds"] == 3000
    assert story["fine_tune"]["usual_seconds"] == 1800
    assert [(each["status"], each["since"][11:16]) for each in story["statuses"]] == [
        ("training", "07:00"),
        ("failed", "07:50"),
    ]
    assert [each["ended_as"] for each in story["trainings"]] == ["failed"]
    assert (story["same_dataset_total"], story["same_dataset_failed"]) == (3, 1)


async def test_a_recovery_is_in_the_story_and_adds_no_status(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        for at in (NOW - 10, NOW - 5):
            await pages.poll(fine_tune("ada", "training"), at=at)
        answer = await pages.json("/fine-tunes/main/ada")
        found = await pages.json("/events?type=recovered")
        page = await pages.get("/fine-tunes/main/ada")
    statuses = [each["status"] for each in answer["data"]["statuses"]]
    assert statuses == ["training", "failed", "training"]
    [event] = found["data"]
    assert [each["receiver"] for each in event["deliveries"]] == ["ops", "slack"]
    assert "recovered" in page.text


async def test_a_fine_tune_that_nobody_knows_is_404_with_an_explanation(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        answer = await pages.get("/api/v1/fine-tunes/main/none")
    assert answer.status_code == 404
    assert answer.json() == {"title": "Not found", "message": "account main has no fine-tune none"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["ada", "bea", "old"]),
        ("?sort=name", ["ada", "bea", "old"]),
        ("?sort=-name", ["old", "bea", "ada"]),
        ("?sort=since", ["old", "bea", "ada"]),
        ("?status=failed", ["ada"]),
        ("?status=failed&status=completed&sort=name", ["ada", "bea", "old"]),
        ("?q=EA", ["bea"]),
        ("?q=%25", []),
        ("?since=15m", ["ada"]),
        ("?account=other", []),
        ("?dataset=calls&model_id=sonic-3&status=completed&sort=name", ["bea", "old"]),
        ("?status=removed", []),
    ],
)
async def test_fine_tunes_are_filtered_and_sorted(query, expected, tmp_path):
    async with after_a_failure(tmp_path) as pages:
        answer = await pages.json(f"/fine-tunes{query}")
    assert [each["id"] for each in answer["data"]] == expected


@pytest.mark.parametrize("sort", ["since", "-since", "name", "-name", "status", "-account"])
async def test_pages_of_a_list_have_every_element_once(sort, tmp_path):
    async with stored_pages(tmp_path, accounts=["a", "b"]) as pages:
        for account in ("a", "b"):
            everything = [
                fine_tune(f"f{n:02}", ("failed", "training")[n % 2], name=f"same {n % 3}")
                for n in range(25)
            ]
            await pages.poll(*everything[:10], at=NOW - 100, account=account)
            await pages.poll(*everything, at=NOW - 50, account=account)
        found: list[tuple[str, str]] = []
        after = ""
        while True:
            answer = await pages.json(f"/fine-tunes?limit=7&sort={sort}{after}")
            found += [(each["account"], each["id"]) for each in answer["data"]]
            if not answer["has_more"]:
                break
            # Two accounts share the id: the account of the cursor alone is not a filter here.
            last = answer["data"][-1]
            refused = await pages.get(f"/api/v1/fine-tunes?starting_after={last['id']}")
            assert refused.status_code == 400
            after = f"&starting_after={last['id']}&after_account={last['account']}"
    assert len(found) == len({*found}) == 50


async def test_deliveries_page_by_page_newest_first(tmp_path):
    async with stored_pages(tmp_path) as pages:
        await pages.poll(at=NOW - 100)
        await pages.poll(*(fine_tune(f"f{n}", "failed") for n in range(6)), at=NOW - 50)
        found: list[str] = []
        after = ""
        while True:
            answer = await pages.json(f"/deliveries?limit=5{after}")
            found += [each["id"] for each in answer["data"]]
            if not answer["has_more"]:
                break
            after = f"&starting_after={found[-1]}"
        events = [each["id"] for each in (await pages.json("/events?type=failed"))["data"]]
    assert found == [f"{event}:{name}" for event in events for name in ("ops", "slack")]


@pytest.mark.parametrize(
    ("query", "number"),
    [("state=pending", 1), ("receiver=slack", 1), ("state=delivered&receiver=ops", 0),
     ("type=stuck", 0), ("status=failed", 2), ("q=ada", 2), ("q=bea", 0), ("since=1m", 0)],
)  # fmt: skip
async def test_deliveries_are_filtered(query, number, tmp_path):
    async with after_a_failure(tmp_path) as pages:
        assert len((await pages.json(f"/deliveries?{query}"))["data"]) == number


async def test_a_delivery_of_a_receiver_that_left_the_configuration_is_orphaned(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        pages.receivers = pages.receivers[:1]
        answer = await pages.json("/deliveries?state=orphaned")
        receivers = (await pages.json("/receivers"))["data"]
    assert [each["receiver"] for each in answer["data"]] == ["ops"]
    assert [(each["id"], each["configured"]) for each in receivers] == [
        ("slack", True),
        ("ops", False),
    ]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=0", "limit is a number from 1 to 100"),
        ("limit=101", "limit"),
        ("limit=ten", "limit"),
        ("limit=\u0661", "limit"),
        ("limit=1&limit=2", "given 2 times"),
        ("acount=main", "there is no parameter 'acount'"),
        ("sort=size", "sort is one of"),
        ("since=soon", "since must be a duration"),
        ("q=" + "x" * 201, "more than 200 characters"),
    ],
)
async def test_a_parameter_that_is_not_valid_is_400_and_named(query, words, tmp_path):
    async with stored_pages(tmp_path) as pages:
        answer = await pages.get(f"/api/v1/fine-tunes?{query}")
    assert answer.status_code == 400
    assert words in answer.json()["message"]


async def test_an_answer_is_304_until_something_changes(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        first = await pages.get("/api/v1/status")
        etag = first.headers["etag"]
        again = await pages.get("/api/v1/status", **{"If-None-Match": etag})
        await pages.attempt("ops", "answered 204", Outcome.DELIVERED, NOW)
        changed = await pages.get("/api/v1/status", **{"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")
    assert changed.status_code == 200
    assert changed.headers["cache-control"] == "private, no-cache"


async def test_changes_are_off_without_the_flag(tmp_path):
    async with after_a_failure(tmp_path) as pages:
        [delivery] = (await pages.json("/deliveries?state=pending"))["data"]
        path = f"/api/v1/deliveries/{delivery['id']}/discard"
        answer = await pages.request("POST", path, json={})
    assert answer.status_code == 403
    assert "--web.enable-lifecycle" in answer.json()["message"]


async def test_a_delivery_is_discarded_on_request(tmp_path):
    async with after_a_failure(tmp_path, with_actions=True) as pages:
        [delivery] = (await pages.json("/deliveries?state=pending"))["data"]
        path = f"/api/v1/deliveries/{delivery['id']}/discard"
        refused = await pages.request("POST", path, data={"x": "y"})
        foreign = await pages.request(
            "POST", path, json={}, headers={"Origin": "https://evil.example"}
        )
        answer = await pages.request("POST", path, json={})
        [after] = (await pages.json("/deliveries?state=discarded"))["data"]
        again = await pages.request("POST", path, json={})
    assert (refused.status_code, foreign.status_code) == (415, 403)
    assert (answer.status_code, answer.json(), pages.woken) == (200, {"changed": 1}, 1)
    assert after["id"] == delivery["id"]
    assert again.status_code == 409


def fields_of(schema: dict[str, Any], name: str) -> Iterator[tuple[str, str]]:
    for field in schema["components"]["schemas"][name].get("properties", {}):
        yield name, field


async def test_every_documented_field_is_served(tmp_path):
    described = json.loads(msgspec.json.encode(document()))
    served_fields: set[str] = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            served_fields.update(value)
            for each in value.values():
                collect(each)
        elif isinstance(value, list):
            for each in value:
                collect(each)

    async with after_a_failure(tmp_path, with_actions=True) as pages:
        for path in described["paths"]:
            if "{" not in path:
                collect(await pages.json(path))
        collect(await pages.json("/fine-tunes/main/ada"))
        collect((await pages.get("/api/v1/none")).json())
        [delivery] = (await pages.json("/deliveries?state=pending"))["data"]
        path = f"/api/v1/deliveries/{delivery['id']}/retry"
        collect((await pages.request("POST", path, json={})).json())
        mute = {"match": {"dataset": "calls"}, "for": "1h"}
        collect((await pages.request("POST", "/api/v1/mutes", json=mute)).json())
        collect(await pages.json("/mutes"))
    documented = {
        field
        for name in described["components"]["schemas"]
        # Bodies of requests, and what tests/replicas reads of replicas.
        if name not in {"NewMute", "MuteEnd", "ReplicaRecord"}
        for _, field in fields_of(described, name)
    }
    assert documented - served_fields == set()


async def test_answers_conform_to_the_document_whatever_is_asked(tmp_path):
    import schemathesis
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    async with after_a_failure(tmp_path, with_actions=True) as pages:
        app = Application(pages.context())
        with served(app) as url:
            schema = schemathesis.openapi.from_dict(document())
            schema.config.update(base_url=f"{url}/api/v1")
            for operation in schema.get_all_operations():
                requests: Any = operation.ok()  # type: ignore[union-attr] # or it raises
                # A mute has rules that a schema cannot state, such as a pattern's syntax.
                is_mute = (requests.method, requests.path) == ("post", "/mutes")
                check(requests.as_strategy(), [positive_data_acceptance] if is_mute else [])


def check(requests: Any, excluded: list[Any]) -> None:
    """Send generated requests of one operation; check the answers by all checks but these."""

    @seed(1)
    @settings(max_examples=15, deadline=None, database=None)
    @given(requests)
    def run(case):
        case.call_and_validate(timeout=10, excluded_checks=excluded)

    run()
