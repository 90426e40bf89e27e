"""The page: a reading queue in the browser, switched off unless the operator names a database for it.

Imports the bundle, the server's modules, Jinja2, SQLAlchemy and Alembic. Outside, only ``app`` imports it,
if it is switched on, and ``triage-server queue``, when it runs.
"""
