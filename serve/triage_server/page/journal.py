"""SQLite's journal, in which what was deleted would stay. Imports SQLAlchemy."""

from __future__ import annotations

import logging

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

log = logging.getLogger("triage_server")


def emptied(engine: Engine) -> bool:
    """Let what was deleted leave SQLite's journal too.

    Returns:
        Whether it has. The deletion is done in any case; the log says what is in the way.
    """
    if engine.dialect.name != "sqlite":
        return True
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    except SQLAlchemyError as error:
        why = getattr(error, "orig", None) or type(error).__name__  # of a pragma: it quotes nothing
        log.warning("what was deleted from the reading queue is still in its journal: %s", why)
        return False
    return True
