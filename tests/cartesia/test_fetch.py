"""Lanes over real sockets: a connection each, gone after the listing, and nothing read twice."""

import asyncio
import gc
import json
import threading
import time

import pytest

from exporter.cartesia import client
from exporter.cartesia import fetch as lane
from exporter.cartesia import pages as shelf
from exporter.cartesia import pages as wire
from exporter.cartesia.client import Limits
from exporter.cartesia.listing import Listing
from exporter.core.model import TrackedFineTune
from tests.cartesia.client_fixture import REAL_CLOCK, Account
from tests.fakes.answers import answer, as_json, drips, gzipped, head, sends, silence
from tests.fakes.api import FakeApi, fine_tune, page, problem
from tests.fakes.server import Answer, Peer

IDS = [f"ft_{number}" for number in range(950)]
CURSORS = [f"ft_{number}" for number in range(99, 950, 100)]


class BusyApi(FakeApi):
    """Takes a moment for each answer, and counts how many are under way.

    The first answers wait until `at_least` so many have been. `then_for` is answered once to the
    request for a cursor.
    """

    def __init__(self, seconds: float = 0.05) -> None:
        super().__init__([fine_tune(text) for text in IDS])
        self.seconds = seconds
        self.then_for: dict[str | None, Answer] = {}
        self.under_way = 0
        self.most = 0
        self.at_least = 0
        self._counting = threading.Condition()
        self.otherwise = self._answer

    def _answer(self, peer: Peer) -> None:
        with self._counting:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self._counting.notify_all()
            assert self._counting.wait_for(lambda: self.most >= self.at_least, 20)
        special = self.then_for.pop(peer.request.query.get("starting_after"), None)
        if special is None:
            peer.wait(self.seconds)
        with self._counting:  # before the client can know, and ask for the next
            self.under_way -= 1
        (special or self._list)(peer)


@pytest.fixture
def busy():
    with BusyApi() as api:
        yield api


def warm(clock, api: FakeApi, **limits) -> Account:
    account = Account(clock, api.base_url, limits=Limits(**limits))
    account.client.remember(CURSORS)
    return account


def known(listing: Listing) -> dict[str, TrackedFineTune]:
    return {
        text: TrackedFineTune(each, sequence=1, since=0.0, since_seen=False)
        for text, each in listing.fine_tunes.items()
    }


def connections(api: FakeApi) -> set[int]:
    return {request.connection for request in api.requests}


@pytest.mark.parametrize("concurrency", [1, 3, 8, 16])
def test_as_many_pages_as_allowed_are_under_way_each_on_a_connection_of_its_own(
    clock, busy, concurrency
):
    busy.at_least = min(concurrency, 10)
    account = warm(clock, busy, concurrency=concurrency)
    assert list(account.list().fine_tunes) == IDS
    assert busy.most == min(concurrency, 10) == len(connections(busy))
    assert account.codes == {"200": 10}


def test_after_a_listing_every_connection_is_a_new_one(clock, busy):
    account = warm(clock, busy, concurrency=4)
    busy.at_least = 4
    account.list()
    first = connections(busy)
    busy.requests.clear()
    busy.most = 0
    account.list()
    assert len(connections(busy)) == 4
    assert not connections(busy) & first


def test_a_lane_whose_answer_was_no_page_goes_on_with_a_new_connection(clock, busy):
    busy.then_for["ft_99"] = as_json(problem(503), 503)
    busy.at_least = 4
    account = warm(clock, busy, concurrency=4)
    assert list(account.list().fine_tunes) == IDS
    assert (busy.connections, account.failures) == (5, {"server_error": 1})


def test_an_answer_too_many_on_one_lane_does_not_pass_for_its_next_page(clock, busy):
    """An empty last page that nobody asked for would be the removal of all that follows."""
    whole = json.dumps(page([fine_tune(text) for text in IDS[100:200]], has_more=True)).encode()
    empty = b'{"data":[],"has_more":false}'
    answers = [head(200, content_length=len(body)) + body for body in (whole, empty)]
    busy.then_for["ft_99"] = sends(b"".join(answers))
    assert list(warm(clock, busy, concurrency=4).list().fine_tunes) == IDS


