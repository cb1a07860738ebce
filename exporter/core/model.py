"""Fine-tunes, snapshots, tracked fine-tunes, transitions, outages and outbox messages.

Every type is frozen: comparing two values is the diff, and any thread may read them. Types with one
value per fine-tune are msgspec structs without garbage collector tracking: a third smaller, created
15 times as fast, and a collection over hundreds of thousands of objects would stop every thread.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

CREATED: Final = "created"
TRAINING: Final = "training"
COMPLETED: Final = "completed"
FAILED: Final = "failed"
UNKNOWN: Final = "unknown"

STATUSES: Final = (CREATED, TRAINING, COMPLETED, FAILED, UNKNOWN)
"""Values of the label ``status``: the four of the API's OpenAPI document, and the rest."""

TERMINAL: Final = frozenset({COMPLETED, FAILED})

POLLS_UNTIL_REMOVED: Final = 2
"""Complete polls in a row without a fine-tune that confirm its removal."""

NONE: Final = "none"
"""Value of ``from_status`` for a fine-tune first seen after the baseline."""


def status_label(canonical: str) -> str:
    """Return the label value of a canonical status: itself if known, else ``unknown``."""
    return canonical if canonical in STATUSES else UNKNOWN


class FineTune(Struct, frozen=True, gc=False):
    """One fine-tune as the API lists it, text verbatim; missing and null fields have defaults."""

    id: str
    name: str = ""
    description: str = ""
    language: str = ""
    model_id: str = UNKNOWN
    dataset: str = ""
    status: str = UNKNOWN


class AccountKey(Struct, frozen=True):
    """Identity of an account: its configured name and its base URL, not its key."""

    name: str
    base_url: str


class Snapshot(Struct, frozen=True):
    """One complete list of one account's fine-tunes. A list with a missing page is no Snapshot.

    ``read_at`` is Unix time in seconds, ``duration`` is in seconds, ``fine_tunes`` is keyed by id.
    ``clock_jump`` is how many seconds more the wall clock moved than the monotonic clock since the
    previous snapshot; 0 for a small correction. ``key_fingerprint`` identifies the API key that
    read the list; empty if it is not known. ``confirmed`` is False for an empty list, unless the
    complete poll before it, with the same key, returned an empty list as well.
    """

    fine_tunes: Mapping[str, FineTune]
    read_at: float
    duration: float = 0.0
    pages: int = 1
    clock_jump: float = 0.0
    key_fingerprint: str = ""
    confirmed: bool = True


class TrackedFineTune(Struct, frozen=True, gc=False):
    """A fine-tune as stored after a poll; one row of the store.

    ``fine_tune`` is as last read, except that its status is the confirmed one. ``sequence`` counts
    its confirmed statuses from 1. ``since`` is when the confirmed status was first observed (Unix
    seconds); ``since_seen`` is whether the agent saw it begin, or found it at the baseline.
    ``exit_pending``: the last poll saw it out of a terminal status, which is not confirmed yet.
    ``missed_polls`` counts consecutive polls without it, up to 2, which means removed.
    ``removals`` counts its removals, so that a second removal is an event of its own. ``stuck``:
    its stuck event was created; there is one per time in a status. ``configured_failure``: its
    confirmed status counts as ``failed`` because ``alerts.failed_statuses`` says so. ``returned``:
    it came back from a removal on its way out of a terminal status, which is not confirmed yet.
    """

    fine_tune: FineTune
    sequence: int
    since: float
    since_seen: bool
    exit_pending: bool = False
    missed_polls: int = 0
    removals: int = 0
    stuck: bool = False
    configured_failure: bool = False
    returned: bool = False

    @property
    def removed(self) -> bool:
        """Whether two polls in a row missed it."""
        return self.missed_polls >= POLLS_UNTIL_REMOVED


class Transition(Struct, frozen=True, gc=False):
    """A confirmed change of one fine-tune: into ``fine_tune.status``, or out of the list.

    ``previous_status`` is as read, None for a fine-tune first seen; ``from_status`` and
    ``to_status`` are the label values of both. ``time_in_status`` is how many seconds it was in its
    previous status, as observed; None when its beginning or end was not observed.
    """

    fine_tune: FineTune
    sequence: int
    previous_status: str | None
    from_status: str
    to_status: str
    removal: int = 0
    time_in_status: float | None = None

    @property
    def removed(self) -> bool:
        """Whether the fine-tune left the list."""
        return self.removal > 0


class Outage(Struct, frozen=True):
    """Consecutive failed polls of one account.

    ``since`` is when the first of them failed in Unix seconds, ``since_awake`` the same on the
    awake clock. ``reason`` (as in the metrics) and ``error`` are those of the last.
    ``has_baseline``: the account was read completely before. ``submitted``: its event was passed
    to the store; ``reported``: the store confirmed it.
    """

    since: float
    since_awake: float
    has_baseline: bool
    reason: str = ""
    error: str = ""
    submitted: bool = False
    reported: bool = False

    def is_due(self, awake: float, after: float) -> bool:
        """Return whether its event is due ``after`` seconds of outage (0: never)."""
        return not self.reported and 0 < after <= awake - self.since_awake


class OutboxMessage(Struct, frozen=True):
    """One request to one receiver: its events and bytes are fixed before the first attempt.

    ``id`` lets a receiver recognise a repeat. ``attempts`` counts the attempts before this one;
    ``repeat``: one of them may have arrived, because its answer was lost.
    """

    id: str
    receiver: str
    body: bytes
    events: int
    created_at: float
    attempts: int = 0
    minimal: bool = False
    repeat: bool = False
