"""What Alembic runs: the migrations, in the transaction of `schema.upgrade`."""

from alembic import context

from gateway.account.database.tables import metadata

# `alembic revision --autogenerate` is not used: a migration is short, and says what it adds.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # SQLite too: engine.py begins its transactions itself
)
with context.begin_transaction():
    context.run_migrations()
