"""Errors of the store."""

from typing import Final

from exporter.core.ownership import Claim


class StoreError(Exception):
    """The database cannot be read or written now. The text names it and the cause."""


class StoreRefusedError(StoreError):
    """The database must not be used as it is. The text says what to do; a retry does not help."""


class StoreConflictError(StoreError):
    """Another process changed the same at the same time; nothing was written. A retry may help."""


class StoreLostError(StoreError):
    """The database in use was deleted, moved or replaced: what is written to it is not kept."""


class StoreTakenError(StoreLostError):
    """Another agent took the database over: this one must neither write nor send any more."""


class StoreFencedError(StoreError):
    """Another replica owns an account or a receiver: nothing was written for it.

    The service of ``claim`` must neither write nor send any more.
    """

    def __init__(self, claim: Claim) -> None:
        super().__init__(f"another replica owns the {claim.item.kind} {claim.item.name}")
        self.claim = claim


NOT_OWNER: Final = (StoreTakenError, StoreFencedError)
"""Errors after which nothing may be sent: another agent sends it."""
