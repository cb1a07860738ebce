"""config.yaml as pydantic models: every key, default and limit is here; no behaviour is."""

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
from exporter.config.types import format_duration, parse_duration

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
    "format_duration",
    "load",
    "parse_duration",
]
