"""Panels about receivers: circuits, pending and dead deliveries, requests."""

from grafana_foundation_sdk.builders import stat, statetimeline, timeseries

from docs.generate.dashboard.panels import (
    RATE,
    Query,
    Text,
    bar_panel,
    line_panel,
    number_panel,
    state_panel,
)
from docs.generate.dashboard.style import (
    ABOVE_ZERO,
    BLUE,
    ORANGE,
    VERMILLION,
    States,
    coloured,
    dashed,
)

BACKLOG_SECONDS = 15 * 60

_STATES: States = {1: ("\u25cf up", BLUE), 0: ("\u25b2 down", VERMILLION)}
_PENDING = "cartesia_exporter_deliveries_pending"
_DEAD = "cartesia_exporter_deliveries_dead"


def undelivered() -> stat.Panel:
    text = Text("Alerts", "Events that receivers are still owed, and those that were given up.")
    pending, dead = Query(f"sum({_PENDING})", "waiting"), Query(f"sum({_DEAD})", "given up")
    return number_panel(text, pending, dead, above=ABOVE_ZERO)


def receivers() -> statetimeline.Panel:
    text = Text("Receivers", "Down: the last request failed for the receiver's own sake.")
    query = Query("min by (receiver) (cartesia_exporter_receiver_up)", "{{receiver}}")
    return state_panel(text, query, _STATES)


def backlog() -> timeseries.Panel:
    text = Text("Waiting and given up", "Events. Waiting: whole line; given up: dashed.")
    pending = Query(f"sum by (receiver) ({_PENDING})", "{{receiver}}")
    dead = Query(f"sum by (receiver) ({_DEAD})", "{{receiver}}: given up")
    return line_panel(text, pending, dead).override_by_query("B", [dashed(10, 6)])


def longest_wait() -> timeseries.Panel:
    text = Text(
        "Longest wait",
        "Age of the oldest event that a receiver is owed; nothing is owed where there is no line. "
        "Dashed: where the alert is.",
    )
    oldest = "cartesia_exporter_delivery_oldest_pending_timestamp_seconds"
    query = Query(f"time() - min by (receiver) ({oldest})", "{{receiver}}")
    return line_panel(text, query, unit="s", above=((BACKLOG_SECONDS, VERMILLION),))


def requests() -> timeseries.Panel:
    text = Text("Requests to receivers", "All that were tried, in each step.")
    attempts = f"increase(cartesia_exporter_notifications_total{RATE})"
    return bar_panel(text, Query(f"sum by (receiver) ({attempts})", "{{receiver}}"))


def failed_requests() -> timeseries.Panel:
    text = Text("Failed requests", "By reason.")
    grown = f"increase(cartesia_exporter_notifications_failed_total{RATE})"
    query = Query(f"sum by (receiver, reason) ({grown}) > 0", "{{receiver}}: {{reason}}")
    return bar_panel(text, query, colour=ORANGE)


def delivery_delay() -> timeseries.Panel:
    text = Text(
        "From seen to taken",
        "Of the events delivered within the day before. Whole line: half of them took less; "
        "dashed: 99 of 100 did.",
    )
    grown = "sum by (le) (increase(cartesia_exporter_notification_delay_seconds_bucket[1d]))"
    half = Query(f"histogram_quantile(0.5, {grown})", "half")
    most = Query(f"histogram_quantile(0.99, {grown})", "99 of 100")
    panel = line_panel(text, half, most, unit="s")
    return panel.override_by_query("B", [dashed(10, 6), coloured(ORANGE)])
