"""Changes to deliveries and mutes on request of a user."""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import structlog
from msgspec import Struct

from exporter.core.mutes import LONGEST_AUTHOR, MuteRequest
from exporter.core.text import one_line
from exporter.store import repairs
from exporter.store.database import Database
from exporter.store.errors import StoreError
from exporter.store.mutes import add_mute, end_mute
from exporter.store.queries import DeliveryFilter, UnknownIdError

_DAY_SECONDS: Final = 86_400

log = structlog.get_logger()


class ActionError(Exception):
    """A change was not made; the text says why."""


class Actions(Struct, frozen=True):
    """Retry and discard of deliveries, and mutes; each is logged with its user.

    ``key`` signs the tokens of forms. It is kept in the store, so that any replica accepts them.
    ``wake`` is called after a change. ``now`` is Unix time in seconds.
    """

    database: Database
    key: bytes
    configured: Callable[[], frozenset[str]]
    now: Callable[[], float]
    wake: Callable[[], None]

    def token(self, user: str) -> str:
        """Return the token of forms for a user and the current day."""
        return self._token(user, int(self.now() // _DAY_SECONDS))

    def token_is_valid(self, user: str, token: str) -> bool:
        """Return whether a token is the user's, of this day or of the one before."""
        today = int(self.now() // _DAY_SECONDS)
        given = token.encode("utf-8", "replace")
        return any(
            hmac.compare_digest(self._token(user, day).encode(), given)
            for day in (today, today - 1)
        )

    async def act(self, action: str, delivery: str, user: str) -> Mapping[str, int]:
        """Retry or discard a delivery, given by its id; return the numbers by receiver.

        All events of its message are changed with it. Raises ActionError.
        """
        event, colon, receiver = delivery.partition(":")
        if action not in {"retry", "discard"} or not colon:
            raise ActionError("An action is retry or discard of a delivery's id.")
        criteria = DeliveryFilter(self.configured(), (event,), receiver)
        change = repairs.retry
        if action == "discard":
            change = partial(repairs.discard, by=name_of(user))
        try:
            changed = await self.database.run(change, self.database, criteria, self.now())
        except (UnknownIdError, StoreError) as error:
            raise ActionError(str(error)) from None
        if not changed:
            raise ActionError("The delivery is settled already, or its receiver is not configured.")
        log.info("deliveries changed", action=action, delivery=delivery, user=name_of(user))
        self.wake()
        return changed

    async def add_mute(self, request: MuteRequest) -> str:
        """Add a mute and return its id. Raises InvalidMuteError, StoreError."""
        mute_id = await self.database.run(add_mute, self.database, request, self.now())
        covered = dict(request.match) or f"{request.account}/{request.fine_tune}"
        log.info("mute added", mute=mute_id, covers=one_line(str(covered)), user=request.author)
        self.wake()
        return mute_id

    async def end_mute(self, mute_id: str, by: str) -> None:
        """End a mute. Raises UnknownMuteError, StoreError."""
        await self.database.run(end_mute, self.database, mute_id, by, self.now())
        log.info("mute ended", mute=mute_id, user=by)
        self.wake()

    def _token(self, user: str, day: int) -> str:
        text = f"{user}\n{day}".encode()
        return hmac.new(self.key, text, hashlib.sha256).hexdigest()


def name_of(user: str, claimed: str = "") -> str:
    """Return the name to keep of who changes something: the user, else what the client claims."""
    return one_line(user, LONGEST_AUTHOR) or one_line(claimed, LONGEST_AUTHOR) or "anonymous"
