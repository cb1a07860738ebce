"""Panels about fine-tunes: counts, failures and durations."""

from grafana_foundation_sdk.builders import common as builders
from grafana_foundation_sdk.builders import stat, table, timeseries
from grafana_foundation_sdk.models import common

from docs.generate.dashboard.panels import (
    ACCOUNT,
    RATE,
    SELECTED,
    Query,
    Text,
    bar_panel,
    line_panel,
    number_panel,
    table_panel,
)
from docs.generate.dashboard.style import (
    ABOVE_ZERO,
    ORANGE,
    STATUS_LINES,
    VERMILLION,
    coloured,
    dashed,
    status_style,
)

STUCK_SECONDS = 6 * 3600

_TRANSITIONS = "cartesia_fine_tune_transitions_total"
_OLDEST = "cartesia_fine_tune_oldest_in_status_timestamp_seconds"
_DURATIONS = "cartesia_fine_tune_status_duration_seconds_bucket"


def total() -> stat.Panel:
    text = Text("Fine-tunes", "All fine-tunes, as of the last complete poll.")
    return number_panel(text, Query(f"sum(cartesia_fine_tunes{{{SELECTED}}})"))


def in_training() -> stat.Panel:
    text = Text("In training", "Fine-tunes that are training now.")
    return number_panel(text, Query(f'sum(cartesia_fine_tunes{{{SELECTED},status="training"}})'))


def failed_in_range() -> stat.Panel:
    text = Text("Failed", "Fine-tunes that entered failed in the time range of the dashboard.")
    failed = f'increase({_TRANSITIONS}{{{SELECTED},to_status="failed"}}[$__range])'
    return number_panel(text, Query(f"round(sum({failed}))"), above=ABOVE_ZERO)


def by_status() -> timeseries.Panel:
    text = Text(
        "Fine-tunes by status", "As of the last complete poll; empty while the data is stale."
    )
    query = Query(f"sum by (status) (cartesia_fine_tunes{{{SELECTED}}})", "{{status}}")
    panel = line_panel(text, query)
    for status in STATUS_LINES:
        panel = panel.override_by_name(status, status_style(status))
    return panel


def by_model() -> timeseries.Panel:
    text = Text(
        "Fine-tunes by model", "Stacked, in shades of one colour; the table has the numbers."
    )
    query = Query(f"sum by (model_id) (cartesia_fine_tunes{{{SELECTED}}})", "{{model_id}}")
    stacked = builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A")
    return line_panel(text, query).stacking(stacked).fill_opacity(60)


def models_and_statuses() -> table.Panel:
    text = Text("Models and statuses", "Current values.")
    query = Query(f"sum by (model_id, status) (cartesia_fine_tunes{{{SELECTED}}})")
    return table_panel(text, query, row="model_id", column="status")


def failures() -> timeseries.Panel:
    text = Text(
        "Failures",
        "Fine-tunes that entered failed in each step. The points are exemplars: each names one "
        "failed fine-tune as fine_tune_id.",
    )
    failed = f'increase({_TRANSITIONS}{{{SELECTED},to_status="failed"}}{RATE})'
    query = Query(f"sum by (model_id) ({failed})", "{{model_id}}", exemplars=True)
    return bar_panel(text, query, colour=VERMILLION)


def failure_share() -> timeseries.Panel:
    text = Text(
        "Failure ratio",
        "Of the fine-tunes that ended in the last day, by model. Dashed: threshold of the alert.",
    )
    to_failed, to_end = (
        f"sum by (model_id) (increase({_TRANSITIONS}{{{SELECTED},to_status{matcher}}}[1d]))"
        for matcher in ('="failed"', '=~"completed|failed"')
    )
    query = Query(f"{to_failed} / ({to_end} > 0)", "{{model_id}}")
    return line_panel(text, query, unit="percentunit", above=((0.5, VERMILLION),)).max(1)


def transitions() -> timeseries.Panel:
    text = Text(
        "Status changes", "Confirmed changes; none means a fine-tune seen for the first time."
    )
    moved = f"sum by (from_status, to_status) (increase({_TRANSITIONS}{{{SELECTED}}}{RATE})) > 0"
    query = Query(moved, "{{from_status}} \u2192 {{to_status}}")
    return bar_panel(text, query).override_by_regexp("/failed$/", [coloured(VERMILLION)])


def time_in_training() -> timeseries.Panel:
    text = Text(
        "Time in training",
        "Of the fine-tunes that left training in the last day, as observed, with the precision "
        "of the poll interval. Solid: median; dashed: 90th percentile.",
    )
    spent = f'sum by (le) (increase({_DURATIONS}{{{ACCOUNT},status="training"}}[1d]))'
    half = Query(f"histogram_quantile(0.5, {spent})", "median")
    most = Query(f"histogram_quantile(0.9, {spent})", "90 %")
    panel = line_panel(text, half, most, unit="s")
    return panel.override_by_query("B", [dashed(10, 6), coloured(ORANGE)])


def longest_active() -> timeseries.Panel:
    text = Text(
        "Oldest in created and training",
        "Age of the oldest in created (dotted) and in training, as observed. Dashed: threshold of "
        "the alert.",
    )
    oldest = f'min by (account, status) ({_OLDEST}{{{ACCOUNT},status=~"created|training"}})'
    query = Query(f"time() - {oldest}", "{{account}}: {{status}}")
    panel = line_panel(text, query, unit="s", above=((STUCK_SECONDS, VERMILLION),))
    return panel.override_by_regexp("/created$/", [dashed(2, 6), coloured(ORANGE)])
