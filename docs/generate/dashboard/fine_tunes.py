"""Panels about fine-tunes: how many there are, what fails, and how long it takes."""

from grafana_foundation_sdk.builders import common as made
from grafana_foundation_sdk.builders import stat, table, timeseries
from grafana_foundation_sdk.models import common

from docs.generate.dashboard.look import (
    DASHES,
    FROM_NOTHING,
    ORANGE,
    VERMILLION,
    coloured,
    dashed,
    status_style,
)
from docs.generate.dashboard.panels import (
    ACCOUNT,
    CHOSEN,
    HALF,
    RATE,
    Query,
    Text,
    bars,
    lines,
    matrix,
    number,
)

STUCK_SECONDS = 6 * 3600

_MOVED = "cartesia_fine_tune_transitions_total"
_OLDEST = "cartesia_fine_tune_oldest_in_status_timestamp_seconds"
_SPENT = "cartesia_fine_tune_status_duration_seconds_bucket"


def there_are() -> stat.Panel:
    text = Text("Fine-tunes", "All there are, as of the last complete poll.")
    return number(text, Query(f"sum(cartesia_fine_tunes{{{CHOSEN}}})"))


def in_training() -> stat.Panel:
    text = Text("In training", "Those that train now.")
    return number(text, Query(f'sum(cartesia_fine_tunes{{{CHOSEN},status="training"}})'))


def have_failed() -> stat.Panel:
    text = Text("Failed", "How many entered failed within the time of the dashboard.")
    failed = f'increase({_MOVED}{{{CHOSEN},to_status="failed"}}[$__range])'
    return number(text, Query(f"round(sum({failed}))"), above=FROM_NOTHING)


def by_status() -> timeseries.Panel:
    text = Text("Fine-tunes by status", "As of the last complete poll; empty while it is too old.")
    query = Query(f"sum by (status) (cartesia_fine_tunes{{{CHOSEN}}})", "{{status}}")
    panel = lines(text, query)
    for status in DASHES:
        panel = panel.override_by_name(status, status_style(status))
    return panel


def by_model() -> timeseries.Panel:
    text = Text("Fine-tunes by model", "Stacked, in shades of one colour; the table has numbers.")
    query = Query(f"sum by (model_id) (cartesia_fine_tunes{{{CHOSEN}}})", "{{model_id}}")
    stacked = made.StackingConfig().mode(common.StackingMode.NORMAL).group("A")
    return lines(text, query).stacking(stacked).fill_opacity(60)


def models_and_statuses() -> table.Panel:
    text = Text("Models and statuses", "As of now.")
    query = Query(f"sum by (model_id, status) (cartesia_fine_tunes{{{CHOSEN}}})")
    return matrix(text, query, row="model_id", column="status")


def failures() -> timeseries.Panel:
    text = Text(
        "Failures",
        "How many entered failed in each step. The points are exemplars: each names one fine-tune "
        "that failed, as fine_tune_id.",
    )
    failed = f'increase({_MOVED}{{{CHOSEN},to_status="failed"}}{RATE})'
    query = Query(f"sum by (model_id) ({failed})", "{{model_id}}", exemplars=True)
    return bars(text, query, colour=VERMILLION)


def share_that_fails() -> timeseries.Panel:
    text = Text(
        "Share that fails",
        "Of those that ended within the day before, by model. Dashed: where the alert is.",
    )
    lost = f'sum by (model_id) (increase({_MOVED}{{{CHOSEN},to_status="failed"}}[1d]))'
    ended = f'sum by (model_id) (increase({_MOVED}{{{CHOSEN},to_status=~"completed|failed"}}[1d]))'
    query = Query(f"{lost} / ({ended} > 0)", "{{model_id}}")
    return lines(text, query, unit="percentunit", above=((0.5, VERMILLION),)).max(1)


def changes() -> timeseries.Panel:
    text = Text("Changes of status", "Confirmed ones; none stands for a fine-tune first seen.")
    moved = f"sum by (from_status, to_status) (increase({_MOVED}{{{CHOSEN}}}{RATE})) > 0"
    query = Query(moved, "{{from_status}} \u2192 {{to_status}}")
    return bars(text, query).override_by_regexp("/failed$/", [coloured(VERMILLION)])


def time_in_training() -> timeseries.Panel:
    text = Text(
        "Time in training",
        "Of those that left it within the day before, as observed: as exact as the polls are "
        "apart. Whole line: half of them took less; dashed: nine of ten did.",
    )
    spent = f'sum by (le) (increase({_SPENT}{{{ACCOUNT},status="training"}}[1d]))'
    half = Query(f"histogram_quantile(0.5, {spent})", "half")
    most = Query(f"histogram_quantile(0.9, {spent})", "nine of ten")
    panel = lines(text, half, most, unit="s").span(HALF)
    return panel.override_by_query("B", [dashed(10, 6), coloured(ORANGE)])


def longest_under_way() -> timeseries.Panel:
    text = Text(
        "Longest under way",
        "Age of the oldest in created (dotted) and in training, as observed. Dashed: where the "
        "alert is.",
    )
    oldest = f'min by (account, status) ({_OLDEST}{{{ACCOUNT},status=~"created|training"}})'
    query = Query(f"time() - {oldest}", "{{account}}: {{status}}")
    panel = lines(text, query, unit="s", above=((STUCK_SECONDS, VERMILLION),)).span(HALF)
    return panel.override_by_regexp("/created$/", [dashed(2, 6), coloured(ORANGE)])
