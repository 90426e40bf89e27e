"""SQLite's journal (write-ahead log), where deleted data would remain. Imports SQLAlchemy."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

_BUSY_TIMEOUT_MS = 250
"""Other writers wait as long, so it is much shorter than the usual busy timeout."""

log = logging.getLogger("triage_server")


def empty_journal(engine: Engine) -> None:
    """Remove deleted data from SQLite's journal too.

    Data remains there while another program reads the file, for a backup for instance, or if the disk cannot
    be written. Then the log says so, and this must be called again; the deletion itself is done in any case.
    """
    if engine.dialect.name != "sqlite":
        return
    try:
        with engine.connect() as connection, _short_busy_timeout(connection):
            busy, *_ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
    except SQLAlchemyError as error:
        why = getattr(error, "orig", None) or type(error).__name__  # of a pragma, so it quotes no data
    else:
        if not busy:
            return
        why = "another program is reading the database"
    log.warning("what was deleted from the reading queue may still be in its file or journal: %s", why)


@contextmanager
def _short_busy_timeout(connection: Connection) -> Iterator[None]:
    """Shorten the connection's busy timeout, and restore it for its next user."""
    usual = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
    connection.exec_driver_sql(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout={usual}")
