"""Ready means: some account is fresh, and what happens to it can be stored."""

import pytest

from exporter.core.exposition import AccountView
from exporter.core.readiness import Readiness, readiness

FRESH = AccountView("a", up=True, succeeded_at=1000, counts={})
OLD = AccountView("b", up=True, succeeded_at=600, counts={})
NEW = AccountView("c")
RESTORED = AccountView("d", succeeded_at=1000)
FAILING = AccountView("f", succeeded_at=1000, counts={}, failure="timeout")


@pytest.mark.parametrize(
    ("truth", "views", "found", "ready"),
    [
        ("one fresh account is enough", [FRESH, OLD, NEW], Readiness(1, 3), True),
        ("no fresh account is not", [OLD, NEW], Readiness(0, 2), False),
        ("no account at all is not", [], Readiness(0, 0), False),
        ("a reading of the last process is not", [RESTORED], Readiness(0, 1), False),
        ("what cannot be stored is not", [FRESH], Readiness(1, 1, "no room"), False),
        ("a failed poll does not age the last", [FAILING], Readiness(1, 1), True),
    ],
)
def test_readiness(truth, views, found, ready):
    now = readiness(iter(views), now=1300, stale_after=300, trouble=found.trouble)
    assert (now, now.ready) == (found, ready), truth


def test_a_poll_that_could_not_be_stored_is_a_trouble_until_one_is():
    """Small writes may still succeed on a disk that a poll does not fit on."""
    unstored = AccountView("a", succeeded_at=1000, counts={}, failure="storage")
    now = readiness([unstored], now=1300, stale_after=300, trouble="")
    assert (now.ready, now.trouble) == (False, "the last poll could not be stored")
