"""All consequences of any history of polls, as the poller asks for them."""

from hypothesis import given

from exporter.core.account import AccountState, advance
from exporter.core.consequences import consequences
from exporter.core.view import Shape
from tests.core.histories import histories, rules, snapshot

ROUTES = {"fine_tune.failed": ["slack", "webhook"], "fine_tune.removed": ["slack"]}


@given(histories)
def test_each_reading_leads_to_its_step_its_counts_and_who_is_to_be_told(polls):
    state: AccountState | None = None
    for number, poll in enumerate(polls):
        read, following = snapshot(poll, number), rules("silent")
        found = consequences(
            state, read, following, Shape(), lambda event: ROUTES.get(event.type, [])
        )
        assert found.step == advance(state, read, following)
        assert [event for event, _ in found.owed] == [*found.step.events]
        assert all(names == ROUTES.get(event.type, []) for event, names in found.owed)
        assert found.view.counts is not None
        assert sum(found.view.counts.values()) == len(poll)
        state = found.step.state


@given(histories)
def test_what_was_known_stays_as_it_was(polls):
    """A thread that works on it may be given up, and its poller start again from there."""
    state = advance(None, snapshot(polls[0]), rules()).state
    before = dict(state.known)
    consequences(state, snapshot(polls[-1], 1), rules(), Shape(), lambda _: [])
    assert state.known == before
