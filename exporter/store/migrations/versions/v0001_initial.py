"""Initial tables."""

from typing import Final

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
)

revision = "0001"
down_revision = None

_GENERATED_KEY: Final = BigInteger().with_variant(Integer, "sqlite")


def upgrade() -> None:
    """Create all tables."""
    _create_accounts()
    _create_counters()
    _create_polls()
    _create_deliveries()
    _create_messages()


def _create_accounts() -> None:
    op.create_table(
        "meta",
        Column("name", Text, nullable=False),
        Column("value", Text, nullable=False),
        PrimaryKeyConstraint("name", name=op.f("pk_meta")),
    )
    op.create_table(
        "accounts",
        Column("number", _GENERATED_KEY, nullable=False),
        Column("name", Text, nullable=False),
        Column("base_url", Text, nullable=False),
        Column("baseline_at", Float, nullable=False),
        PrimaryKeyConstraint("number", name=op.f("pk_accounts")),
        UniqueConstraint("name", "base_url", name=op.f("uq_accounts_name_base_url")),
    )
    op.create_table(
        "fine_tunes",
        Column("account", BigInteger, autoincrement=False, nullable=False),
        Column("id", Text, nullable=False),
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
        ForeignKeyConstraint(["account"], ["accounts.number"], name=op.f("fk_fine_tunes_account")),
        PrimaryKeyConstraint("account", "id", name=op.f("pk_fine_tunes")),
    )


def _create_counters() -> None:
    op.create_table(
        "transitions",
        Column("account", BigInteger, autoincrement=False, nullable=False),
        Column("model_id", Text, nullable=False),
        Column("from_status", Text, nullable=False),
        Column("to_status", Text, nullable=False),
        Column("total", BigInteger, nullable=False),
        ForeignKeyConstraint(["account"], ["accounts.number"], name=op.f("fk_transitions_account")),
        PrimaryKeyConstraint(
            "account", "model_id", "from_status", "to_status", name=op.f("pk_transitions")
        ),
    )
    op.create_table(
        "removals",
        Column("account", BigInteger, autoincrement=False, nullable=False),
        Column("status", Text, nullable=False),
        Column("total", BigInteger, nullable=False),
        ForeignKeyConstraint(["account"], ["accounts.number"], name=op.f("fk_removals_account")),
        PrimaryKeyConstraint("account", "status", name=op.f("pk_removals")),
    )
    op.create_table(
        "status_durations",
        Column("account", BigInteger, autoincrement=False, nullable=False),
        Column("status", Text, nullable=False),
        Column("bound", Float, nullable=False),
        Column("total", BigInteger, nullable=False),
        Column("seconds", Float, nullable=False),
        ForeignKeyConstraint(
            ["account"], ["accounts.number"], name=op.f("fk_status_durations_account")
        ),
        PrimaryKeyConstraint("account", "status", "bound", name=op.f("pk_status_durations")),
    )


def _create_polls() -> None:
    op.create_table(
        "label_values",
        Column("account", BigInteger, autoincrement=False, nullable=False),
        Column("label", Text, nullable=False),
        Column("value", Text, nullable=False),
        Column("position", BigInteger, nullable=False),
        ForeignKeyConstraint(
            ["account"], ["accounts.number"], name=op.f("fk_label_values_account")
        ),
        PrimaryKeyConstraint("account", "label", "value", name=op.f("pk_label_values")),
    )
    op.create_table(
        "cursors",
        Column("account", BigInteger, autoincrement=False, nullable=False),
        Column("ids", Text, nullable=False),
        ForeignKeyConstraint(["account"], ["accounts.number"], name=op.f("fk_cursors_account")),
        PrimaryKeyConstraint("account", name=op.f("pk_cursors")),
    )
    op.create_table(
        "poll_outages",
        Column("name", Text, nullable=False),
        Column("base_url", Text, nullable=False),
        Column("since", Float, nullable=False),
        PrimaryKeyConstraint("name", "base_url", name=op.f("pk_poll_outages")),
    )


def _create_deliveries() -> None:
    op.create_table(
        "events",
        Column("number", _GENERATED_KEY, nullable=False),
        Column("id", Text, nullable=False),
        Column("type", Text, nullable=False),
        Column("account", Text, nullable=False),
        Column("observed_at", Float, nullable=False),
        Column("content", Text, nullable=False),
        Column("subject", Text, nullable=False),
        PrimaryKeyConstraint("number", name=op.f("pk_events")),
        UniqueConstraint("id", name=op.f("uq_events_id")),
    )
    op.create_index("events_of_subject", "events", ["account", "subject", "number"])
    op.create_table(
        "deliveries",
        Column("event", BigInteger, autoincrement=False, nullable=False),
        Column("receiver", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("queued_at", Float, nullable=False),
        Column("message", Text),
        Column("settled_at", Float),
        CheckConstraint(
            "state IN ('pending', 'delivered', 'dead', 'discarded')",
            name=op.f("ck_deliveries_state"),
        ),
        ForeignKeyConstraint(["event"], ["events.number"], name=op.f("fk_deliveries_event")),
        PrimaryKeyConstraint("event", "receiver", name=op.f("pk_deliveries")),
    )
    op.create_index("deliveries_of_message", "deliveries", ["receiver", "message"])
    op.create_index("deliveries_of_state", "deliveries", ["receiver", "state", "settled_at"])


def _create_messages() -> None:
    op.create_table(
        "messages",
        Column("receiver", Text, nullable=False),
        Column("id", Text, nullable=False),
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
        CheckConstraint(
            "state IN ('pending', 'delivered', 'dead', 'discarded')", name=op.f("ck_messages_state")
        ),
        PrimaryKeyConstraint("receiver", "id", name=op.f("pk_messages")),
    )
    op.create_index("messages_of_state", "messages", ["receiver", "state"])
    op.create_table(
        "receivers",
        Column("name", Text, nullable=False),
        Column("failures", BigInteger, nullable=False),
        Column("since", Float, nullable=False),
        Column("open", Boolean, nullable=False),
        Column("reason", Text, nullable=False),
        Column("resume_at", Float, nullable=False),
        Column("retry_requests", BigInteger, nullable=False),
        PrimaryKeyConstraint("name", name=op.f("pk_receivers")),
    )
