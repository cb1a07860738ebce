"""Threads under a limit of tasks, and name lookups without an answer."""

import asyncio
import contextlib
import gc
import socket
import threading
from collections import Counter

import pytest

from exporter.threads import MAX_LOOKUPS, BoundedLookupLoop, start_executor
from tests.fakes.http_requests import send_error


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": BoundedLookupLoop}


class SilentNameServer:
    """Answers no lookup before `answering` is set; counts the lookups under way."""

    def __init__(self) -> None:
        self.answering = threading.Event()
        self.started = Counter[str]()
        self.under_way = self.most_under_way = 0
        self._lock = threading.Lock()

    def getaddrinfo(self, host, port, *_arguments, **_options):
        with self._lock:
            self.started[host] += 1
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        answered = self.answering.wait(60)
        with self._lock:
            self.under_way -= 1
        if not answered or host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        return [address]


@pytest.fixture
def name_server(monkeypatch):
    server = SilentNameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.getaddrinfo)
    yield server
    server.answering.set()


def look_up(host: str) -> asyncio.Task[object]:
    return asyncio.create_task(asyncio.get_running_loop().getaddrinfo(host, 443))


async def looked_up(host: str) -> bool:
    with contextlib.suppress(socket.gaierror):
        return bool(await look_up(host))
    return False


async def test_further_lookups_fail_at_once_while_64_are_under_way(name_server):
    waiting = [look_up(f"host{number}.test") for number in range(MAX_LOOKUPS)]
    await asyncio.sleep(0)
    for number in range(100):
        with pytest.raises(socket.gaierror, match="64 other lookups wait"):
            await look_up(f"other{number}.test")
    for task in waiting[:32]:
        task.cancel()
    await asyncio.wait(waiting[:32])
    with pytest.raises(socket.gaierror):
        await look_up("one-more.test")  # a cancelled lookup keeps its thread
    assert name_server.most_under_way <= MAX_LOOKUPS
    name_server.answering.set()
    assert {len(await task) for task in waiting[32:]} == {1}  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        # The threads of the cancelled ones may still be ending.
        while not await looked_up("one-more.test"):  # noqa: ASYNC110 - a condition of threads
            await asyncio.sleep(0.01)


async def test_lookups_of_one_name_share_a_thread(name_server):
    """An API whose name is not answered must not keep receivers from being found."""
    waiting = [look_up("api.test") for _ in range(3 * MAX_LOOKUPS)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    other = look_up("receiver.test")
    name_server.answering.set()
    assert len(await other) == 1  # type: ignore[arg-type]
    assert {len(each) for each in await asyncio.gather(*waiting[1:])} == {1}  # type: ignore[arg-type]
    assert name_server.started == {"api.test": 1, "receiver.test": 1}


async def test_a_lookup_without_an_answer_is_not_shared_for_long(name_server, monkeypatch):
    monkeypatch.setattr("exporter.threads._SHARED_SECONDS", -1.0)
    waiting = [look_up("api.test") for _ in range(3)]
    await asyncio.sleep(0)
    name_server.answering.set()
    await asyncio.gather(*waiting)
    assert name_server.started == {"api.test": 3}


async def test_the_error_of_a_shared_lookup_is_raised_in_each(name_server):
    waiting = [look_up("unknown.invalid") for _ in range(3)]
    await asyncio.sleep(0)
    name_server.answering.set()
    for task in waiting:
        with pytest.raises(socket.gaierror, match="not known"):
            await task


async def test_an_error_that_nobody_waits_for_any_more_is_not_logged(name_server):
    loop, reported = asyncio.get_running_loop(), list[object]()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    waiting = look_up("unknown.invalid")
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    name_server.answering.set()
    async with asyncio.timeout(10):
        while loop._threads:  # type: ignore[attr-defined]  # noqa: ASYNC110 - a condition of threads
            await asyncio.sleep(0.01)
    del waiting
    gc.collect()
    assert reported == []


@pytest.fixture
def no_more_threads(monkeypatch):
    def refuse(*_arguments, **_options):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.mark.usefixtures("no_more_threads")
async def test_a_request_whose_lookup_gets_no_thread_is_a_dns_error():
    error = await send_error("http://api.test/")
    assert (error.reason, error.sent, error.permanent) == ("dns", False, False)
    assert str(error) == (
        "the host name api.test cannot be resolved: no thread can be started for the lookup; raise"
        " the limit of tasks"
    )


async def test_a_request_whose_lookup_is_one_too_many_is_a_dns_error(name_server):
    waiting = [look_up(f"host{number}.test") for number in range(MAX_LOOKUPS)]
    await asyncio.sleep(0)
    error = await send_error("http://api.test/")
    assert (error.reason, error.sent, error.permanent) == ("dns", False, False)
    name_server.answering.set()
    await asyncio.gather(*waiting)


def test_a_lookup_that_ends_after_the_loop_is_ignored(name_server):
    loop = BoundedLookupLoop()
    with contextlib.suppress(TimeoutError):
        loop.run_until_complete(asyncio.wait_for(loop.getaddrinfo("api.test", 443), 0.05))
    loop.close()
    [thread] = [each for each in threading.enumerate() if each.name == "lookup"]
    name_server.answering.set()
    thread.join(10)  # an exception in a thread fails the test
    assert not thread.is_alive()


def test_an_executor_has_its_thread_from_the_start():
    before = threading.active_count()
    executor = start_executor("early")
    assert threading.active_count() == before + 1
    executor.shutdown()


@pytest.mark.usefixtures("no_more_threads")
def test_an_executor_without_a_thread_is_an_os_error_that_says_what_to_do():
    with pytest.raises(OSError, match="raise the limit of tasks"):
        start_executor("early")
