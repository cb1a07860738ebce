"""Whether a user's password is right: bcrypt off the event loop, one at a time, and remembered."""

import asyncio
import base64
import binascii
import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import bcrypt

_MAX_PASSWORD_BYTES: Final = 72
"""What bcrypt takes; a longer one would be cut by some libraries, and is an error in others."""

_REMEMBERED: Final = 100
_MAX_WAITING: Final = 32
_MAX_OF_ONE: Final = 8
"""Of one address: else one that guesses takes all places, and who has the password gets none."""

_LONGEST_WAIT: Final = 8.0
"""Seconds, less than a scrape takes. What is being compared then is remembered all the same: also
with a cost that takes longer, the second scrape is answered."""

# The one of exporter-toolkit, to be put behind a cost.
_NOBODY: Final = b"$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"

Credentials = tuple[bytes, bytes]


class BusyError(Exception):
    """Too many passwords wait to be compared, or for too long; nothing is known of this one."""


def basic_credentials(authorization: bytes) -> Credentials | None:
    """Return user and password of an Authorization header, None if it has none (RFC 7617)."""
    scheme, _, encoded = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except binascii.Error:
        return None
    return (user, password) if colon else None


class Passwords:
    """Compares passwords with bcrypt hashes.

    A right one is remembered by a keyed hash of user, password and bcrypt hash, so that it ends
    with the bcrypt hash it was compared with. A wrong one is not: nobody can push the right ones
    out by guessing.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, None] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bcrypt")
        self._waiting: Counter[str] = Counter()

    async def accept(
        self, users: Mapping[bytes, bytes], credentials: Credentials, client: str
    ) -> bool:
        """Return whether a user has this password; BusyError when that takes too long.

        ``client`` is the address that asks; each has its share of those who may wait.
        A user whom nobody knows takes as long as one with the costliest hash, and the same steps.
        """
        user, password = credentials
        if len(password) > _MAX_PASSWORD_BYTES:
            return False
        hashed = users.get(user)
        if hashed is None:
            # Neither remembered nor looked up: this hash has a password, and anybody may know it.
            await self._in_thread(client, bcrypt.checkpw, password, _hash_of_nobody(users))
            return False
        digest = self._digest(user, password, hashed)
        if digest in self._right:
            return True
        return await self._in_thread(client, self._compare, password, hashed, digest)

    async def _in_thread(
        self, client: str, compare: Callable[..., bool], *arguments: bytes
    ) -> bool:
        if self._waiting[client] >= _MAX_OF_ONE or self._waiting.total() >= _MAX_WAITING:
            raise BusyError
        self._waiting[client] += 1
        try:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(_LONGEST_WAIT):
                return await loop.run_in_executor(self._thread, compare, *arguments)
        except TimeoutError:
            raise BusyError from None
        finally:
            self._waiting -= Counter((client,))

    def _compare(self, password: bytes, hashed: bytes, digest: bytes) -> bool:
        """Compare in the thread; of requests sent at once the first may have found it out."""
        if digest in self._right:
            return True
        right = bcrypt.checkpw(password, hashed)
        if right:
            self._remember(digest)
        return right

    def _remember(self, digest: bytes) -> None:
        while len(self._right) >= _REMEMBERED:
            del self._right[next(iter(self._right))]
        self._right[digest] = None

    def _digest(self, *parts: bytes) -> bytes:
        digest = hashlib.blake2b(key=self._key)
        for part in parts:
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.digest()


def _hash_of_nobody(users: Mapping[bytes, bytes]) -> bytes:
    cost = max(hashed.split(b"$")[2] for hashed in users.values())
    return b"$2b$" + cost + _NOBODY
