"""The dashboard for Grafana, made out of code: `make docs` writes it."""
