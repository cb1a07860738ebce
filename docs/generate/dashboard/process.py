"""Panels about the process: version, errors and resources."""

from grafana_foundation_sdk.builders import stat, timeseries
from grafana_foundation_sdk.models import common

from docs.generate.dashboard.panels import RATE, Query, Text, line_panel, number_panel
from docs.generate.dashboard.style import ABOVE_ZERO

# Every exporter has metrics of a process with these names.
_OF_AGENTS = "and on (job, instance) cartesia_exporter_build_info"


def version() -> stat.Panel:
    text = Text("Version", "How many agents run it.")
    query = Query("count by (version) (cartesia_exporter_build_info)", "{{version}}")
    return number_panel(text, query).text_mode(common.BigValueTextMode.VALUE_AND_NAME)


def failed_reloads() -> stat.Panel:
    text = Text("Failed reloads", "Agents whose configuration could not be reloaded.")
    query = Query("sum(1 - cartesia_exporter_config_last_reload_successful)")
    return number_panel(text, query, above=ABOVE_ZERO)


def state_errors() -> stat.Panel:
    text = Text(
        "State errors",
        "Reads and writes of the state file that failed within the time of the dashboard.",
    )
    query = Query("round(sum(increase(cartesia_exporter_store_errors_total[$__range])))")
    return number_panel(text, query, above=ABOVE_ZERO)


def state_size() -> stat.Panel:
    text = Text("State file", "Its size, with the log that SQLite keeps beside it.")
    return number_panel(text, Query("sum(cartesia_exporter_store_size_bytes)"), unit="bytes")


def memory() -> stat.Panel:
    text = Text("Memory", "Of all agents.")
    return number_panel(
        text, Query(f"sum(process_resident_memory_bytes {_OF_AGENTS})"), unit="bytes"
    )


def processor() -> stat.Panel:
    text = Text("Processor", "Of all agents; 100 % is one core.")
    query = Query(f"sum(rate(process_cpu_seconds_total{RATE}) {_OF_AGENTS})")
    return number_panel(text, query, unit="percentunit")


def without_owner() -> stat.Panel:
    text = Text(
        "Without an owner",
        "Accounts and receivers that no replica owns. An agent with a state file owns all.",
    )
    unowned = "max by (store, kind, name) (cartesia_exporter_owner) == 0"
    return number_panel(text, Query(f"count({unowned}) or vector(0)"), above=ABOVE_ZERO)


def owned() -> timeseries.Panel:
    text = Text(
        "Owners", "Accounts and receivers that each replica owns, and the work of one agent."
    )
    return line_panel(text, Query("sum by (instance) (cartesia_exporter_owner)", "{{instance}}"))
