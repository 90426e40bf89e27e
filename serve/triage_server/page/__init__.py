"""The page: a reading queue in the browser, off unless the operator names a database for it.

Imports the bundle, the rooms of the server, Jinja2, SQLAlchemy and Alembic; nothing outside imports it but
``app``, which does so only when the page is switched on.
"""
