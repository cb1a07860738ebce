"""Comparison of passwords with bcrypt hashes, one at a time and in turn for all clients."""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import bcrypt

from exporter.core.connections import client_address
from exporter.core.fair_queue import FairQueue
from exporter.threads import start_executor

_MAX_PASSWORD_BYTES: Final = 72
"""Limit of bcrypt. Some libraries cut a longer password, others raise an error."""

_MAX_ACCEPTED: Final = 100
_MAX_WAITING: Final = 256
"""Each waits for a connection's response, of which there are not more."""

_MAX_WAIT_SECONDS: Final = 8.0
"""Less than the timeout of a scrape. A comparison that takes longer still completes and its result
is cached, so that the second scrape is answered."""

_DUMMY_HASH: Final = b"$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"
"""Salt and hash from exporter-toolkit, without the algorithm and the cost."""


class BusyError(Exception):
    """A password was not compared: too many wait, or the comparison takes too long."""


@dataclass(frozen=True, eq=False, slots=True)
class _Comparison:
    compare: Callable[[], bool]
    result: asyncio.Future[bool] = field(default_factory=asyncio.Future)


class PasswordChecker:
    """Compares passwords with bcrypt hashes, and caches the accepted ones.

    The cache key is a keyed hash of user, password and bcrypt hash, so that an entry ends with its
    bcrypt hash. Wrong passwords are not cached: an attacker cannot evict the right ones.

    Client addresses take turns, within an address the users, and then the connections: somebody
    who guesses passwords does not keep others from their first login. All unknown users are one.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._accepted: dict[bytes, None] = {}
        self._thread = start_executor("bcrypt")
        self._queue: FairQueue[_Comparison] = FairQueue(_MAX_WAITING, _MAX_WAIT_SECONDS / 2)
        self._is_comparing = False

    async def check(
        self, users: Mapping[bytes, bytes], user: bytes, password: bytes, client: tuple[str, int]
    ) -> bool:
        """Return whether the user has this password.

        Raises BusyError if the comparison has to wait for too long. ``client`` is the address and
        port of the client. An unknown user takes as long as the user with the costliest hash.
        """
        if len(password) > _MAX_PASSWORD_BYTES:
            return False
        hashed = users.get(user)
        if hashed is None:
            cost = max(each.split(b"$")[2] for each in users.values())
            dummy = b"$2b$" + cost + _DUMMY_HASH
            await self._compare_in_turn(client, b"", lambda: bcrypt.checkpw(password, dummy))
            # Whatever the result: the dummy hash has a password, which anybody may know.
            return False
        values = repr((user, password, hashed)).encode()
        digest = hashlib.blake2b(values, key=self._key).digest()
        if digest in self._accepted:
            return True
        return await self._compare_in_turn(
            client, b"user " + user, lambda: self._compare(password, hashed, digest)
        )

    async def _compare_in_turn(
        self, client: tuple[str, int], user: bytes, compare: Callable[[], bool]
    ) -> bool:
        host, port = client
        comparison = _Comparison(compare)
        now = asyncio.get_running_loop().time()
        dropped = self._queue.push((client_address(host), user, port), comparison, now)
        if dropped is not None:
            dropped.result.set_exception(BusyError())
        self._compare_next()
        try:
            async with asyncio.timeout(_MAX_WAIT_SECONDS):
                return await comparison.result
        except TimeoutError:
            raise BusyError from None
        finally:
            self._queue.discard(comparison)

    def _compare_next(self) -> None:
        loop = asyncio.get_running_loop()
        if self._is_comparing or (comparison := self._queue.pop(loop.time())) is None:
            return
        self._is_comparing = True

        def compared(done: asyncio.Future[bool]) -> None:
            self._is_comparing = False
            if not comparison.result.done():  # who asked may have given up
                if (error := done.exception()) is not None:
                    comparison.result.set_exception(error)
                else:
                    comparison.result.set_result(done.result())
            self._compare_next()

        loop.run_in_executor(self._thread, comparison.compare).add_done_callback(compared)

    def _compare(self, password: bytes, hashed: bytes, digest: bytes) -> bool:
        # An earlier request of the queue may have compared the same password.
        if digest in self._accepted:
            return True
        accepted = bcrypt.checkpw(password, hashed)
        if accepted:
            while len(self._accepted) >= _MAX_ACCEPTED:
                del self._accepted[next(iter(self._accepted))]
            self._accepted[digest] = None
        return accepted
