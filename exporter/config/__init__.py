"""The configuration as pydantic models: every key, default and limit."""

from exporter.config.errors import ConfigError
from exporter.config.load import load
from exporter.config.models import Account, Alerts, Config, Metrics, Poll, Storage
from exporter.config.receivers import (
    AlertmanagerReceiver,
    AppriseReceiver,
    BasicAuth,
    Match,
    Receiver,
    SlackReceiver,
    WebhookReceiver,
)

__all__ = [
    "Account",
    "AlertmanagerReceiver",
    "Alerts",
    "AppriseReceiver",
    "BasicAuth",
    "Config",
    "ConfigError",
    "Match",
    "Metrics",
    "Poll",
    "Receiver",
    "SlackReceiver",
    "Storage",
    "WebhookReceiver",
    "load",
]
