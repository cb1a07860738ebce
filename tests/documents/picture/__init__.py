"""A picture of the dashboard, drawn from its file and from what Prometheus answered its queries.

Grafana has no part in it. `make picture` lives through some minutes and writes it.
"""
