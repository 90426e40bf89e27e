"""Alembic's entry point: migrations use the connection of ``page.database``. Imports Alembic."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