def test_a_page_that_hangs_and_is_not_needed_is_given_up_with_its_connection(busy, recwarn):
    busy.then_for["ft_899"] = silence
    del busy.fine_tunes[895:]
    account = warm(REAL_CLOCK, busy, concurrency=4)
    began = time.monotonic()
    assert list(account.list(seconds=60).fine_tunes) == IDS[:895]
    assert time.monotonic() - began < 20
    gc.collect()
    assert [str(each.message) for each in recwarn if each.category is ResourceWarning] == []


@pytest.mark.parametrize(("seconds", "patience"), [(60, 0.2), (4, 60)])
def test_a_poll_outlives_pages_that_hang_on_every_lane_and_are_not_needed(
    busy, monkeypatch, seconds, patience
):
    monkeypatch.setattr(client, "PATIENCE", patience)
    busy.then_for = dict.fromkeys(CURSORS[:2], silence)
    busy.fine_tunes = [item for item in busy.fine_tunes if item["id"] not in CURSORS[:2]]
    account = warm(REAL_CLOCK, busy, concurrency=2)
    began = time.monotonic()
    assert len(account.list(seconds).fine_tunes) == len(IDS) - 2
    assert time.monotonic() - began < 10


def test_a_page_that_hangs_and_is_needed_is_cut_off_at_the_polls_deadline(busy):
    for cursor in (None, *CURSORS):
        busy.then_for[cursor] = drips(head(200, content_length=10**6))
    account = warm(REAL_CLOCK, busy, concurrency=4)
    began = time.monotonic()
    assert account.fails(seconds=0.5).reason == "timeout"
    assert 0.5 <= time.monotonic() - began < 5


@pytest.mark.parametrize("wait", [{}, {"retry_after": 7}], ids=["without", "with Retry-After"])
def test_after_a_429_the_rest_of_the_poll_is_one_request_at_a_time(clock, busy, wait):
    busy.then_for[None] = as_json(problem(429), 429, **wait)
    account = warm(clock, busy, concurrency=4)

    def begin_to_count(peer: Peer) -> None:
        busy.most = 0
        busy._list(peer)

    busy.then_for["ft_499"] = begin_to_count
    assert list(account.list().fine_tunes) == IDS
    assert busy.most == 1
    assert account.failures == {"rate_limited": 1}
    assert sum(clock.slept) == wait.get("retry_after", 0.5)
    busy.most, busy.at_least = 0, 4
    account.list()
    assert busy.most == 4, "the next poll begins as usual"


def test_a_429_whose_wait_is_longer_than_the_poll_ends_it_for_all_lanes(clock, busy):
    busy.then_for[None] = as_json(problem(429), 429, retry_after=120)
    account = warm(clock, busy, concurrency=4)
    error = account.fails(seconds=60)
    assert (error.reason, error.retry_after) == ("rate_limited", 120)
    assert len(busy.requests) <= 4, "those that were under way"
    assert clock.slept == []


def test_a_request_that_would_wait_for_another_ones_429_beyond_the_poll_says_so(clock, busy):
    sorry = as_json(problem(503), 503)

    def late(peer: Peer) -> None:
        peer.wait(0.3)  # until the other lane has been told
        sorry(peer)

    busy.then_for = {None: late, "ft_99": as_json(problem(429), 429, retry_after=120)}
    error = warm(clock, busy, concurrency=2).fails(seconds=60)
    assert (error.reason, error.retry_after) == ("rate_limited", 120)
    assert 120 not in clock.slept


@pytest.mark.parametrize("concurrency", [1, 8])
def test_requests_keep_their_distance_over_all_lanes_and_retries(busy, concurrency):
    busy.then_for["ft_99"] = as_json(problem(503), 503)
    account = warm(REAL_CLOCK, busy, concurrency=concurrency, per_second=50)
    began = time.monotonic()
    assert list(account.list().fine_tunes) == IDS
    assert time.monotonic() - began >= 10 / 50
    assert len(busy.requests) == 11


def test_a_request_whose_time_comes_after_the_poll_is_not_made(clock, busy):
    account = warm(clock, busy, concurrency=4, per_second=0.1)
    assert account.fails(seconds=35).reason == "timeout"
    assert len(busy.requests) == 4, "at 0, 10, 20 and 30 s"


