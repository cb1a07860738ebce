"""The result of any history of polls, as the poller computes it."""

from hypothesis import given

from exporter.core.account import AccountState, apply_snapshot
from exporter.core.view import SeriesOptions
from tests.core.histories import histories, poll_result, rules, snapshot

ROUTES = {"fine_tune.failed": ["slack", "webhook"], "fine_tune.removed": ["slack"]}


@given(histories)
def test_each_event_has_its_receivers_and_the_counts_are_complete(polls):
    state: AccountState | None = None
    for number, poll in enumerate(polls):
        read = snapshot(poll, number)
        result = apply_snapshot(
            state, read, rules("silent"), SeriesOptions(), lambda e: ROUTES.get(e.type, [])
        )
        assert all(names == ROUTES.get(event.type, []) for event, names in result.events)
        assert result.status.counts is not None
        assert sum(result.status.counts.values()) == len(poll)
        state = result.state


@given(histories)
def test_the_state_before_is_not_changed(polls):
    """A thread that computes it may be abandoned; its poller starts again from the state."""
    state = poll_result(None, snapshot(polls[0])).state
    before = dict(state.tracked)
    poll_result(state, snapshot(polls[-1], 1))
    assert state.tracked == before
