"""Page fetchers over real sockets: connections, rate limits and the page cache."""

import asyncio
import gc
import json
import threading
import time

import pytest

from exporter.cartesia import client, fetch, pages
from exporter.cartesia.client import RateLimits
from exporter.cartesia.listing import Listing
from exporter.core.model import TrackedFineTune
from tests.cartesia.client_fixture import REAL_CLOCK, ClientFixture
from tests.fakes.answers import answer, as_json, drips, gzipped, head, sends, silence
from tests.fakes.api import FakeApi, fine_tune, page, problem
from tests.fakes.server import Answer, Peer

IDS = [f"ft_{number}" for number in range(950)]
CURSORS = [f"ft_{number}" for number in range(99, 950, 100)]


class BusyApi(FakeApi):
    """Takes some time for each answer and counts the requests in flight.

    No answer is sent until ``at_least`` requests were in flight at once. ``then_for`` are answers
    to the first request for a cursor.
    """

    def __init__(self, seconds: float = 0.05) -> None:
        super().__init__([fine_tune(text) for text in IDS])
        self.seconds = seconds
        self.then_for: dict[str | None, Answer] = {}
        self.in_flight = 0
        self.max_in_flight = 0
        self.at_least = 0
        self._condition = threading.Condition()
        self.otherwise = self._answer

    def _answer(self, peer: Peer) -> None:
        with self._condition:
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            self._condition.notify_all()
            assert self._condition.wait_for(lambda: self.max_in_flight >= self.at_least, 20)
        special = self.then_for.pop(peer.request.query.get("starting_after"), None)
        if special is None:
            peer.wait(self.seconds)
        with self._condition:  # before the client can send its next request
            self.in_flight -= 1
        (special or self._list)(peer)


@pytest.fixture
def busy_api():
    with BusyApi() as api:
        yield api


def warm_client(clock, api: FakeApi, **limits) -> ClientFixture:
    """Return a client that knows the cursors of the list."""
    fixture = ClientFixture(clock, api.base_url, limits=RateLimits(**limits))
    fixture.client.remember(CURSORS)
    return fixture


def tracked_of(listing: Listing) -> dict[str, TrackedFineTune]:
    return {
        text: TrackedFineTune(each, sequence=1, since=0.0, since_seen=False)
        for text, each in listing.fine_tunes.items()
    }


def connections(api: FakeApi) -> set[int]:
    return {request.connection for request in api.requests}


@pytest.mark.parametrize("concurrency", [1, 3, 8, 16])
async def test_pages_are_fetched_concurrently_each_over_its_own_connection(
    clock, busy_api, concurrency
):
    busy_api.at_least = min(concurrency, 10)
    fixture = warm_client(clock, busy_api, concurrency=concurrency)
    assert await fixture.poll_ids() == IDS
    assert busy_api.max_in_flight == min(concurrency, 10) == len(connections(busy_api))
    assert fixture.codes == {"200": 10}


async def test_each_listing_uses_new_connections(clock, busy_api):
    fixture = warm_client(clock, busy_api, concurrency=4)
    busy_api.at_least = 4
    await fixture.poll()
    first = connections(busy_api)
    busy_api.requests.clear()
    busy_api.max_in_flight = 0
    await fixture.poll()
    assert len(connections(busy_api)) == 4
    assert not connections(busy_api) & first


async def test_after_an_error_the_fetcher_uses_a_new_connection(clock, busy_api):
    busy_api.then_for["ft_99"] = as_json(problem(503), 503)
    busy_api.at_least = 4
    fixture = warm_client(clock, busy_api, concurrency=4)
    assert await fixture.poll_ids() == IDS
    assert (busy_api.connections, fixture.failures) == (5, {"server_error": 1})


async def test_a_surplus_answer_is_not_taken_for_the_next_page(clock, busy_api):
    """A surplus empty last page would look like the removal of all fine-tunes after it."""
    whole = json.dumps(page([fine_tune(text) for text in IDS[100:200]], has_more=True)).encode()
    empty = b'{"data":[],"has_more":false}'
    answers = [head(200, content_length=len(body)) + body for body in (whole, empty)]
    busy_api.then_for["ft_99"] = sends(b"".join(answers))
    assert await warm_client(clock, busy_api, concurrency=4).poll_ids() == IDS


