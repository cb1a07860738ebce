"""bcrypt: one at a time, off the event loop, remembered no longer than its hash."""

import asyncio
import threading

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.web import auth as module
from exporter.web.auth import BusyError, Passwords, basic_credentials
from tests.web.authenticated_server import hash_of


class Slow:
    """bcrypt that is held until it is let go, and knows how many ran at once."""

    def __init__(self, monkeypatch) -> None:
        self.gate, self.begun = threading.Event(), threading.Event()
        self.running = self.most = self.calls = 0
        monkeypatch.setattr(bcrypt, "checkpw", self.checkpw)

    def checkpw(self, password: bytes, hashed: bytes) -> bool:
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.set()
        assert self.gate.wait(10)
        self.running -= 1
        return password == b"right"


HOST = "192.0.2.1"
USERS = {b"a": b"$2b$04$a", b"b": b"$2b$04$b"}


def test_one_is_compared_at_a_time_and_the_event_loop_runs_on(monkeypatch):
    slow = Slow(monkeypatch)

    async def run() -> list[bool]:
        passwords = Passwords()
        names = (b"a", b"b", b"nobody")
        tasks = [asyncio.create_task(passwords.accept(USERS, (n, b"right"), HOST)) for n in names]
        while not slow.begun.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.001)
        slow.gate.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(run()) == [True, True, False]
    assert (slow.most, slow.calls) == (1, 3)


def test_what_a_page_asks_at_once_is_compared_once(monkeypatch):
    slow = Slow(monkeypatch)

    async def run() -> list[bool]:
        passwords = Passwords()
        asked = [
            asyncio.create_task(passwords.accept(USERS, (b"a", b"right"), HOST)) for _ in range(8)
        ]
        await asyncio.sleep(0)  # now all of them wait for the thread
        slow.gate.set()
        return await asyncio.gather(*asked)

    assert asyncio.run(run()) == [True] * 8
    assert slow.calls == 1


def test_a_user_whom_nobody_knows_is_refused_each_time_even_with_what_bcrypt_takes(monkeypatch):
    slow = Slow(monkeypatch)
    slow.gate.set()

    async def run() -> list[bool]:
        passwords = Passwords()
        return [await passwords.accept(USERS, (b"nobody", b"right"), HOST) for _ in range(3)]

    assert asyncio.run(run()) == [False] * 3
    assert slow.calls == 3


def test_too_many_that_wait_are_sent_away_and_those_who_are_known_are_not(monkeypatch):
    slow = Slow(monkeypatch)
    slow.gate.set()

    async def run() -> None:
        passwords = Passwords()
        assert await passwords.accept(USERS, (b"b", b"right"), HOST)
        slow.gate.clear()
        guesses = [
            asyncio.create_task(passwords.accept(USERS, (b"a", b"%d" % n), str(n % 5)))
            for n in range(40)
        ]
        await asyncio.sleep(0)
        assert await passwords.accept(USERS, (b"b", b"right"), HOST)
        with pytest.raises(BusyError):
            await passwords.accept(USERS, (b"a", b"right"), HOST)
        slow.gate.set()
        found = await asyncio.gather(*guesses, return_exceptions=True)
        assert [each for each in found if each is False] == [False] * 32
        assert sum(isinstance(each, BusyError) for each in found) == 8
        assert await passwords.accept(USERS, (b"a", b"right"), HOST)

    asyncio.run(run())


def test_who_guesses_from_one_address_does_not_keep_those_of_others_from_being_compared(
    monkeypatch,
):
    slow = Slow(monkeypatch)

    async def run() -> None:
        passwords = Passwords()
        guesses = [
            asyncio.create_task(passwords.accept(USERS, (b"a", b"%d" % n), HOST)) for n in range(40)
        ]
        await asyncio.sleep(0)
        right = asyncio.create_task(passwords.accept(USERS, (b"a", b"right"), "192.0.2.2"))
        slow.gate.set()
        assert await right
        found = await asyncio.gather(*guesses, return_exceptions=True)
        assert sum(isinstance(each, BusyError) for each in found) == 32
        assert not passwords._waiting  # or each address that ever asked would stay

    asyncio.run(run())


def test_nobody_waits_for_good_and_what_was_found_out_meanwhile_is_known(monkeypatch):
    """With a high cost one comparison takes longer than a scrape, and 32 of them take minutes."""
    slow = Slow(monkeypatch)
    monkeypatch.setattr(module, "_LONGEST_WAIT", 0.05)

    async def run() -> None:
        passwords = Passwords()
        asked = [passwords.accept(USERS, (b"a", p), HOST) for p in (b"right", b"wrong", b"wrong")]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(each) for each in found] == [BusyError] * 3
        monkeypatch.setattr(module, "_LONGEST_WAIT", 10)
        slow.gate.set()
        assert await passwords.accept(USERS, (b"a", b"right"), HOST)

    asyncio.run(run())
    assert slow.calls == 1


def test_a_remembered_password_ends_with_its_hash_and_with_its_user():
    old, new = hash_of("old").encode(), hash_of("new").encode()

    async def run() -> None:
        passwords = Passwords()
        assert await passwords.accept({b"a": old}, (b"a", b"old"), HOST)
        assert not await passwords.accept({b"a": new}, (b"a", b"old"), HOST)
        assert not await passwords.accept({b"b": old}, (b"a", b"old"), HOST)
        assert await passwords.accept({b"a": old, b"b": new}, (b"a", b"old"), HOST)

    asyncio.run(run())


def test_a_hundred_are_remembered_none_of_them_as_it_is(monkeypatch):
    slow = Slow(monkeypatch)
    slow.gate.set()
    users = {b"user-%d" % n: b"$2b$04$%d" % n for n in range(150)}

    async def run() -> Passwords:
        passwords = Passwords()
        for user in users:
            assert await passwords.accept(users, (user, b"right"), HOST)
        return passwords

    passwords = asyncio.run(run())
    assert len(passwords._right) == 100
    assert all(len(each) == 64 for each in passwords._right)
    assert b"right" not in b"".join(passwords._right)


@given(st.binary())
def test_no_header_is_an_error(header):
    found = basic_credentials(b"Basic " + header)
    assert found is None or len(found) == 2
    assert basic_credentials(header) is None or header[:5].lower() == b"basic"
