"""Panels about polls: errors, age of the data, requests and durations."""

from grafana_foundation_sdk.builders import stat, statetimeline, timeseries
from grafana_foundation_sdk.models import dashboard

from docs.generate.dashboard.panels import (
    ACCOUNT,
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
    GREY,
    ORANGE,
    VERMILLION,
    States,
    coloured,
    dashed,
)

_STATES: States = {
    1: ("\u25cf read", BLUE),
    0: ("\u25b2 failing", ORANGE),
    2: ("\u25a0 failing, withheld", VERMILLION),
    3: ("\u25c6 withheld", VERMILLION),
}
_AGE_THRESHOLDS = ((300, ORANGE), (900, VERMILLION))
_SUCCESS = f"cartesia_poll_success_timestamp_seconds{{{ACCOUNT}}} > 0"
_RIGHT_AXIS = (
    dashboard.DynamicConfigValue("unit", "short"),
    dashboard.DynamicConfigValue("custom.axisPlacement", "right"),
)


def unreadable_accounts() -> stat.Panel:
    text = Text("Accounts not readable", "Accounts whose last poll failed.")
    return number_panel(text, Query(f"sum(1 - cartesia_up{{{ACCOUNT}}})"), above=ABOVE_ZERO)


def oldest_data() -> stat.Panel:
    text = Text(
        "Oldest data", "Time since the last complete poll of the account with the oldest data."
    )
    return number_panel(text, Query(f"time() - min({_SUCCESS})"), unit="s", above=_AGE_THRESHOLDS)


def accounts() -> statetimeline.Panel:
    text = Text(
        "Accounts",
        "Whether the last poll was complete. Withheld: no poll was complete for poll.stale_after, "
        "and the counts are not shown.",
    )
    up = f"min by (account) (cartesia_up{{{ACCOUNT}}})"
    stale = f"2 * max by (account) (cartesia_stale{{{ACCOUNT}}})"
    return state_panel(text, Query(f"{up} + {stale}", "{{account}}"), _STATES)


def data_age() -> timeseries.Panel:
    text = Text("Age of the data", "Time since the last complete poll. Dashed: 5 and 15 minutes.")
    query = Query(f"time() - min by (account) ({_SUCCESS})", "{{account}}")
    return line_panel(text, query, unit="s", above=_AGE_THRESHOLDS)


def failed_polls() -> timeseries.Panel:
    text = Text("Failed polls", "By reason; see the log and docs/runbooks.md.")
    grown = f"increase(cartesia_exporter_poll_failures_total{{{ACCOUNT}}}{RATE})"
    query = Query(f"sum by (account, reason) ({grown}) > 0", "{{account}}: {{reason}}")
    return bar_panel(text, query, colour=ORANGE)


def poll_duration() -> timeseries.Panel:
    text = Text("Poll duration", "Duration of the last poll.")
    duration = f"max by (account) (cartesia_poll_duration_seconds{{{ACCOUNT}}})"
    return line_panel(text, Query(duration, "{{account}}"), unit="s")


def requests() -> timeseries.Panel:
    text = Text("Requests to the API", "Requests per second, by HTTP status.")
    rate = f"rate(cartesia_exporter_api_requests_total{{{ACCOUNT}}}{RATE})"
    panel = bar_panel(text, Query(f"sum by (code) ({rate})", "{{code}}"), unit="reqps")
    return panel.override_by_regexp("/^[45]/", [coloured(VERMILLION)])


def request_duration() -> timeseries.Panel:
    text = Text(
        "Request duration, retries, skipped polls",
        "99th percentile of the request duration (left). Retries (dashed), and polls skipped "
        "because the API asked to wait or refused the key (dotted), in each step (right).",
    )
    durations = f"rate(cartesia_exporter_api_request_duration_seconds_bucket{{{ACCOUNT}}}{RATE})"
    retries = f"sum(increase(cartesia_exporter_api_request_retries_total{{{ACCOUNT}}}{RATE}))"
    skipped = f"sum(increase(cartesia_exporter_polls_skipped_total{{{ACCOUNT}}}{RATE}))"
    quantile = Query(f"histogram_quantile(0.99, sum by (le) ({durations}))", "99 %")
    panel = line_panel(
        text, quantile, Query(retries, "retries"), Query(skipped, "skipped"), unit="s"
    )
    panel = panel.override_by_query("B", [dashed(10, 6), coloured(ORANGE), *_RIGHT_AXIS])
    return panel.override_by_query("C", [dashed(2, 6), coloured(GREY), *_RIGHT_AXIS])
