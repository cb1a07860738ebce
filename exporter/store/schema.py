"""Tables, constraints and indexes of the store."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

# SQLite generates keys for a column of the type INTEGER only.
_GeneratedKey: Final = BigInteger().with_variant(Integer, "sqlite")


def _account_column() -> Column[int]:
    return Column(
        "account",
        BigInteger,
        ForeignKey("accounts.number"),
        primary_key=True,
        autoincrement=False,
    )


def _state_check() -> CheckConstraint:
    return CheckConstraint("state IN ('pending', 'delivered', 'dead', 'discarded')", name="state")


meta: Final = Table(
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

accounts: Final = Table(
    "accounts",
    metadata,
    Column("number", _GeneratedKey, primary_key=True),
    Column("name", Text, nullable=False),
    Column("base_url", Text, nullable=False),
    Column("baseline_at", Float, nullable=False),
    UniqueConstraint("name", "base_url"),
)

fine_tunes: Final = Table(
    "fine_tunes",
    metadata,
    _account_column(),
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("model_id", Text, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("since", Float, nullable=False),
    Column("since_seen", Boolean, nullable=False),
    Column("exit_pending", Boolean, nullable=False),
    Column("missed_polls", BigInteger, nullable=False),
    Column("removals", BigInteger, nullable=False),
    Column("stuck", Boolean, nullable=False),
)

label_values: Final = Table(
    "label_values",
    metadata,
    _account_column(),
    Column("label", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
)

transitions: Final = Table(
    "transitions",
    metadata,
    _account_column(),
    Column("model_id", Text, primary_key=True),
    Column("from_status", Text, primary_key=True),
    Column("to_status", Text, primary_key=True),
    Column("total", BigInteger, nullable=False),
)

removals: Final = Table(
    "removals",
    metadata,
    _account_column(),
    Column("status", Text, primary_key=True),
    Column("total", BigInteger, nullable=False),
)

status_durations: Final = Table(
    "status_durations",
    metadata,
    _account_column(),
    Column("status", Text, primary_key=True),
    Column("bound", Float, primary_key=True),
    Column("total", BigInteger, nullable=False),
    Column("seconds", Float, nullable=False),
)

cursors: Final = Table(
    "cursors",
    metadata,
    _account_column(),
    Column("ids", Text, nullable=False),
)

poll_outages: Final = Table(
    "poll_outages",
    metadata,
    Column("name", Text, primary_key=True),
    Column("base_url", Text, primary_key=True),
    Column("since", Float, nullable=False),
)

events: Final = Table(
    "events",
    metadata,
    Column("number", _GeneratedKey, primary_key=True),
    Column("id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("observed_at", Float, nullable=False),
    Column("content", Text, nullable=False),
    Column("subject", Text, nullable=False),
    UniqueConstraint("id"),
    Index("events_of_subject", "account", "subject", "number"),
)

deliveries: Final = Table(
    "deliveries",
    metadata,
    Column("event", BigInteger, ForeignKey("events.number"), primary_key=True, autoincrement=False),
    Column("receiver", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("queued_at", Float, nullable=False),
    Column("message", Text),
    Column("settled_at", Float),
    _state_check(),
    Index("deliveries_of_message", "receiver", "message"),
    Index("deliveries_of_state", "receiver", "state", "settled_at"),
)

messages: Final = Table(
    "messages",
    metadata,
    Column("receiver", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("minimal", Boolean, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("turn", BigInteger, nullable=False),
    Column("in_flight", Boolean, nullable=False),
    Column("unanswered", Boolean, nullable=False),
    Column("last_attempt_at", Float),
    Column("last_result", Text, nullable=False),
    _state_check(),
    Index("messages_of_state", "receiver", "state"),
)

receivers: Final = Table(
    "receivers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("failures", BigInteger, nullable=False),
    Column("since", Float, nullable=False),
    Column("open", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("resume_at", Float, nullable=False),
    Column("retry_requests", BigInteger, nullable=False),
)
