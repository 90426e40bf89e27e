"""Alembic's door: migrations run on the connection that ``page.database`` hands over. Imports Alembic."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
