"""Comparison of passwords: one at a time, in turn for all clients, and cached."""

import asyncio
import base64
import contextlib
import threading
from collections.abc import Iterator
from http.client import HTTPConnection

import bcrypt
import pytest

from exporter.web import passwords as passwords_module
from exporter.web.passwords import BusyError, PasswordChecker
from tests.web.authenticated_server import PASSWORD, USER, WebConfigFixture, hash_of

HOST = ("192.0.2.1", 40_000)
USERS = {b"a": b"$2b$04$a", b"b": b"$2b$04$b"}


class FakeBcrypt:
    """Replaces ``bcrypt.checkpw``: blocks until ``gate`` is set, and counts calls."""

    def __init__(self) -> None:
        self.gate, self.begun = threading.Event(), threading.Event()
        self.running = self.max_running = self.calls = 0

    def checkpw(self, password: bytes, hashed: bytes) -> bool:
        self.calls += 1
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        self.begun.set()
        assert self.gate.wait(10)
        self.running -= 1
        return password == b"right"


@pytest.fixture
def fake_bcrypt(monkeypatch):
    fake = FakeBcrypt()
    monkeypatch.setattr(bcrypt, "checkpw", fake.checkpw)
    yield fake
    fake.gate.set()


async def begun(fake_bcrypt: FakeBcrypt) -> None:
    while not fake_bcrypt.begun.is_set():  # noqa: ASYNC110 - another thread sets it
        await asyncio.sleep(0.001)


@pytest.fixture
def passwords():
    return PasswordChecker()


async def test_passwords_are_compared_one_at_a_time_off_the_event_loop(fake_bcrypt, passwords):
    users = (b"a", b"b", b"nobody")
    tasks = [asyncio.create_task(passwords.check(USERS, u, b"right", HOST)) for u in users]
    await begun(fake_bcrypt)
    fake_bcrypt.gate.set()
    assert await asyncio.gather(*tasks) == [True, True, False]
    assert (fake_bcrypt.max_running, fake_bcrypt.calls) == (1, 3)


async def test_concurrent_requests_with_one_password_compare_it_once(fake_bcrypt, passwords):
    tasks = [asyncio.create_task(passwords.check(USERS, b"a", b"right", HOST)) for _ in range(8)]
    await asyncio.sleep(0)  # now all of them wait for the thread
    fake_bcrypt.gate.set()
    assert await asyncio.gather(*tasks) == [True] * 8
    assert fake_bcrypt.calls == 1


async def test_an_unknown_user_is_refused_even_if_bcrypt_accepts(fake_bcrypt, passwords):
    fake_bcrypt.gate.set()
    found = [await passwords.check(USERS, b"nobody", b"right", HOST) for _ in range(3)]
    assert found == [False] * 3
    assert fake_bcrypt.calls == 3


async def test_a_first_login_precedes_the_guesses_of_other_addresses(fake_bcrypt, passwords):
    guesses = [
        asyncio.create_task(passwords.check(USERS, b"a", b"%d" % n, (f"192.0.2.{n % 5 + 10}", n)))
        for n in range(300)
    ]
    await begun(fake_bcrypt)
    right = asyncio.create_task(passwords.check(USERS, b"a", b"right", HOST))
    await asyncio.sleep(0)
    fake_bcrypt.gate.set()
    assert await right
    # The one that was being compared, one for each address, and the last that began meanwhile.
    assert fake_bcrypt.calls <= 8
    found = await asyncio.gather(*guesses, return_exceptions=True)
    assert sum(isinstance(each, BusyError) for each in found) == 300 + 1 - 256 - 1


async def test_users_of_an_address_take_turns(fake_bcrypt, passwords):
    """Behind a proxy all clients have one address."""
    guesses = [
        asyncio.create_task(passwords.check(USERS, b"a", b"%d" % n, (HOST[0], n)))
        for n in range(100)
    ]
    guesses += [
        asyncio.create_task(passwords.check(USERS, b"user-%d" % n, b"x", (HOST[0], 1000 + n)))
        for n in range(100)
    ]
    await begun(fake_bcrypt)
    right = asyncio.create_task(passwords.check(USERS, b"b", b"right", HOST))
    await asyncio.sleep(0)
    fake_bcrypt.gate.set()
    assert await right
    assert fake_bcrypt.calls <= 5
    assert await asyncio.gather(*guesses) == [False] * 200


