"""The configuration as pydantic models: every key, default and limit."""

from exporter.config.errors import ConfigError
from exporter.config.load import load
from exporter.config.models import Config
from exporter.config.receivers import Receiver

__all__ = ["Config", "ConfigError", "Receiver", "load"]
