"""Metrics of accounts after one of them is gone."""

from prometheus_client import CollectorRegistry, generate_latest

from exporter.cartesia.metrics import ClientMetrics
from exporter.polling.metrics import PollMetrics


def test_all_series_of_an_account_are_removed_and_none_of_another():
    registry = CollectorRegistry()
    client, polls = ClientMetrics(registry), PollMetrics(registry)
    for account in ("gone", "kept"):
        client.initialise(account)
        polls.initialise(account)
        client.record_answer(account, 404)
    before = generate_latest(registry).decode()
    client.forget("gone")
    polls.forget("gone")
    kept = [line for line in before.splitlines() if 'account="gone"' not in line]
    assert generate_latest(registry).decode().splitlines() == kept
    assert 'account="kept",code="404"' in "".join(kept)