async def test_a_full_queue_still_accepts_cached_passwords(fake_bcrypt, passwords):
    fake_bcrypt.gate.set()
    assert await passwords.check(USERS, b"b", b"right", HOST)
    fake_bcrypt.gate.clear()
    guesses = [
        asyncio.create_task(passwords.check(USERS, b"a", b"%d" % n, (HOST[0], n)))
        for n in range(300)
    ]
    await asyncio.sleep(0)
    assert await passwords.check(USERS, b"b", b"right", HOST)
    fake_bcrypt.gate.set()
    await asyncio.gather(*guesses, return_exceptions=True)
    assert not len(passwords._queue)


async def test_an_error_of_bcrypt_is_raised_and_the_next_is_compared(passwords):
    users = {b"a": b"no hash", b"b": hash_of("right").encode()}
    broken = asyncio.create_task(passwords.check(users, b"a", b"right", HOST))
    right = asyncio.create_task(passwords.check(users, b"b", b"right", HOST))
    with pytest.raises(ValueError, match="Invalid salt"):
        await broken
    assert await right


async def test_the_wait_is_bounded_and_its_result_is_cached(fake_bcrypt, passwords, monkeypatch):
    """With a high cost, one comparison takes longer than a scrape, and 32 take minutes."""
    monkeypatch.setattr(passwords_module, "_MAX_WAIT_SECONDS", 0.05)
    checks = [passwords.check(USERS, b"a", p, HOST) for p in (b"right", b"wrong", b"wrong")]
    found = await asyncio.gather(*checks, return_exceptions=True)
    assert [type(each) for each in found] == [BusyError] * 3
    monkeypatch.setattr(passwords_module, "_MAX_WAIT_SECONDS", 10)
    fake_bcrypt.gate.set()
    assert await passwords.check(USERS, b"a", b"right", HOST)
    assert fake_bcrypt.calls == 1


async def test_a_cached_password_ends_with_its_hash_and_its_user(passwords):
    old, new = hash_of("old").encode(), hash_of("new").encode()
    assert await passwords.check({b"a": old}, b"a", b"old", HOST)
    assert not await passwords.check({b"a": new}, b"a", b"old", HOST)
    assert not await passwords.check({b"b": old}, b"a", b"old", HOST)
    assert await passwords.check({b"a": old, b"b": new}, b"a", b"old", HOST)


async def test_the_cache_has_at_most_100_entries_and_no_password(fake_bcrypt, passwords):
    fake_bcrypt.gate.set()
    users = {b"user-%d" % n: b"$2b$04$%d" % n for n in range(150)}
    for user in users:
        assert await passwords.check(users, user, b"right", HOST)
    assert len(passwords._accepted) == 100
    assert all(len(each) == 64 for each in passwords._accepted)
    assert b"right" not in b"".join(passwords._accepted)


def status_of(url: str, source: str, user: str, password: str) -> int:
    """Return the status of a request on a new connection from this address."""
    host, port = url.removeprefix("http://").split(":")
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    connection = HTTPConnection(host, int(port), 30, (source, 0))
    with contextlib.closing(connection):
        connection.request("GET", "/metrics", headers={"Authorization": f"Basic {encoded}"})
        return connection.getresponse().status


@contextlib.contextmanager
def guessing(url: str, *guessers: tuple[str, str]) -> Iterator[None]:
    """Guess passwords, each guesser (address, user) in a thread, as fast as they are answered."""
    stop, answered = threading.Event(), threading.Semaphore(0)

    def guess(source: str, user: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            assert status_of(url, source, user, f"guess {number}") in {401, 503}
            answered.release()

    threads = [threading.Thread(target=guess, args=each) for each in guessers]
    for thread in threads:
        thread.start()
    try:
        assert answered.acquire(timeout=20)
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


@pytest.mark.parametrize(
    "guessers",
    [
        [(f"127.0.0.{number % 5 + 2}", USER) for number in range(45)],
        [("127.0.0.1", USER)] * 12,
        [("127.0.0.1", "nobody")] * 12,
    ],
    ids=["other addresses", "same address and user", "same address, unknown users"],
)
def test_a_first_login_succeeds_while_passwords_are_guessed(tmp_path, guessers):
    """With real hashes, which the guessers keep bcrypt comparing without a pause."""
    file = WebConfigFixture(tmp_path, basic_auth_users={USER: hash_of(PASSWORD, 8)})
    with file.served() as [url], guessing(url, *guessers):
        assert status_of(url, "127.0.0.1", USER, PASSWORD) == 200
