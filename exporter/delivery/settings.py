"""Settings of a delivery service, and the events of its receiver's circuit."""

import logging
from collections.abc import Callable

import structlog
from msgspec import Struct

from exporter.core.account import RoutedEvents, Router
from exporter.core.events import circuit_event
from exporter.core.match import AccountLabels
from exporter.core.message import MessageSettings
from exporter.core.retry import CircuitState


class DeliverySettings(Struct, frozen=True):
    """How events are delivered to one receiver; times are in seconds.

    ``wake`` is called after a commit that queued events for other receivers. ``account_labels``
    returns the labels of the accounts in the configuration, by the account's name.
    """

    store_id: str
    group_wait: float
    group_interval: float
    digest_threshold: int
    max_age: float
    messages: MessageSettings
    route: Router
    wake: Callable[[], None]
    account_labels: Callable[[], AccountLabels] = dict


log = structlog.get_logger()


def circuit_events(
    settings: DeliverySettings, receiver: str, before: CircuitState, after: CircuitState, now: float
) -> RoutedEvents:
    """Log that a receiver's circuit opened or closed at ``now`` (Unix seconds), if it did.

    Returns the event to store, with the receivers to be notified; empty if nothing changed.
    """
    event = circuit_event(settings.store_id, receiver, before, after, now)
    if event is None:
        return ()
    receivers = settings.route(event)
    log.log(
        logging.WARNING if event.traits.is_trouble else logging.INFO,
        event.type.removeprefix("agent.").replace("_", " "),
        receiver=receiver,
        reason=after.reason or "recovered",
        notified=" ".join(receivers) or "nobody",
    )
    return [(event, receivers)]
