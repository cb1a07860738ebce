"""A receiver that cannot be told any more, or can be again: the log's line, and who is told."""

import logging
from typing import Final

import structlog

from exporter.core.circuit import Health, change
from exporter.core.model import EventType
from exporter.delivery.plan import DeliveryPlan
from exporter.store.events import Told

_LEVELS: Final[dict[EventType, int]] = {
    "agent.receiver_unhealthy": logging.WARNING,
    "agent.receiver_recovered": logging.INFO,
}

log = structlog.get_logger()


def noted_change(
    plan: DeliveryPlan, receiver: str, before: Health, after: Health, now: float
) -> Told:
    """Log that a receiver's circuit opened or closed at ``now`` (Unix seconds), if it did.

    Returns what is to be stored of it: the event, with the receivers to be told.
    """
    event = change(plan.store_id, receiver, before, after, now)
    if event is None:
        return ()
    receivers = plan.route(event)
    log.log(
        _LEVELS[event.type],
        event.type.removeprefix("agent.").replace("_", " "),
        receiver=receiver,
        reason=after.reason or "well again",
        told=" ".join(receivers) or "nobody",
    )
    return [(event, receivers)]
