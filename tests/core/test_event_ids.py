"""Event ids, literally: a changed id would repeat every notification after an update."""

from exporter.core.account import Rules
from exporter.core.events import (
    baseline_event,
    circuit_event,
    poll_failing_event,
    poll_recovered_event,
    recovered_event,
    stuck_event,
    transition_event,
    unknown_status_event,
)
from exporter.core.model import AccountKey, FineTune, Outage, Snapshot, TrackedFineTune
from exporter.core.retry import CIRCUIT_CLOSED, CircuitState
from tests.core.histories import poll_result, transition_of

STORE, NOW = "store", 1_800_000_000.0
MAIN = AccountKey("main", "https://api.example")


def transition(status, sequence=1, previous=None, removal=0):
    fine_tune = FineTune("ft_1", "Ada", status=status)
    event_ = transition_event(
        STORE, MAIN, transition_of(fine_tune, sequence, previous, removal), NOW
    )
    return event_.type, event_.id


def test_transitions():
    assert [
        transition("created"),
        transition("training", 2, "created"),
        transition("failed", 3, "training"),
        transition("completed", 3, "training"),
        transition("failed", 3, "failed", removal=2),
        transition("removed 1", 3, "failed"),
    ] == [
        ("fine_tune.created", "evt_24f33ab0fc5b2721f884fb1907c9ddd7"),
        ("fine_tune.changed", "evt_5a0951c5b31b5288e25491d3b2f7842a"),
        ("fine_tune.failed", "evt_5ac22f1f716e3398c3bee781db46942a"),
        ("fine_tune.completed", "evt_a69911c99d2efbbc6f0bce5781e7ed7b"),
        ("fine_tune.removed", "evt_338cd2782acfd14f827337feea8e0b4d"),
        ("fine_tune.changed", "evt_13928f31ac334b83baef8da1079360bf"),
    ]


def test_recovered():
    fine_tune = FineTune("ft_1", status="training")
    event_ = recovered_event(STORE, MAIN, transition_of(fine_tune, 4, "failed"), NOW)
    assert event_ is not None
    assert event_.id == "evt_bf1fc1d1b4faca5cd96b5b19fbfaa774"


def test_stuck():
    tracked = TrackedFineTune(FineTune("ft_1", status="training"), 2, NOW, since_seen=True)
    assert stuck_event(STORE, MAIN, tracked, NOW).id == "evt_aef22a21e3e22fca9c86e762f69394a2"


def test_baseline():
    rules = Rules(STORE, MAIN, "summary", 100, 3600.0)
    ((event_, _),) = poll_result(
        None, Snapshot({"ft_1": FineTune("ft_1", status="failed")}, NOW), rules
    ).events
    assert (event_.type, event_.id) == ("agent.baseline", "evt_d3ace9c123770d46f925fbf86d3e4d11")


def test_a_later_baseline():
    assert baseline_event(STORE, MAIN, {}, 2, NOW).id == "evt_8ed95dde4325fe4200b0ba643a4f8367"


def test_unknown_statuses():
    assert (
        unknown_status_event(STORE, MAIN, "paused", {}, NOW).id
        == "evt_0bc0eab2cc36188753476bc6d749506f"
    )


def test_outages():
    outage = Outage(NOW - 600, 0.0, has_baseline=True, reason="timeout", error="late")
    failing = poll_failing_event(STORE, MAIN, outage, NOW)
    recovered = poll_recovered_event(STORE, MAIN, outage, {}, NOW)
    assert [(e.type, e.id) for e in (failing, recovered)] == [
        ("agent.poll_failing", "evt_eee0b6b65476e88d7ca515b8d3b6e161"),
        ("agent.poll_recovered", "evt_6bd52153c6423f51ba34749842a3edb6"),
    ]


def test_circuits():
    circuit = CircuitState(1, NOW - 60, open=True, reason="answered 404")
    opened = circuit_event(STORE, "slack", CIRCUIT_CLOSED, circuit, NOW)
    closed = circuit_event(STORE, "slack", circuit, CIRCUIT_CLOSED, NOW)
    assert [(e.type, e.id) for e in (opened, closed) if e] == [
        ("agent.receiver_unhealthy", "evt_91f9ed9485ed3919426aa1de6af79968"),
        ("agent.receiver_recovered", "evt_6dfaf4b1f04a508bdcdd1eebdc9a045e"),
    ]
