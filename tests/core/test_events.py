"""The table of event types: complete, and consistent with what derives from it."""

from typing import get_args

import pytest

from exporter.core.events import EVENT_TYPES, SUBSCRIPTIONS, TROUBLES, EventType, Subscription


def test_the_table_has_every_event_type_in_order():
    assert tuple(EVENT_TYPES) == get_args(EventType)


def test_every_subscription_has_an_event_type():
    assert tuple(SUBSCRIPTIONS) == get_args(Subscription)
    assert all(SUBSCRIPTIONS.values())


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_an_end_has_the_labels_of_its_trouble(event_type):
    """Alertmanager ends an alert only by the same labels."""
    traits = EVENT_TYPES[event_type]
    if traits.resolves:
        (trouble,) = (each for each in TROUBLES if EVENT_TYPES[each].alertname == traits.alertname)
        assert traits.ends or traits.follows == trouble
    else:
        others = [each.alertname for key, each in EVENT_TYPES.items() if not each.resolves]
        assert others.count(traits.alertname) == 1
