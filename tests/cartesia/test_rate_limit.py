"""The rate limiter: concurrency, order of arrival, rate, 429s and cancellation."""

import asyncio
from itertools import pairwise

import pytest

from exporter.cartesia import rate_limit
from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.rate_limit import RateLimiter, RateLimits

FAR = 1e12
TOO_MANY = CartesiaError("rate_limited", "too many requests", status=429)


async def run_other_tasks() -> None:
    for _ in range(9):
        await asyncio.sleep(0)


class Requests:
    """Requests that stay in flight until they are ended."""

    def __init__(self, limiter: RateLimiter) -> None:
        self.limiter = limiter
        self.in_flight: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._ended: dict[str, asyncio.Event] = {}

    def start_soon(self, name: str) -> None:
        self._ended[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._request(name))

    async def start(self, *names: str) -> None:
        for name in names:
            self.start_soon(name)
        await run_other_tasks()

    async def _request(self, name: str) -> None:
        async with self.limiter.request(FAR):
            self.in_flight.append(name)
            await self._ended[name].wait()
            self.in_flight.remove(name)

    def end_soon(self, name: str) -> None:
        self._ended[name].set()

    async def end(self, *names: str) -> None:
        for name in names:
            self.end_soon(name)
        await run_other_tasks()


@pytest.fixture
async def requests_at(clock):
    """Returns a function that makes the requests of a limiter; cancels all at the end."""
    created = []

    def make(**limits) -> Requests:
        created.append(Requests(RateLimiter(RateLimits(**limits), clock.clock)))
        return created[-1]

    async with asyncio.timeout(20):
        yield make
    tasks = [task for requests in created for task in requests.tasks.values()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_requests_start_in_order_of_arrival(requests_at):
    requests = requests_at(concurrency=2)
    await requests.start("a", "b", "c", "d")
    assert requests.in_flight == ["a", "b"]
    await requests.end("b")
    assert requests.in_flight == ["a", "c"]
    await requests.start("e")
    await requests.end("a", "c")
    assert requests.in_flight == ["d", "e"]


async def test_a_new_request_does_not_overtake_one_that_gets_its_slot_just_then(requests_at):
    """anyio before 4.15 let both start."""
    requests = requests_at(concurrency=1)
    await requests.start("a", "b")
    requests.end_soon("a")
    await requests.start("c")  # runs after a's end and before b
    assert requests.in_flight == ["b"]
    await requests.end("b")
    assert requests.in_flight == ["c"]


async def test_never_more_requests_than_allowed_are_in_flight(requests_at):
    requests = requests_at(concurrency=3)
    for name in "abcdefgh":
        await requests.start(name)
        assert len(requests.in_flight) <= 3
    while requests.in_flight:
        await requests.end(requests.in_flight[0])
        assert len(requests.in_flight) <= 3
    assert all(task.done() for task in requests.tasks.values())


async def test_a_request_cancelled_while_it_waits_leaves_the_queue(requests_at):
    requests = requests_at(concurrency=1)
    await requests.start("a", "b", "c")
    requests.tasks["b"].cancel()
    await requests.end("a")
    assert requests.in_flight == ["c"]


async def test_a_request_cancelled_when_it_gets_a_slot_passes_it_on(requests_at):
    """At every moment between the end of the request before it and its own start."""
    for turns in range(8):
        requests = requests_at(concurrency=1)
        await requests.start("a", "b", "c")
        requests.end_soon("a")
        for _ in range(turns):
            await asyncio.sleep(0)
        requests.tasks["b"].cancel()
        await run_other_tasks()
        assert requests.in_flight[-1] == "c", turns
        await requests.end("c")
        await requests.start("d")
        assert requests.in_flight[-1] == "d", turns


async def test_a_request_cancelled_while_it_starts_frees_its_slot(requests_at):
    for turns in range(5):
        requests = requests_at(concurrency=1)
        requests.start_soon("a")
        for _ in range(turns):
            await asyncio.sleep(0)
        requests.tasks["a"].cancel()
        await requests.start("b")
        assert requests.in_flight[-1] == "b", turns


async def test_a_request_cancelled_in_flight_frees_its_slot(requests_at):
    requests = requests_at(concurrency=1)
    await requests.start("a", "b")
    requests.tasks["a"].cancel()
    await run_other_tasks()
    assert requests.in_flight == ["a", "b"], "b has started"


async def test_after_a_429_requests_in_flight_end_and_then_one_is_sent_at_a_time(
    requests_at, clock
):
    requests = requests_at(concurrency=3)
    await requests.start("a", "b", "c", "d", "e")
    requests.limiter.slow_down(TOO_MANY, 7)
    await requests.end("a", "b")
    assert requests.in_flight == ["c"]
    await requests.end("c")
    assert requests.in_flight == ["d"]
    assert clock.slept == [7]
    requests.limiter.start_poll()
    await requests.start("f", "g", "h", "i")
    assert requests.in_flight == ["d", "f", "g", "h"], "the next poll has all slots"


async def test_a_429_delays_a_request_that_waits_for_its_start(clock, monkeypatch):
    limiter = RateLimiter(RateLimits(2, per_second=1), clock.clock)

    async def sleep(seconds):
        await clock.sleep(seconds)
        if len(clock.slept) == 1:
            limiter.slow_down(TOO_MANY, 7)

    monkeypatch.setattr(rate_limit, "sleep", sleep)
    for _ in range(2):
        async with limiter.request(FAR):
            pass
    assert clock.slept == [1, 7]


async def test_after_a_429_waiting_requests_do_not_start_all_at_once(clock, monkeypatch):
    """Their start times pass during the wait that the API asked for."""
    for retry_after in (0, 60):
        limiter = RateLimiter(RateLimits(8, per_second=1), clock.clock)
        rejected, in_flight = asyncio.Event(), [0]
        starts: list[float] = []

        async def sleep(seconds, rejected=rejected):
            due = clock.now + seconds
            await rejected.wait()
            clock.now = max(clock.now, due)

        async def request(limiter=limiter, starts=starts, in_flight=in_flight) -> None:
            async with limiter.request(FAR):
                starts.append(clock.now)
                in_flight[0] += 1
                assert in_flight == [1]
                await run_other_tasks()
                in_flight[0] -= 1

        monkeypatch.setattr(rate_limit, "sleep", sleep)
        begin = clock.now
        async with limiter.request(FAR):
            waiting = [asyncio.create_task(request()) for _ in range(5)]
            await run_other_tasks()
            limiter.slow_down(TOO_MANY, retry_after)
        rejected.set()
        await asyncio.gather(*waiting)
        assert starts[0] - begin >= retry_after
        assert [b - a for a, b in pairwise(starts)] == [1] * 4


async def test_a_429_delays_the_next_poll_but_does_not_limit_its_concurrency(requests_at, clock):
    """Its page was not needed: the poll succeeded all the same."""
    requests = requests_at(concurrency=2)
    requests.limiter.slow_down(TOO_MANY, 7)
    requests.limiter.start_poll()
    await requests.start("a", "b")
    assert clock.slept == [7]
    assert requests.in_flight == ["a", "b"]


async def test_a_redirect_waits_after_a_429_too(clock):
    limiter = RateLimiter(RateLimits(2), clock.clock)
    async with limiter.request(FAR):
        limiter.slow_down(TOO_MANY, 7)
        await limiter.wait_to_start(FAR)
    assert clock.slept == [7]


async def test_a_429_that_outlasts_the_poll_is_raised(clock):
    limiter = RateLimiter(RateLimits(1), clock.clock)
    limiter.slow_down(TOO_MANY, 10)
    with pytest.raises(CartesiaError, match="too many requests"):
        async with limiter.request(clock.now + 10):
            pass
    async with limiter.request(clock.now + 11):  # the slot is free again
        assert clock.slept == [10]


async def test_requests_start_at_the_rate(clock):
    for per_second, expected in ((0, [0] * 4), (4, [0, 0.25, 0.5, 0.75])):
        limiter, begin, starts = RateLimiter(RateLimits(1, per_second), clock.clock), clock.now, []
        for _ in range(4):
            async with limiter.request(FAR):
                starts.append(clock.now - begin)
        assert starts == expected, per_second


async def test_start_times_of_cancelled_requests_are_free_again(clock, monkeypatch):
    limiter = RateLimiter(RateLimits(8, per_second=0.1), clock.clock)

    async def request() -> None:
        async with limiter.request(clock.now + 60):
            pass

    monkeypatch.setattr(rate_limit, "sleep", asyncio.sleep)
    waiting = [asyncio.create_task(request()) for _ in range(5)]
    await run_other_tasks()
    for task in waiting:
        task.cancel()
    await run_other_tasks()
    monkeypatch.setattr(rate_limit, "sleep", clock.sleep)
    async with limiter.request(FAR):
        assert clock.slept == [10]


async def test_of_two_429s_the_longer_wait_counts(clock):
    limiter = RateLimiter(RateLimits(1), clock.clock)
    limiter.slow_down(TOO_MANY, 7)
    limiter.slow_down(TOO_MANY, 1)
    async with limiter.request(FAR):
        assert clock.slept == [7]


async def test_a_start_after_the_deadline_is_not_waited_for(clock):
    limiter = RateLimiter(RateLimits(1, per_second=0.1), clock.clock)
    await limiter.wait_to_start(FAR)
    with pytest.raises(CartesiaError, match=r"poll\.timeout"):
        await limiter.wait_to_start(clock.now + 10)
    assert clock.slept == []


async def test_unused_time_does_not_allow_a_burst(clock):
    limiter = RateLimiter(RateLimits(1, per_second=1), clock.clock)
    await limiter.wait_to_start(FAR)
    clock.now += 100
    await limiter.wait_to_start(FAR)
    await limiter.wait_to_start(FAR)
    assert clock.slept == [1]
