"""Tables, constraints and indexes of the store."""

from typing import Final

import sqlalchemy as sa

metadata: Final = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

TEXT: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Text that both engines sort and compare by its bytes."""

# SQLite generates keys for a column of the type INTEGER only.
_GENERATED_KEY: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _reference(name: str, table: str) -> sa.Column[int]:
    key = sa.ForeignKey(f"{table}.number")
    return sa.Column(name, sa.BigInteger, key, primary_key=True, autoincrement=False)


def _state_check(*states: str) -> sa.CheckConstraint:
    allowed = ", ".join(f"'{state}'" for state in (*states, "delivered", "dead", "discarded"))
    return sa.CheckConstraint(f"state IN ({allowed})", name="state")


meta: Final = sa.Table(
    "meta",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("value", TEXT, nullable=False),
)

awake_clock: Final = sa.Table(
    "awake_clock",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("seconds", sa.Float, nullable=False),
    # Of the last advance by a replica: the clock runs from then on, until its lease ends at most.
    sa.Column("advanced_at", sa.DateTime(timezone=True)),
    sa.Column("runs_until", sa.DateTime(timezone=True)),
)
"""The counter of AwakeClock. Columns whose names end with ``_awake`` are times of it."""

accounts: Final = sa.Table(
    "accounts",
    metadata,
    sa.Column("number", _GENERATED_KEY, primary_key=True),
    sa.Column("name", TEXT, nullable=False),
    sa.Column("base_url", TEXT, nullable=False),
    sa.Column("baseline_at", sa.Float, nullable=False),
    sa.Column("read_at", sa.Float, nullable=False),
    sa.Column("baselines", sa.BigInteger, nullable=False),
    sa.Column("key_fingerprint", TEXT, nullable=False),
    sa.UniqueConstraint("name", "base_url"),
)

fine_tunes: Final = sa.Table(
    "fine_tunes",
    metadata,
    _reference("account", "accounts"),
    sa.Column("id", TEXT, primary_key=True),
    sa.Column("name", TEXT, nullable=False),
    sa.Column("description", TEXT, nullable=False),
    sa.Column("language", TEXT, nullable=False),
    sa.Column("model_id", TEXT, nullable=False),
    sa.Column("dataset", TEXT, nullable=False),
    sa.Column("status", TEXT, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("since_seen", sa.Boolean, nullable=False),
    sa.Column("exit_pending", sa.Boolean, nullable=False),
    sa.Column("missed_polls", sa.BigInteger, nullable=False),
    sa.Column("removals", sa.BigInteger, nullable=False),
    sa.Column("stuck", sa.Boolean, nullable=False),
    sa.Column("configured_failure", sa.Boolean, nullable=False),
    sa.Column("returned", sa.Boolean, nullable=False),
    sa.Column("search", TEXT, nullable=False),
    sa.Index("fine_tunes_by_since", "since", "account", "id"),
    sa.Index(
        "fine_tunes_by_status", "account", "status", "configured_failure", "stuck", "missed_polls"
    ),
    sa.Index("fine_tunes_of_dataset", "dataset", "account"),
)

unknown_statuses: Final = sa.Table(
    "unknown_statuses",
    metadata,
    _reference("account", "accounts"),
    sa.Column("status", TEXT, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
)

label_values: Final = sa.Table(
    "label_values",
    metadata,
    _reference("account", "accounts"),
    sa.Column("label", TEXT, primary_key=True),
    sa.Column("value", TEXT, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
)

transitions: Final = sa.Table(
    "transitions",
    metadata,
    _reference("account", "accounts"),
    sa.Column("model_id", TEXT, primary_key=True),
    sa.Column("from_status", TEXT, primary_key=True),
    sa.Column("to_status", TEXT, primary_key=True),
    sa.Column("total", sa.BigInteger, nullable=False),
)

removals: Final = sa.Table(
    "removals",
    metadata,
    _reference("account", "accounts"),
    sa.Column("status", TEXT, primary_key=True),
    sa.Column("total", sa.BigInteger, nullable=False),
)

status_durations: Final = sa.Table(
    "status_durations",
    metadata,
    _reference("account", "accounts"),
    sa.Column("status", TEXT, primary_key=True),
    sa.Column("bound", sa.Float, primary_key=True),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
)

cursors: Final = sa.Table(
    "cursors",
    metadata,
    _reference("account", "accounts"),
    sa.Column("ids", TEXT, nullable=False),
)

poll_outages: Final = sa.Table(
    "poll_outages",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("base_url", TEXT, primary_key=True),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("since_awake", sa.Float, nullable=False),
    sa.Column("reported", sa.Boolean, nullable=False),
    sa.Column("reason", TEXT, nullable=False),
)

events: Final = sa.Table(
    "events",
    metadata,
    sa.Column("number", _GENERATED_KEY, primary_key=True),
    sa.Column("id", TEXT, nullable=False),
    sa.Column("type", TEXT, nullable=False),
    sa.Column("account", TEXT, nullable=False),
    sa.Column("observed_at", sa.Float, nullable=False),
    sa.Column("observed_awake", sa.Float, nullable=False),
    sa.Column("content", TEXT, nullable=False),
    sa.Column("subject", TEXT, nullable=False),
    sa.Column("name", TEXT, nullable=False),
    sa.Column("model_id", TEXT, nullable=False),
    sa.Column("dataset", TEXT, nullable=False),
    sa.Column("status", TEXT, nullable=False),
    sa.Column("search", TEXT, nullable=False),
    sa.UniqueConstraint("id"),
    sa.Index("events_of_subject", "account", "subject", "number"),
    sa.Index("events_of_type", "type", "observed_at", "account"),
    sa.Index("events_of_dataset", "dataset", "type", "observed_at", "account"),
)

mutes: Final = sa.Table(
    "mutes",
    metadata,
    sa.Column("number", _GENERATED_KEY, primary_key=True),
    sa.Column("id", TEXT, nullable=False),
    sa.Column("match", TEXT, nullable=False),
    sa.Column("account", TEXT, nullable=False),
    sa.Column("fine_tune", TEXT, nullable=False),
    sa.Column("until_recovered", sa.Boolean, nullable=False),
    sa.Column("author", TEXT, nullable=False),
    sa.Column("reason", TEXT, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    # The last event of the fine-tune: a later one may end a mute that lasts until it recovers.
    sa.Column("after_event", sa.BigInteger, nullable=False, default=0),
    sa.Column("until_at", sa.Float, nullable=False),
    # Set by the agent when it sees the mute first: the stored awake clock may be a minute behind.
    sa.Column("until_awake", sa.Float),
    sa.Column("ended_at", sa.Float),
    sa.Column("ended_by", TEXT, nullable=False, default=""),
    sa.UniqueConstraint("id"),
    sa.Index("mutes_by_end", "ended_at"),
)

deliveries: Final = sa.Table(
    "deliveries",
    metadata,
    _reference("event", "events"),
    sa.Column("receiver", TEXT, primary_key=True),
    sa.Column("state", TEXT, nullable=False),
    sa.Column("queued_at", sa.Float, nullable=False),
    # From when it may be sent, as far as that is known: neither muted, nor held back.
    sa.Column("due_awake", sa.Float, nullable=False),
    sa.Column("groupable", sa.Boolean, nullable=False),
    sa.Column("message", TEXT),
    sa.Column("mute", sa.BigInteger, sa.ForeignKey("mutes.number")),
    sa.Column("settled_at", sa.Float),
    sa.Column("settled_awake", sa.Float),
    sa.Column("settled_by", TEXT, nullable=False, default=""),
    sa.Column("answer", TEXT, nullable=False, default=""),
    _state_check("pending", "muted"),
    sa.Index("deliveries_of_message", "receiver", "message"),
    sa.Index("deliveries_of_mute", "mute", "state"),
    sa.Index("deliveries_of_state", "receiver", "state", "settled_awake", "settled_at"),
)

messages: Final = sa.Table(
    "messages",
    metadata,
    sa.Column("receiver", TEXT, primary_key=True),
    sa.Column("id", TEXT, primary_key=True),
    sa.Column("state", TEXT, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("events", sa.BigInteger, nullable=False),
    sa.Column("minimal", sa.Boolean, nullable=False, default=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("attempts", sa.BigInteger, nullable=False, default=0),
    sa.Column("turn", sa.BigInteger, nullable=False),
    sa.Column("in_flight", sa.Boolean, nullable=False, default=False),
    sa.Column("unanswered", sa.Boolean, nullable=False, default=False),
    sa.Column("last_attempt_at", sa.Float),
    sa.Column("last_result", TEXT, nullable=False, default=""),
    _state_check("pending"),
    sa.Index("messages_of_state", "receiver", "state"),
)

receivers: Final = sa.Table(
    "receivers",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("failures", sa.BigInteger, nullable=False, default=0),
    sa.Column("since", sa.Float, nullable=False, default=0.0),
    sa.Column("since_awake", sa.Float, nullable=False, default=0.0),
    sa.Column("open", sa.Boolean, nullable=False, default=False),
    sa.Column("reason", TEXT, nullable=False, default=""),
    sa.Column("resume_at", sa.Float, nullable=False, default=0.0),
    sa.Column("retry_requests", sa.BigInteger, nullable=False, default=0),
    # When the last message about fine-tunes was created: its group interval begins then.
    sa.Column("grouped_at", sa.Float),
    sa.Column("grouped_awake", sa.Float),
)

trainings: Final = sa.Table(
    "trainings",
    metadata,
    _reference("account", "accounts"),
    sa.Column("fine_tune", TEXT, primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("model_id", TEXT, nullable=False),
    sa.Column("began_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float, nullable=False),
    sa.Column("seconds", sa.Float),
    sa.Column("ended_as", TEXT, nullable=False),
    sa.Index("trainings_of_model", "model_id", "ended_as", "ended_at"),
    sa.Index("trainings_by_end", "ended_at"),
)

hourly_counts: Final = sa.Table(
    "hourly_counts",
    metadata,
    _reference("account", "accounts"),
    sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("training", sa.BigInteger, nullable=False),
    sa.Column("completed", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("unknown", sa.BigInteger, nullable=False),
)

outages: Final = sa.Table(
    "outages",
    metadata,
    sa.Column("number", _GENERATED_KEY, primary_key=True),
    sa.Column("account", TEXT, nullable=False),
    sa.Column("base_url", TEXT, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("until", sa.Float, nullable=False),
    sa.Column("reason", TEXT, nullable=False),
    sa.Index("outages_by_end", "until"),
)

attempts: Final = sa.Table(
    "attempts",
    metadata,
    sa.Column("number", _GENERATED_KEY, primary_key=True),
    sa.Column("receiver", TEXT, nullable=False),
    sa.Column("message", TEXT, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("outcome", TEXT, nullable=False),
    sa.Column("answer", TEXT, nullable=False),
    sa.Index("attempts_of_message", "receiver", "message", "number"),
    sa.Index("attempts_by_time", "at"),
)

changes: Final = sa.Table(
    "changes",
    metadata,
    sa.Column("process", TEXT, primary_key=True),
    sa.Column("thread", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("token", sa.BigInteger, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)
"""A random token for the last commit of each thread. Only PostgreSQL has rows here: SQLite
counts commits itself."""

replicas: Final = sa.Table(
    "replicas",
    metadata,
    sa.Column("id", TEXT, primary_key=True),
    sa.Column("name", TEXT, nullable=False),
    sa.Column("version", TEXT, nullable=False),
    # Equal for replicas with the same accounts and receivers, which share them.
    sa.Column("configuration", TEXT, nullable=False),
    sa.Column("renewed_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("until", sa.DateTime(timezone=True), nullable=False),
)
"""The agents that use a database of PostgreSQL, by a random id of the process; each is alive until
its lease ends. Times are of the database's clock."""

ownership: Final = sa.Table(
    "ownership",
    metadata,
    sa.Column("kind", TEXT, primary_key=True),
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("holder", TEXT, nullable=False),
    sa.Column("term", sa.BigInteger, nullable=False),
    # Of the last holder, and how often it was another one than before.
    sa.Column("address", TEXT, nullable=False),
    sa.Column("moves", sa.BigInteger, nullable=False),
)
"""Which replica owns an account, a receiver or the work of one agent. Written at takeovers only;
the term only grows. Only PostgreSQL has rows here: a state file has one agent."""

CARRIES: Final = sa.and_(
    deliveries.c.receiver == messages.c.receiver, deliveries.c.message == messages.c.id
)
"""Whether a row of ``messages`` carries the delivery of a row of ``deliveries``."""

CARRIES_NOTHING: Final = ~sa.select(deliveries.c.event).where(CARRIES).exists()
"""Whether a row of ``messages`` carries no delivery."""