async def test_a_hanging_page_that_is_not_needed_is_cancelled_and_its_connection_closed(
    busy_api, recwarn
):
    busy_api.then_for["ft_899"] = silence
    del busy_api.fine_tunes[895:]
    fixture = warm_client(REAL_CLOCK, busy_api, concurrency=4)
    started = time.monotonic()
    assert await fixture.poll_ids() == IDS[:895]
    assert time.monotonic() - started < 20
    gc.collect()
    assert [str(each.message) for each in recwarn if each.category is ResourceWarning] == []


@pytest.mark.parametrize(("seconds", "stall_timeout"), [(60, 0.2), (4, 60)])
async def test_a_poll_succeeds_when_unneeded_pages_hang_on_all_connections(
    busy_api, monkeypatch, seconds, stall_timeout
):
    monkeypatch.setattr(client, "STALL_TIMEOUT_SECONDS", stall_timeout)
    busy_api.then_for = dict.fromkeys(CURSORS[:2], silence)
    busy_api.fine_tunes = [item for item in busy_api.fine_tunes if item["id"] not in CURSORS[:2]]
    fixture = warm_client(REAL_CLOCK, busy_api, concurrency=2)
    started = time.monotonic()
    assert len(await fixture.poll_ids(seconds)) == len(IDS) - 2
    assert time.monotonic() - started < 10


async def test_a_hanging_page_that_is_needed_is_cancelled_at_the_polls_deadline(busy_api):
    for cursor in (None, *CURSORS):
        busy_api.then_for[cursor] = drips(head(200, content_length=10**6))
    fixture = warm_client(REAL_CLOCK, busy_api, concurrency=4)
    started = time.monotonic()
    assert (await fixture.poll_error(seconds=0.5)).reason == "timeout"
    assert 0.5 <= time.monotonic() - started < 5


@pytest.mark.parametrize("headers", [{}, {"retry_after": 7}], ids=["without", "with Retry-After"])
async def test_after_a_429_the_rest_of_the_poll_is_one_request_at_a_time(clock, busy_api, headers):
    busy_api.then_for[None] = as_json(problem(429), 429, **headers)
    fixture = warm_client(clock, busy_api, concurrency=4)

    def start_to_count(peer: Peer) -> None:
        busy_api.max_in_flight = 0
        busy_api._list(peer)

    busy_api.then_for["ft_499"] = start_to_count
    assert await fixture.poll_ids() == IDS
    assert busy_api.max_in_flight == 1
    assert fixture.failures == {"rate_limited": 1}
    assert sum(clock.slept) == headers.get("retry_after", 0.5)
    busy_api.max_in_flight, busy_api.at_least = 0, 4
    await fixture.poll()
    assert busy_api.max_in_flight == 4, "the next poll has its full concurrency"


async def test_a_retry_after_beyond_the_deadline_ends_the_poll_on_all_connections(clock, busy_api):
    busy_api.then_for[None] = as_json(problem(429), 429, retry_after=120)
    fixture = warm_client(clock, busy_api, concurrency=4)
    error = await fixture.poll_error(seconds=60)
    assert (error.reason, error.retry_after) == ("rate_limited", 120)
    assert len(busy_api.requests) <= 4, "only those that were in flight"
    assert clock.slept == []


async def test_a_request_that_another_ones_429_delays_beyond_the_poll_has_its_error(
    clock, busy_api
):
    def answer_503_after_the_429(peer: Peer) -> None:
        peer.wait(0.3)
        as_json(problem(503), 503)(peer)

    busy_api.then_for = {
        None: answer_503_after_the_429,
        "ft_99": as_json(problem(429), 429, retry_after=120),
    }
    error = await warm_client(clock, busy_api, concurrency=2).poll_error(seconds=60)
    assert (error.reason, error.retry_after) == ("rate_limited", 120)
    assert 120 not in clock.slept


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_the_rate_covers_all_connections_and_retries(busy_api, concurrency):
    busy_api.then_for["ft_99"] = as_json(problem(503), 503)
    fixture = warm_client(REAL_CLOCK, busy_api, concurrency=concurrency, per_second=50)
    started = time.monotonic()
    assert await fixture.poll_ids() == IDS
    assert time.monotonic() - started >= 10 / 50
    assert len(busy_api.requests) == 11


async def test_requests_that_would_start_after_the_deadline_are_not_sent(clock, busy_api):
    fixture = warm_client(clock, busy_api, concurrency=4, per_second=0.1)
    assert (await fixture.poll_error(seconds=35)).reason == "timeout"
    assert len(busy_api.requests) == 4, "at 0, 10, 20 and 30 s"


