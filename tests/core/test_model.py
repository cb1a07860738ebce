"""Ids, status labels and the frozen types."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.core.events import stable_id
from exporter.core.model import STATUSES, FineTune, TrackedFineTune, status_label
from tests.core.histories import START, snapshot, transition_of

parts = st.lists(st.text("ab1:2", max_size=4), max_size=4)


@given(parts, parts)
@example(["ab", "c"], ["a", "bc"])
@example(["a", "b"], ["a1:b"])
@example([""], [])
@example(["1:a"], ["", "a"])
def test_ids_are_equal_only_for_equal_parts(one, other):
    assert (stable_id("evt", *one) == stable_id("evt", *other)) == (one == other)


@given(parts)
def test_ids_are_valid_in_headers_and_signatures(some):
    """Standard Webhooks allows no full stop in an id: it separates what is signed."""
    assert re.fullmatch(r"msg_[0-9a-f]{32}", stable_id("msg", *some))


def test_stable_id_never_changes():
    """A changed id would repeat every notification after an update."""
    assert stable_id("evt", "store", 1, "failed") == "evt_1dcfd5b5308f3ff43c23f5f19ba6ae5c"


def test_status_labels():
    assert {status: status_label(status) for status in STATUSES} == {s: s for s in STATUSES}
    assert {status_label(s) for s in ("", "none", "FAILED", "paused", "other")} == {"unknown"}


@pytest.mark.parametrize(("missed_polls", "removed"), [(0, False), (1, False), (2, True)])
def test_two_missed_polls_are_a_removal(missed_polls, removed):
    fine_tune = snapshot({"a": "failed"}).fine_tunes["a"]
    tracked = TrackedFineTune(fine_tune, 1, START, since_seen=True, missed_polls=missed_polls)
    assert tracked.removed is removed


MANY = [
    FineTune("a"),
    TrackedFineTune(FineTune("a"), 1, START, since_seen=True),
    transition_of(FineTune("a"), 1, "training"),
]


@pytest.mark.parametrize("made", MANY, ids=lambda each: type(each).__name__)
def test_numerous_types_are_frozen_and_untracked_by_the_garbage_collector(made):
    assert not made.__struct_config__.gc
    with pytest.raises(AttributeError, match="immutable"):
        setattr(made, made.__struct_fields__[0], None)