@pytest.fixture
def decoded(monkeypatch):
    """What was decoded, and whether in the loop's thread."""
    found = []

    def noting(body):
        found.append((body, threading.current_thread() is threading.main_thread()))
        return wire.read_page(body)

    monkeypatch.setattr(shelf, "read_page", noting)
    return found


def test_pages_whose_bytes_are_as_last_time_are_not_decoded_again(clock, busy, decoded):
    account = warm(clock, busy)
    first = account.list()
    assert len(decoded) == 10
    second = account.list()
    assert len(decoded) == 10
    busy.fine_tunes[250]["status"] = "failed"
    third = account.list(known=known(second))
    assert len(decoded) == 11
    assert third.fine_tunes["ft_250"].status == "failed"
    for text in IDS:
        assert second.fine_tunes[text] is first.fine_tunes[text]
        assert (third.fine_tunes[text] is first.fine_tunes[text]) == (text != "ft_250")


def test_a_page_that_is_read_again_after_a_new_beginning_is_not_decoded_again(clock, busy, decoded):
    busy.then_for["ft_199"] = as_json(problem(404), 404)
    account = Account(clock, busy.base_url, limits=Limits(1))
    assert list(account.list().fine_tunes) == IDS
    assert len(busy.requests) == 10 + 3
    assert len(decoded) == 10


def test_what_is_known_from_before_the_start_is_held_once(clock, busy):
    before = Account(clock, busy.base_url).list()
    busy.fine_tunes[250]["status"] = "failed"
    read = Account(clock, busy.base_url).list(known=known(before)).fine_tunes
    for text, each in before.fine_tunes.items():
        assert (read[text] is each) == (text != "ft_250")
        assert read[text].id is each.id, "it is a key of what is known"


def test_what_is_loaded_anew_is_held_once_after_the_next_poll(clock, busy, decoded):
    """Or a store that failed once would double the memory that an account takes, for good."""
    account = warm(clock, busy)
    loaded = known(Account(clock, busy.base_url).list())
    account.list()
    account.client.remember(CURSORS)
    read = account.list(known=loaded).fine_tunes
    assert all(read[text] is each.fine_tune for text, each in loaded.items())


def test_what_only_a_failed_poll_has_read_is_not_kept(clock, busy, decoded):
    """Or memory would grow with each poll of an API that is down and a list that changes."""
    account = warm(clock, busy, concurrency=1)
    account.list()
    decoded.clear()
    busy.fine_tunes[0]["status"] = "failed"
    busy.then_for["ft_99"] = as_json(problem(401), 401)
    account.fails()
    account.list()
    assert len(decoded) == 2, "the first page, in each poll"


@pytest.mark.parametrize(
    ("items", "in_loop"), [(1, True), (lane._INLINE_BYTES // 100, False)], ids=["small", "large"]
)
def test_a_large_page_is_decoded_beside_the_loop(busy, decoded, items, in_loop):
    """As many tiny items as fit would hold up every other account, and the scrapes."""
    busy.then_for[None] = as_json(page([fine_tune(f"b{n}") for n in range(items)]))
    assert len(Account(REAL_CLOCK, busy.base_url).list().fine_tunes) == items
    assert [beside for _, beside in decoded] == [in_loop]


def test_the_loop_runs_on_while_a_large_page_is_read(busy):
    item = b'{"id":"%07d"},'
    items = b"".join(item % n for n in range(2 * 2**20 // len(item % 0)))
    body = b'{"data":[' + items[:-1] + b'],"has_more":false}'
    busy.then_for[None] = answer(200, gzipped(body), content_encoding="gzip")
    account = Account(REAL_CLOCK, busy.base_url)

    async def run() -> float:
        polling = asyncio.create_task(account.client.list_fine_tunes(60))
        worst, before = 0.0, time.thread_time()  # its own work, however busy the machine
        while not polling.done():
            await asyncio.sleep(0.001)
            now = time.thread_time()
            worst, before = max(worst, now - before), now
        assert len((await polling).fine_tunes) > 100_000
        return worst

    assert asyncio.run(run()) < 0.15
