"""How the receivers are told."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from exporter.core.account import RoutedEvents
from exporter.core.events import Event, circuit_event
from exporter.core.message import LinkTemplates
from exporter.core.retry import CircuitState


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """When and how a receiver is told. Times are in seconds.

    ``route`` names the receivers of an event, and ``wake`` is called after a commit that owes them
    something.
    """

    store_id: str
    group_wait: float
    digest_threshold: int
    max_age: float
    link_templates: LinkTemplates
    route: Callable[[Event], Sequence[str]]
    wake: Callable[[], None]


log = structlog.get_logger()


def noted_change(
    plan: DeliverySettings, receiver: str, before: CircuitState, after: CircuitState, now: float
) -> RoutedEvents:
    """Log that a receiver's circuit opened or closed at ``now`` (Unix seconds), if it did.

    Returns what is to be stored of it: the event, with the receivers to be told.
    """
    event = circuit_event(plan.store_id, receiver, before, after, now)
    if event is None:
        return ()
    receivers = plan.route(event)
    log.log(
        logging.WARNING if event.traits.is_trouble else logging.INFO,
        event.type.removeprefix("agent.").replace("_", " "),
        receiver=receiver,
        reason=after.reason or "well again",
        told=" ".join(receivers) or "nobody",
    )
    return [(event, receivers)]
