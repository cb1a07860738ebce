"""The tables as the newest migration leaves them."""

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

accounts = Table(
    "accounts",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("base_url", Text, nullable=False),
    Column("baseline_at", Float, nullable=False),
)


def _account() -> Column[int]:
    return Column("account", Integer, ForeignKey("accounts.number"), primary_key=True)


fine_tunes = Table(
    "fine_tunes",
    metadata,
    _account(),
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("model_id", Text, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("since", Float, nullable=False),
    Column("since_seen", Boolean, nullable=False),
    Column("exit_pending", Boolean, nullable=False),
    Column("missed_polls", Integer, nullable=False),
    Column("removals", Integer, nullable=False),
    Column("stuck", Boolean, nullable=False),
)

poll_outages = Table(
    "poll_outages",
    metadata,
    Column("name", Text, primary_key=True),
    Column("base_url", Text, primary_key=True),
    Column("since", Float, nullable=False),
)

label_values = Table(
    "label_values",
    metadata,
    _account(),
    Column("label", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    Column("position", Integer, nullable=False),
)

transitions = Table(
    "transitions",
    metadata,
    _account(),
    Column("model_id", Text, primary_key=True),
    Column("from_status", Text, primary_key=True),
    Column("to_status", Text, primary_key=True),
    Column("total", Integer, nullable=False),
)

removals = Table(
    "removals",
    metadata,
    _account(),
    Column("status", Text, primary_key=True),
    Column("total", Integer, nullable=False),
)

stays = Table(
    "stays",
    metadata,
    _account(),
    Column("status", Text, primary_key=True),
    Column("bound", Float, primary_key=True),
    Column("total", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
)

cursors = Table(
    "cursors",
    metadata,
    _account(),
    Column("ids", Text, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("observed_at", Float, nullable=False),
    Column("content", Text, nullable=False),
    Column("subject", Text, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("event", Integer, ForeignKey("events.number"), primary_key=True),
    Column("receiver", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("owed_since", Float, nullable=False),
    Column("message", Text),
    Column("settled_at", Float),
)

messages = Table(
    "messages",
    metadata,
    Column("receiver", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("events", Integer, nullable=False),
    Column("minimal", Boolean, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("turn", Integer, nullable=False),
    Column("in_flight", Boolean, nullable=False),
    Column("unanswered", Boolean, nullable=False),
    Column("last_attempt_at", Float),
    Column("last_result", Text, nullable=False),
)

receivers = Table(
    "receivers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("since", Float, nullable=False),
    Column("open", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("resume_at", Float, nullable=False),
    Column("retry_requests", Integer, nullable=False),
)
