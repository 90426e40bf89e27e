"""SQLite's journal, in which what was deleted would stay. Imports SQLAlchemy."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

_PATIENCE_MS = 250
"""Until then whoever wants to write waits too, so it is not the patience of a case."""

log = logging.getLogger("triage_server")


def empty(engine: Engine) -> None:
    """Let what was deleted leave SQLite's journal too.

    It stays there while another program reads the file, to make a copy for instance, and where the disk takes
    nothing. The log says so, and it is to be tried again; the deletion is done in any case.
    """
    if engine.dialect.name != "sqlite":
        return
    try:
        with engine.connect() as connection, _hurrying(connection):
            busy, *_ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
    except SQLAlchemyError as error:
        why = getattr(error, "orig", None) or type(error).__name__  # of a pragma: it quotes nothing
    else:
        if not busy:
            return
        why = "somebody reads the database"
    log.warning("what was deleted from the reading queue may still be in its file or journal: %s", why)


@contextmanager
def _hurrying(connection: Connection) -> Iterator[None]:
    """A connection that does not wait for long, and does again for whoever has it next."""
    usual = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
    connection.exec_driver_sql(f"PRAGMA busy_timeout={_PATIENCE_MS}")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout={usual}")
