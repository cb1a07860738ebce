"""What a receiver is told, once its own keys and those for all receivers are taken together."""

from exporter.config.models import Alerts
from exporter.config.receivers import (
    TROUBLES,
    AlertmanagerReceiver,
    CommonReceiver,
    ReceiverEventName,
)


def events_of(section: CommonReceiver, alerts: Alerts) -> tuple[ReceiverEventName, ...]:
    """Return a receiver's own ``events``, else ``alerts.events`` and agent.

    Of these an Alertmanager takes what may be a trouble.
    """
    own = section.events
    names: tuple[ReceiverEventName, ...] = (*alerts.events, "agent") if own is None else own
    if isinstance(section, AlertmanagerReceiver):
        return tuple(name for name in names if name in TROUBLES)
    return names
