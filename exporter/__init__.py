"""cartesia-exporter: Prometheus metrics and failure alerts for Cartesia fine-tunes."""

__version__ = "0.1.0"
