"""Contract, refusals and faults of the simulated API, over a real socket."""

import time
from collections import Counter

import httpx
import pytest

from exporter.simulator.api import Faults, Simulation, _TokenBucket, create_app
from exporter.simulator.world import Population, World
from tests.process.agent_process import NO_AUTHORITIES
from tests.simulator.served_app import KEY, client, served

KEY_HEADER = ("Authorization", f"Bearer {KEY}")
VERSION_HEADER = ("Cartesia-Version", "2026-03-01")


@pytest.fixture(scope="module")
def base_url():
    """An API without faults, shared by tests that do not change it."""
    with served(create_app(Simulation(World(Population(fine_tunes=150))))) as address:
        yield address


@pytest.fixture
def http(base_url):
    with client(base_url) as with_key:
        yield with_key


def get_with_headers(base_url: str, path: str, headers: list[tuple[str, str]]) -> httpx.Response:
    """Send one request with these headers only."""
    with httpx.Client(base_url=base_url, verify=NO_AUTHORITIES, trust_env=False) as bare:
        return bare.get(path, headers=headers)


def assert_error(response: httpx.Response, status: int, case: object = None) -> None:
    assert response.status_code == status, case
    assert response.headers["content-type"] == "application/json"
    assert response.json().keys() == {"error_code", "title", "message", "request_id"}


@pytest.mark.parametrize("path", ["/fine-tunes/", "/fine-tunes"])
def test_the_list_has_a_path_with_and_without_a_slash_and_no_redirect(path, http):
    response = http.get(path, params={"limit": 3})
    world = World(Population(fine_tunes=150))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"data", "has_more"}
    assert body["has_more"] is True
    assert [item["id"] for item in body["data"]] == [item.id for item in world.page(3).data]
    assert all(
        list(item) == ["id", "name", "description", "language", "model_id", "dataset", "status"]
        for item in body["data"]
    )


def test_a_fine_tune_by_id_equals_its_list_item_or_is_404(http):
    item = http.get("/fine-tunes/").json()["data"][0]
    assert http.get(f"/fine-tunes/{item['id']}").json() == item
    assert_error(http.get("/fine-tunes/fine_tune_gone"), 404)


def test_the_status_needs_no_key(base_url):
    response = get_with_headers(base_url, "/", [])
    assert response.status_code == 200
    assert response.json() == {"ok": True, "version": "2026-08-14"}


@pytest.mark.parametrize("path", ["/fine-tunes/", "/fine-tunes/some"])
def test_a_standard_key_is_required(base_url, path):
    for headers, status in [
        ([("Authorization", f"Bearer {KEY}")], 200),
        ([("authorization", f"bearer {KEY}")], 200),
        ([("X-API-Key", KEY)], 200),
        ([], 401),
        ([("Authorization", KEY)], 401),
        ([("Authorization", f"Basic {KEY}")], 401),
        ([("Authorization", "Bearer secret")], 401),
        ([("Authorization", "Bearer")], 401),
        ([("X-API-Key", "secret")], 401),
        ([("Authorization", "Bearer sk_car_admin_test.secret")], 403),
        ([("X-API-Key", "sk_car_admin_test.secret")], 403),
    ]:
        response = get_with_headers(base_url, path, [*headers, VERSION_HEADER])
        if status == 200:
            assert response.status_code == (200 if path == "/fine-tunes/" else 404), headers
        else:
            assert_error(response, status, headers)


def test_a_version_is_required(base_url):
    for versions, status in [
        ([("Cartesia-Version", "2026-03-01")], 200),
        ([("cartesia-version", "2026-08-14")], 200),
        ([("Cartesia-Version", "junk"), ("cartesia-version", "2026-08-14")], 200),
        ([("Cartesia-Version", "2026-03-01, 2026-08-14")], 200),
        ([], 400),
        ([("Cartesia-Version", "")], 400),
        ([("Cartesia-Version", "latest")], 400),
        ([("Cartesia-Version", "20260301")], 400),
        ([("Cartesia-Version", "2026-02-30")], 400),
    ]:
        response = get_with_headers(base_url, "/fine-tunes/", [KEY_HEADER, *versions])
        assert response.status_code == status, versions
        if status != 200:
            assert_error(response, status, versions)


