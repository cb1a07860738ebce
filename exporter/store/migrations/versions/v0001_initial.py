"""Initial tables.

Their constraints get their names from the naming convention of the schema.
"""

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TEXT: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_GENERATED_KEY: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _columns(of_type: Any, *names: str, primary_key: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, of_type, primary_key=primary_key, nullable=False) for name in names]


def _reference(name: str, table: str) -> sa.Column[int]:
    key = sa.ForeignKey(f"{table}.number")
    return sa.Column(name, sa.BigInteger, key, primary_key=True, autoincrement=False)


def _state_check(*states: str) -> sa.CheckConstraint:
    allowed = ", ".join(f"'{state}'" for state in (*states, "delivered", "dead", "discarded"))
    return sa.CheckConstraint(f"state IN ({allowed})", name="state")


def upgrade() -> None:
    """Create all tables."""
    _create_accounts()
    _create_counters()
    _create_mutes()
    _create_deliveries()
    _create_messages()
    _create_history()
    _create_replicas()


def _create_accounts() -> None:
    op.create_table("meta", *_columns(_TEXT, "name", primary_key=True), *_columns(_TEXT, "value"))
    op.create_table(
        "awake_clock",
        *_columns(_TEXT, "name", primary_key=True),
        *_columns(sa.Float, "seconds"),
        sa.Column("advanced_at", sa.DateTime(timezone=True)),
        sa.Column("runs_until", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "accounts",
        sa.Column("number", _GENERATED_KEY, primary_key=True),
        *_columns(_TEXT, "name", "base_url"),
        *_columns(sa.Float, "baseline_at", "read_at"),
        *_columns(sa.BigInteger, "baselines"),
        *_columns(_TEXT, "key_fingerprint"),
        sa.UniqueConstraint("name", "base_url"),
    )
    op.create_table(
        "fine_tunes",
        _reference("account", "accounts"),
        *_columns(_TEXT, "id", primary_key=True),
        *_columns(_TEXT, "name", "description", "language", "model_id", "dataset", "status"),
        *_columns(sa.BigInteger, "sequence"),
        *_columns(sa.Float, "since"),
        *_columns(sa.Boolean, "since_seen", "exit_pending"),
        *_columns(sa.BigInteger, "missed_polls", "removals"),
        *_columns(sa.Boolean, "stuck", "configured_failure", "returned"),
        *_columns(_TEXT, "search"),
        sa.Index("fine_tunes_by_since", "since", "account", "id"),
        sa.Index(
            "fine_tunes_by_status",
            *("account", "status", "configured_failure", "stuck", "missed_polls"),
        ),
        sa.Index("fine_tunes_of_dataset", "dataset", "account"),
    )
    op.create_table(
        "unknown_statuses",
        _reference("account", "accounts"),
        *_columns(_TEXT, "status", primary_key=True),
        *_columns(sa.BigInteger, "position"),
    )
    op.create_table(
        "label_values",
        _reference("account", "accounts"),
        *_columns(_TEXT, "label", "value", primary_key=True),
        *_columns(sa.BigInteger, "position"),
    )
    op.create_table("cursors", _reference("account", "accounts"), *_columns(_TEXT, "ids"))
    op.create_table(
        "poll_outages",
        *_columns(_TEXT, "name", "base_url", primary_key=True),
        *_columns(sa.Float, "since", "since_awake"),
        *_columns(sa.Boolean, "reported"),
        *_columns(_TEXT, "reason"),
    )


def _create_counters() -> None:
    op.create_table(
        "transitions",
        _reference("account", "accounts"),
        *_columns(_TEXT, "model_id", "from_status", "to_status", primary_key=True),
        *_columns(sa.BigInteger, "total"),
    )
    op.create_table(
        "removals",
        _reference("account", "accounts"),
        *_columns(_TEXT, "status", primary_key=True),
        *_columns(sa.BigInteger, "total"),
    )
    op.create_table(
        "status_durations",
        _reference("account", "accounts"),
        *_columns(_TEXT, "status", primary_key=True),
        *_columns(sa.Float, "bound", primary_key=True),
        *_columns(sa.BigInteger, "total"),
        *_columns(sa.Float, "seconds"),
    )


def _create_deliveries() -> None:
    op.create_table(
        "events",
        sa.Column("number", _GENERATED_KEY, primary_key=True),
        *_columns(_TEXT, "id", "type", "account"),
        *_columns(sa.Float, "observed_at", "observed_awake"),
        *_columns(_TEXT, "content", "subject"),
        *_columns(_TEXT, "name", "model_id", "dataset", "status", "search"),
        sa.UniqueConstraint("id"),
        sa.Index("events_of_subject", "account", "subject", "number"),
        sa.Index("events_of_type", "type", "observed_at", "account"),
        sa.Index("events_of_dataset", "dataset", "type", "observed_at", "account"),
    )
    op.create_table(
        "deliveries",
        _reference("event", "events"),
        *_columns(_TEXT, "receiver", primary_key=True),
        *_columns(_TEXT, "state"),
        *_columns(sa.Float, "queued_at", "due_awake"),
        *_columns(sa.Boolean, "groupable"),
        sa.Column("message", _TEXT),
        sa.Column("mute", sa.BigInteger, sa.ForeignKey("mutes.number")),
        sa.Column("settled_at", sa.Float),
        sa.Column("settled_awake", sa.Float),
        *_columns(_TEXT, "settled_by", "answer"),
        _state_check("pending", "muted"),
        sa.Index("deliveries_of_message", "receiver", "message"),
        sa.Index("deliveries_of_mute", "mute", "state"),
        sa.Index("deliveries_of_state", "receiver", "state", "settled_awake", "settled_at"),
    )


def _create_mutes() -> None:
    op.create_table(
        "mutes",
        sa.Column("number", _GENERATED_KEY, primary_key=True),
        *_columns(_TEXT, "id", "match", "account", "fine_tune"),
        *_columns(sa.Boolean, "until_recovered"),
        *_columns(_TEXT, "author", "reason"),
        *_columns(sa.Float, "created_at"),
        *_columns(sa.BigInteger, "after_event"),
        *_columns(sa.Float, "until_at"),
        sa.Column("until_awake", sa.Float),
        sa.Column("ended_at", sa.Float),
        *_columns(_TEXT, "ended_by"),
        sa.UniqueConstraint("id"),
        sa.Index("mutes_by_end", "ended_at"),
    )


def _create_messages() -> None:
    op.create_table(
        "messages",
        *_columns(_TEXT, "receiver", "id", primary_key=True),
        *_columns(_TEXT, "state"),
        *_columns(sa.LargeBinary, "body"),
        *_columns(sa.BigInteger, "events"),
        *_columns(sa.Boolean, "minimal"),
        *_columns(sa.Float, "created_at"),
        *_columns(sa.BigInteger, "attempts", "turn"),
        *_columns(sa.Boolean, "in_flight", "unanswered"),
        sa.Column("last_attempt_at", sa.Float),
        *_columns(_TEXT, "last_result"),
        _state_check("pending"),
        sa.Index("messages_of_state", "receiver", "state"),
    )
    op.create_table(
        "receivers",
        *_columns(_TEXT, "name", primary_key=True),
        *_columns(sa.BigInteger, "failures"),
        *_columns(sa.Float, "since", "since_awake"),
        *_columns(sa.Boolean, "open"),
        *_columns(_TEXT, "reason"),
        *_columns(sa.Float, "resume_at"),
        *_columns(sa.BigInteger, "retry_requests"),
        sa.Column("grouped_at", sa.Float),
        sa.Column("grouped_awake", sa.Float),
    )


def _create_history() -> None:
    op.create_table(
        "trainings",
        _reference("account", "accounts"),
        *_columns(_TEXT, "fine_tune", primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        *_columns(_TEXT, "model_id"),
        *_columns(sa.Float, "began_at", "ended_at"),
        sa.Column("seconds", sa.Float),
        *_columns(_TEXT, "ended_as"),
        sa.Index("trainings_of_model", "model_id", "ended_as", "ended_at"),
        sa.Index("trainings_by_end", "ended_at"),
    )
    op.create_table(
        "hourly_counts",
        _reference("account", "accounts"),
        sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
        *_columns(sa.BigInteger, "created", "training", "completed", "failed", "unknown"),
    )
    op.create_table(
        "outages",
        sa.Column("number", _GENERATED_KEY, primary_key=True),
        *_columns(_TEXT, "account", "base_url"),
        *_columns(sa.Float, "since", "until"),
        *_columns(_TEXT, "reason"),
        sa.Index("outages_by_end", "until"),
    )
    op.create_table(
        "attempts",
        sa.Column("number", _GENERATED_KEY, primary_key=True),
        *_columns(_TEXT, "receiver", "message"),
        *_columns(sa.Float, "at", "seconds"),
        *_columns(_TEXT, "outcome", "answer"),
        sa.Index("attempts_of_message", "receiver", "message", "number"),
        sa.Index("attempts_by_time", "at"),
    )
    op.create_table(
        "changes",
        *_columns(_TEXT, "process", primary_key=True),
        sa.Column("thread", sa.BigInteger, primary_key=True, autoincrement=False),
        *_columns(sa.BigInteger, "token"),
        *_columns(sa.Float, "at"),
    )


def _create_replicas() -> None:
    op.create_table(
        "replicas",
        *_columns(_TEXT, "id", primary_key=True),
        *_columns(_TEXT, "name", "version", "configuration"),
        *_columns(sa.DateTime(timezone=True), "renewed_at", "until"),
    )
    op.create_table(
        "ownership",
        *_columns(_TEXT, "kind", "name", primary_key=True),
        *_columns(_TEXT, "holder"),
        *_columns(sa.BigInteger, "term"),
        *_columns(_TEXT, "address"),
        *_columns(sa.BigInteger, "moves"),
    )
