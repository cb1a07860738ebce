"""Order in which the deliveries of an event are shown."""

from collections.abc import Iterable
from typing import Final

from exporter.core.records import DeliveryRecord

_ORDER: Final = ("dead", "orphaned", "pending", "held", "muted", "discarded", "delivered")


def most_urgent_first(deliveries: Iterable[DeliveryRecord]) -> list[DeliveryRecord]:
    """Return deliveries in the order in which they need attention, then by receiver."""
    return sorted(deliveries, key=lambda each: (_ORDER.index(shown_state(each)), each.receiver))


def shown_state(delivery: DeliveryRecord) -> str:
    """Return the state of a delivery, or `held` if it is pending and may not be sent yet."""
    return "held" if delivery.held_until is not None else delivery.state
