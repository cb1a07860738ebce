"""The Grafana dashboard, generated from code: `make docs` writes it."""
