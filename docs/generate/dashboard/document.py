"""The dashboard with its variables and rows, as the file that Grafana imports."""

import json
from typing import Any

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from docs.generate.dashboard import fine_tunes, polls, process, receivers
from docs.generate.dashboard.panels import SOURCE

UID = "cartesia-fine-tunes"

_WIDTH = 24
"""Width of Grafana's grid, which the panels of a row share."""

ROWS = {
    "At a glance": (
        fine_tunes.total,
        fine_tunes.in_training,
        fine_tunes.failed_in_range,
        polls.unreadable_accounts,
        polls.oldest_data,
        receivers.undelivered,
    ),
    "Fine-tunes": (fine_tunes.by_status, fine_tunes.by_model, fine_tunes.models_and_statuses),
    "Failures": (fine_tunes.failures, fine_tunes.failure_share, fine_tunes.transitions),
    "Time": (fine_tunes.time_in_training, fine_tunes.longest_active),
    "Polls": (polls.accounts, polls.data_age, polls.failed_polls),
    "Requests to the API": (polls.poll_duration, polls.requests, polls.request_duration),
    "Receivers": (
        receivers.receivers,
        receivers.backlog,
        receivers.held_back,
        receivers.longest_wait,
    ),
    "Deliveries": (receivers.requests, receivers.failed_requests, receivers.delivery_delay),
    "Replicas": (process.without_owner, process.owned),
    "Agent": (
        process.version,
        process.failed_reloads,
        process.state_errors,
        process.state_size,
        process.memory,
        process.processor,
    ),
}


def render() -> str:
    """Return the content of the file."""
    dashboard_builder = (
        builders.Dashboard("Cartesia fine-tunes")
        .uid(UID)
        .description("Cartesia fine-tunes, and the agent that watches them.")
        .tags(["cartesia", "prometheus"])
        .time("now-6h", "now")
        .refresh("1m")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .variables([_source_variable(), _account_variable(), _model_variable()])
    )
    for title, panels in ROWS.items():
        dashboard_builder = dashboard_builder.with_row(builders.Row(title))
        for panel in panels:
            sized = panel().span(_WIDTH // len(panels))
            dashboard_builder = dashboard_builder.with_panel(sized)
    content: dict[str, Any] = json.loads(JSONEncoder().encode(dashboard_builder.build()))
    for number, panel in enumerate(content["panels"], 1):
        panel["id"] = number
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _source_variable() -> builders.DatasourceVariable:
    return builders.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _account_variable() -> builders.QueryVariable:
    return _label_variable("account", "Account", "label_values(cartesia_up, account)")


def _model_variable() -> builders.QueryVariable:
    query = 'label_values(cartesia_fine_tune_transitions_total{account=~"$account"}, model_id)'
    return _label_variable("model", "Model", query)


def _label_variable(name: str, label: str, query: str) -> builders.QueryVariable:
    # "All" is ".*" and not the list of values: that would drop series without the label, which are
    # all series of an agent that does not split its counts by model.
    return (
        builders.QueryVariable(name)
        .label(label)
        .query(query)
        .datasource(SOURCE)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    )