@pytest.fixture
def decoded(monkeypatch):
    """The bodies that were decoded, and whether in the event loop's thread."""
    found = []
    read_page = pages.read_page

    def record(body):
        found.append((body, threading.current_thread() is threading.main_thread()))
        return read_page(body)

    monkeypatch.setattr(pages, "read_page", record)
    return found


async def test_unchanged_pages_are_not_decoded_again(clock, busy_api, decoded):
    fixture = warm_client(clock, busy_api)
    first = await fixture.poll()
    assert len(decoded) == 10
    second = await fixture.poll()
    assert len(decoded) == 10
    busy_api.fine_tunes[250]["status"] = "failed"
    third = await fixture.poll(tracked=tracked_of(second))
    assert len(decoded) == 11
    assert third.fine_tunes["ft_250"].status == "failed"
    for text in IDS:
        assert second.fine_tunes[text] is first.fine_tunes[text]
        assert (third.fine_tunes[text] is first.fine_tunes[text]) == (text != "ft_250")


async def test_a_restarted_listing_does_not_decode_its_pages_again(clock, busy_api, decoded):
    busy_api.then_for["ft_199"] = as_json(problem(404), 404)
    fixture = ClientFixture(clock, busy_api.base_url, limits=RateLimits(1))
    assert await fixture.poll_ids() == IDS
    assert len(busy_api.requests) == 10 + 3
    assert len(decoded) == 10


async def test_tracked_fine_tunes_are_held_once(clock, busy_api):
    before = await ClientFixture(clock, busy_api.base_url).poll()
    busy_api.fine_tunes[250]["status"] = "failed"
    listing = await ClientFixture(clock, busy_api.base_url).poll(tracked=tracked_of(before))
    for text, each in before.fine_tunes.items():
        assert (listing.fine_tunes[text] is each) == (text != "ft_250")
        assert listing.fine_tunes[text].id is each.id, "it is a key of the tracked ones"


async def test_reloaded_fine_tunes_are_held_once_after_the_next_poll(clock, busy_api):
    """Or one failure of the store would double the memory of an account for good."""
    fixture = warm_client(clock, busy_api)
    reloaded = tracked_of(await ClientFixture(clock, busy_api.base_url).poll())
    await fixture.poll()
    fixture.client.remember(CURSORS)
    listing = await fixture.poll(tracked=reloaded)
    assert all(listing.fine_tunes[text] is each.fine_tune for text, each in reloaded.items())


async def test_pages_of_a_failed_poll_are_not_cached(clock, busy_api, decoded):
    """Or memory would grow with each failed poll of a list that changes."""
    fixture = warm_client(clock, busy_api, concurrency=1)
    await fixture.poll()
    decoded.clear()
    busy_api.fine_tunes[0]["status"] = "failed"
    busy_api.then_for["ft_99"] = as_json(problem(401), 401)
    await fixture.poll_error()
    await fixture.poll()
    assert len(decoded) == 2, "the first page, in each of the two polls"


@pytest.mark.parametrize(
    ("items", "in_loop"),
    [(1, True), (fetch._MAX_INLINE_BYTES // 100, False)],
    ids=["small", "large"],
)
async def test_large_pages_are_decoded_in_a_thread(busy_api, decoded, items, in_loop):
    """As many tiny items as fit would block all other accounts, and the scrapes."""
    busy_api.then_for[None] = as_json(page([fine_tune(f"b{n}") for n in range(items)]))
    assert len(await ClientFixture(REAL_CLOCK, busy_api.base_url).poll_ids()) == items
    assert [thread_is_main for _, thread_is_main in decoded] == [in_loop]


async def test_a_large_page_does_not_block_the_loop(busy_api):
    item = b'{"id":"%07d"},'
    items = b"".join(item % n for n in range(2 * 2**20 // len(item % 0)))
    body = b'{"data":[' + items[:-1] + b'],"has_more":false}'
    busy_api.then_for[None] = answer(200, gzipped(body), content_encoding="gzip")
    polling = asyncio.create_task(ClientFixture(REAL_CLOCK, busy_api.base_url).poll())
    longest, before = 0.0, time.thread_time()  # CPU time of this thread, however busy the machine
    while not polling.done():
        await asyncio.sleep(0.001)
        now = time.thread_time()
        longest, before = max(longest, now - before), now
    assert len((await polling).fine_tunes) > 100_000
    assert longest < 0.15
