"""Alembic environment: runs revisions on the connection and in the transaction of the caller."""

from alembic import context

from exporter.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter most of a table: Alembic copies it
)
with context.begin_transaction():
    context.run_migrations()
