"""Ready means: an account is fresh and the state can be stored."""

import pytest

from exporter.core.health import Readiness, readiness
from exporter.core.view import AccountStatus

FRESH = AccountStatus("a", up=True, stale_at=1301, counts={})
OLD = AccountStatus("b", up=True, stale_at=1300, counts={})
NEW = AccountStatus("c")
RESTORED = AccountStatus("d", stale_at=1301)
FAILING = AccountStatus("f", stale_at=1301, counts={}, failure="timeout")


@pytest.mark.parametrize(
    ("case", "statuses", "found", "ready"),
    [
        ("one fresh account is enough", [FRESH, OLD, NEW], Readiness(1, 3), True),
        ("no fresh account is not", [OLD, NEW], Readiness(0, 2), False),
        ("no account at all is not", [], Readiness(0, 0), False),
        ("a reading of the last process is not", [RESTORED], Readiness(0, 1), False),
        ("what cannot be stored is not", [FRESH], Readiness(1, 1, "no room"), False),
        ("a failed poll does not age the last", [FAILING], Readiness(1, 1), True),
    ],
)
def test_readiness(case, statuses, found, ready):
    now = readiness(iter(statuses), monotonic=1300, trouble=found.trouble)
    assert (now, now.ready) == (found, ready), case


def test_readiness_fails_while_polls_cannot_be_stored():
    """Small writes may still succeed on a disk that a poll does not fit on."""
    unstored = AccountStatus("a", stale_at=1301, counts={}, failure="storage")
    now = readiness([unstored], monotonic=1300, trouble="")
    assert (now.ready, now.trouble) == (False, "the last poll could not be stored")
