"""Initial tables.

Their constraints get their names from the naming convention of the schema.
"""

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_GENERATED_KEY: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _columns(of_type: type[Any], *names: str, primary_key: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, of_type, primary_key=primary_key, nullable=False) for name in names]


def _reference(name: str, table: str) -> sa.Column[int]:
    key = sa.ForeignKey(f"{table}.number")
    return sa.Column(name, sa.BigInteger, key, primary_key=True, autoincrement=False)


def _state_check() -> sa.CheckConstraint:
    states = "state IN ('pending', 'delivered', 'dead', 'discarded')"
    return sa.CheckConstraint(states, name="state")


def upgrade() -> None:
    """Create all tables."""
    _create_accounts()
    _create_counters()
    _create_deliveries()
    _create_messages()


def _create_accounts() -> None:
    op.create_table(
        "meta", *_columns(sa.Text, "name", primary_key=True), *_columns(sa.Text, "value")
    )
    op.create_table(
        "awake_clock",
        *_columns(sa.Text, "name", primary_key=True),
        *_columns(sa.Float, "seconds"),
    )
    op.create_table(
        "accounts",
        sa.Column("number", _GENERATED_KEY, primary_key=True),
        *_columns(sa.Text, "name", "base_url"),
        *_columns(sa.Float, "baseline_at"),
        *_columns(sa.BigInteger, "baselines"),
        *_columns(sa.Text, "key_fingerprint"),
        sa.UniqueConstraint("name", "base_url"),
    )
    op.create_table(
        "fine_tunes",
        _reference("account", "accounts"),
        *_columns(sa.Text, "id", primary_key=True),
        *_columns(sa.Text, "name", "description", "language", "model_id", "dataset", "status"),
        *_columns(sa.BigInteger, "sequence"),
        *_columns(sa.Float, "since"),
        *_columns(sa.Boolean, "since_seen", "exit_pending"),
        *_columns(sa.BigInteger, "missed_polls", "removals"),
        *_columns(sa.Boolean, "stuck", "configured_failure", "returned"),
    )
    op.create_table(
        "unknown_statuses",
        _reference("account", "accounts"),
        *_columns(sa.Text, "status", primary_key=True),
        *_columns(sa.BigInteger, "position"),
    )
    op.create_table(
        "label_values",
        _reference("account", "accounts"),
        *_columns(sa.Text, "label", "value", primary_key=True),
        *_columns(sa.BigInteger, "position"),
    )
    op.create_table("cursors", _reference("account", "accounts"), *_columns(sa.Text, "ids"))
    op.create_table(
        "poll_outages",
        *_columns(sa.Text, "name", "base_url", primary_key=True),
        *_columns(sa.Float, "since", "since_awake"),
        *_columns(sa.Boolean, "reported"),
    )


def _create_counters() -> None:
    op.create_table(
        "transitions",
        _reference("account", "accounts"),
        *_columns(sa.Text, "model_id", "from_status", "to_status", primary_key=True),
        *_columns(sa.BigInteger, "total"),
    )
    op.create_table(
        "removals",
        _reference("account", "accounts"),
        *_columns(sa.Text, "status", primary_key=True),
        *_columns(sa.BigInteger, "total"),
    )
    op.create_table(
        "status_durations",
        _reference("account", "accounts"),
        *_columns(sa.Text, "status", primary_key=True),
        *_columns(sa.Float, "bound", primary_key=True),
        *_columns(sa.BigInteger, "total"),
        *_columns(sa.Float, "seconds"),
    )


def _create_deliveries() -> None:
    op.create_table(
        "events",
        sa.Column("number", _GENERATED_KEY, primary_key=True),
        *_columns(sa.Text, "id", "type", "account"),
        *_columns(sa.Float, "observed_at", "observed_awake"),
        *_columns(sa.Text, "content", "subject"),
        sa.UniqueConstraint("id"),
        sa.Index("events_of_subject", "account", "subject", "number"),
        sa.Index("events_of_type", "type"),
    )
    op.create_table(
        "deliveries",
        _reference("event", "events"),
        *_columns(sa.Text, "receiver", primary_key=True),
        *_columns(sa.Text, "state"),
        *_columns(sa.Float, "queued_at", "queued_awake"),
        sa.Column("message", sa.Text),
        sa.Column("settled_at", sa.Float),
        sa.Column("settled_awake", sa.Float),
        _state_check(),
        sa.Index("deliveries_of_message", "receiver", "message"),
        sa.Index("deliveries_of_state", "receiver", "state", "settled_awake"),
    )


def _create_messages() -> None:
    op.create_table(
        "messages",
        *_columns(sa.Text, "receiver", "id", primary_key=True),
        *_columns(sa.Text, "state"),
        *_columns(sa.LargeBinary, "body"),
        *_columns(sa.BigInteger, "events"),
        *_columns(sa.Boolean, "minimal"),
        *_columns(sa.Float, "created_at"),
        *_columns(sa.BigInteger, "attempts", "turn"),
        *_columns(sa.Boolean, "in_flight", "unanswered"),
        sa.Column("last_attempt_at", sa.Float),
        *_columns(sa.Text, "last_result"),
        _state_check(),
        sa.Index("messages_of_state", "receiver", "state"),
    )
    op.create_table(
        "receivers",
        *_columns(sa.Text, "name", primary_key=True),
        *_columns(sa.BigInteger, "failures"),
        *_columns(sa.Float, "since", "since_awake"),
        *_columns(sa.Boolean, "open"),
        *_columns(sa.Text, "reason"),
        *_columns(sa.Float, "resume_at"),
        *_columns(sa.BigInteger, "retry_requests"),
    )
