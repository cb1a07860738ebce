"""Canonical statuses: as what a status that the API sends is compared and counted.

The API reserves the right to add statuses and does not promise their spelling.
"""

from collections.abc import Callable, Collection
from typing import Final

from exporter.core.model import FAILED, STATUSES, TrackedFineTune
from exporter.core.text import one_line

Canonical = Callable[[str], str]
"""Returns the canonical form of a status of the API."""

NOT_A_FAILURE: Final = frozenset(STATUSES) - {FAILED}
"""Canonical statuses that cannot be configured as failures."""


def canonical_status(text: str) -> str:
    """Return a status in lower case, without surrounding spaces and control characters.

    So ``Failed`` and ``failed `` are ``failed``. It has at most 1,000 characters.
    """
    return one_line(text).casefold()


def confirmed_status(tracked: TrackedFineTune) -> str:
    """Return the canonical form of the confirmed status of a fine-tune, as it was last counted."""
    return FAILED if tracked.configured_failure else canonical_status(tracked.fine_tune.status)


class CanonicalStatuses(dict[str, str]):
    """Canonical forms by status, each computed once; ``failed`` for those of ``failures``.

    ``failures`` are canonical. Create it for one snapshot: it keeps every status it was asked for.
    """

    def __init__(self, failures: Collection[str] = ()) -> None:
        super().__init__()
        self._failures = frozenset(failures)

    def __missing__(self, text: str) -> str:
        """Return the canonical form of ``text`` and keep it."""
        found = canonical_status(text)
        self[text] = FAILED if found in self._failures else found
        return self[text]
