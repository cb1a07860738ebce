"""Panels about receivers: circuits, pending, held, muted and dead deliveries, requests."""

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
_HELD = "cartesia_exporter_deliveries_held"
_MUTED = "cartesia_exporter_deliveries_muted"
_DEAD = "cartesia_exporter_deliveries_dead"


def undelivered() -> stat.Panel:
    text = Text("Deliveries", "Pending and dead deliveries.")
    pending, dead = Query(f"sum({_PENDING})", "pending"), Query(f"sum({_DEAD})", "dead")
    return number_panel(text, pending, dead, above=ABOVE_ZERO)


def receivers() -> statetimeline.Panel:
    text = Text("Receivers", "Down: the last request failed, and not because of its content.")
    query = Query("min by (receiver) (cartesia_exporter_receiver_up)", "{{receiver}}")
    return state_panel(text, query, _STATES)


def backlog() -> timeseries.Panel:
    text = Text("Pending and dead deliveries", "Pending: solid; dead: dashed.")
    pending = Query(f"sum by (receiver) ({_PENDING})", "{{receiver}}")
    dead = Query(f"sum by (receiver) ({_DEAD})", "{{receiver}}: dead")
    return line_panel(text, pending, dead).override_by_query("B", [dashed(10, 6)])


def held_back() -> timeseries.Panel:
    text = Text(
        "Held and muted deliveries",
        "Held back by group_interval: solid; muted: dashed. They are not late.",
    )
    held = Query(f"sum by (receiver, reason) ({_HELD})", "{{receiver}}: {{reason}}")
    muted = Query(f"sum by (receiver) ({_MUTED})", "{{receiver}}: muted")
    return line_panel(text, held, muted).override_by_query("B", [dashed(10, 6)])


def longest_wait() -> timeseries.Panel:
    text = Text(
        "Longest wait",
        "Age of the oldest delivery of each receiver that could be sent; no line means none is. "
        "Dashed: threshold of the alert.",
    )
    oldest = "cartesia_exporter_delivery_oldest_pending_timestamp_seconds"
    query = Query(f"time() - min by (receiver) ({oldest})", "{{receiver}}")
    return line_panel(text, query, unit="s", above=((BACKLOG_SECONDS, VERMILLION),))


def requests() -> timeseries.Panel:
    text = Text("Requests to receivers", "Successful and failed, in each step.")
    attempts = f"increase(cartesia_exporter_notifications_total{RATE})"
    return bar_panel(text, Query(f"sum by (receiver) ({attempts})", "{{receiver}}"))


def failed_requests() -> timeseries.Panel:
    text = Text("Failed requests", "By reason.")
    grown = f"increase(cartesia_exporter_notifications_failed_total{RATE})"
    query = Query(f"sum by (receiver, reason) ({grown}) > 0", "{{receiver}}: {{reason}}")
    return bar_panel(text, query, colour=ORANGE)


def delivery_delay() -> timeseries.Panel:
    text = Text(
        "Delay from observation to delivery",
        "Of the events delivered in the last day. Solid: median; dashed: 99th percentile.",
    )
    grown = "sum by (le) (increase(cartesia_exporter_notification_delay_seconds_bucket[1d]))"
    half = Query(f"histogram_quantile(0.5, {grown})", "median")
    most = Query(f"histogram_quantile(0.99, {grown})", "99 %")
    panel = line_panel(text, half, most, unit="s")
    return panel.override_by_query("B", [dashed(10, 6), coloured(ORANGE)])
