"""The dashboard as a whole: its variables, its rows, and the file that Grafana imports."""

import json
from typing import Any

from grafana_foundation_sdk.builders import dashboard as make
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from docs.generate.dashboard import fine_tunes, polls, process, receivers
from docs.generate.dashboard.panels import SOURCE

UID = "cartesia-fine-tunes"

ROWS = {
    "At a glance": (
        fine_tunes.there_are,
        fine_tunes.in_training,
        fine_tunes.have_failed,
        polls.not_readable,
        polls.oldest_data,
        receivers.owed,
    ),
    "Fine-tunes": (fine_tunes.by_status, fine_tunes.by_model, fine_tunes.models_and_statuses),
    "Failures": (fine_tunes.failures, fine_tunes.share_that_fails, fine_tunes.changes),
    "Time": (fine_tunes.time_in_training, fine_tunes.longest_under_way),
    "Polls": (polls.accounts, polls.age, polls.failed),
    "Requests to the API": (polls.time_of_a_poll, polls.requests, polls.time_of_a_request),
    "Receivers": (receivers.receivers, receivers.backlog, receivers.longest_wait),
    "Deliveries": (receivers.requests, receivers.failed, receivers.delay),
    "Agent": (
        process.version,
        process.failed_reloads,
        process.state_errors,
        process.state_file,
        process.memory,
        process.processor,
    ),
}


def document() -> str:
    """Return the file."""
    board = (
        make.Dashboard("Cartesia fine-tunes")
        .uid(UID)
        .description("Fine-tunes of Cartesia accounts, and the agent that watches them.")
        .tags(["cartesia", "prometheus"])
        .time("now-6h", "now")
        .refresh("1m")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .variables([_source(), _account(), _model()])
    )
    for title, panels in ROWS.items():
        board = board.with_row(make.Row(title))
        for panel in panels:
            board = board.with_panel(panel())
    content: dict[str, Any] = json.loads(JSONEncoder().encode(board.build()))
    for number, panel in enumerate(content["panels"], 1):
        panel["id"] = number
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _source() -> make.DatasourceVariable:
    return make.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _account() -> make.QueryVariable:
    return _of_label("account", "Account", "label_values(cartesia_up, account)")


def _model() -> make.QueryVariable:
    query = 'label_values(cartesia_fine_tune_transitions_total{account=~"$account"}, model_id)'
    return _of_label("model", "Model", query)


def _of_label(name: str, label: str, query: str) -> make.QueryVariable:
    # All is ".*" and not the list of values: it keeps the series that lack the label, as all do
    # whose agent does not split the counts by model.
    return (
        make.QueryVariable(name)
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