def test_the_limit_is_1_to_100_and_10_by_default(http):
    for query, expected in [
        ("", 10),
        ("?limit=", 10),
        ("?limit=null", 10),
        ("?limit=1", 1),
        ("?limit=99", 99),
        ("?limit=100", 100),
        ("?limit=0", None),
        ("?limit=101", None),
        ("?limit=-1", None),
        ("?limit=%2B5", None),
        ("?limit=1e1", None),
        ("?limit=1.0", None),
        ("?limit=1_0", None),
        ("?limit=ten", None),
        ("?limit=%D9%A5", None),
        ("?limit=" + "9" * 5000, None),
        ("?starting_after=&ending_before=", 10),
        ("?starting_after=null", 10),
    ]:
        response = http.get(f"/fine-tunes/{query}")
        if expected is None:
            assert_error(response, 400, query)
        else:
            assert len(response.json()["data"]) == expected, query


def test_cursors_are_exclusive_and_end_with_an_empty_page():
    world = World(Population(fine_tunes=7))
    every = [item.id for item in world]
    with served(create_app(Simulation(world))) as base_url, client(base_url) as http:

        def page(**query: str) -> tuple[list[str], bool]:
            body = http.get("/fine-tunes/", params=query).json()
            return [item["id"] for item in body["data"]], body["has_more"]

        assert page(limit="3", starting_after=every[2]) == (every[3:6], True)
        assert page(limit="3", starting_after=every[3]) == (every[4:], False)
        assert page(limit="3", starting_after=every[6]) == ([], False)
        assert page(limit="3", ending_before=every[4]) == (every[1:4], True)
        assert page(limit="3", ending_before=every[3]) == (every[:3], False)
        assert page(limit="3", ending_before=every[0]) == ([], False)
        both = {"starting_after": every[0], "ending_before": every[3]}
        assert_error(http.get("/fine-tunes/", params=both), 400)
        for cursor in ("starting_after", "ending_before"):
            assert_error(http.get("/fine-tunes/", params={cursor: "gone"}), 404)


def test_unknown_paths_and_methods_are_errors_in_the_same_form(http):
    for method, path, status in [
        ("GET", "/voices", 404),
        ("GET", "/fine-tunes/some/voices", 404),
        ("POST", "/fine-tunes/", 405),
        ("DELETE", "/fine-tunes/some", 405),
    ]:
        assert_error(http.request(method, path), status, (method, path))


def test_faults_can_be_changed_while_the_api_is_served():
    simulation = Simulation(World(Population()))
    with served(create_app(simulation)) as base_url, client(base_url) as http:
        assert http.get("/fine-tunes/").status_code == 200
        simulation.faults = Faults(error_rate=1)
        failed = [http.get("/fine-tunes/") for _ in range(30)]
        assert {response.status_code for response in failed} == {500, 502, 503}
        for response in failed:
            assert_error(response, response.status_code)
        simulation.faults = Faults(error_rate=0.5)
        count = Counter(http.get("/fine-tunes/").status_code for _ in range(100))
        assert 25 <= count[200] <= 75
        simulation.faults = Faults()
        assert http.get("/fine-tunes/").status_code == 200


def test_latency_delays_each_response():
    app = create_app(Simulation(World(Population()), Faults(latency=0.2)))
    with served(app) as base_url, client(base_url) as http:
        begun = time.monotonic()
        assert http.get("/fine-tunes/").status_code == 200
        assert time.monotonic() - begun >= 0.2


def test_a_request_above_the_rate_limit_is_429_with_retry_after():
    simulation = Simulation(World(Population()), Faults(rate_limit=0.01))
    with served(create_app(simulation)) as base_url, client(base_url) as http:
        assert http.get("/fine-tunes/").status_code == 200
        refused = http.get("/fine-tunes/")
        assert_error(refused, 429)
        assert 90 <= int(refused.headers["retry-after"]) <= 100

        simulation.faults = Faults(rate_limit=5)
        deadline = time.monotonic() + 10
        while http.get("/fine-tunes/").status_code != 200:
            assert time.monotonic() < deadline, "the bucket never filled again"


def test_a_token_bucket_allows_a_burst_of_one_second_and_then_its_rate():
    bucket = _TokenBucket()
    assert [bucket.take(2, now=100.0) for _ in range(3)] == [0, 0, 0.5]
    assert bucket.take(2, now=100.25) == 0.25
    assert bucket.take(2, now=100.5) == 0
    assert [bucket.take(2, now=200.0) for _ in range(3)] == [0, 0, 0.5]
    assert [bucket.take(0, now=200.0) for _ in range(9)] == [0] * 9
    assert [bucket.take(0.5, now=200.0) for _ in range(2)] == [0, 2]


def test_a_bug_is_a_500_in_the_same_form(monkeypatch):
    simulation = Simulation(World(Population()))
    monkeypatch.setattr(simulation.world, "page", None)
    with served(create_app(simulation)) as base_url, client(base_url) as http:
        assert_error(http.get("/fine-tunes/"), 500)
