"""The tables of the reading queue, and how they are opened and migrated.

Imports SQLAlchemy, Alembic, the database threads and the exceptions. SQLite in one file, or PostgreSQL by its
address.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    CheckConstraint,
    DateTime,
    Dialect,
    Engine,
    Float,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    create_engine,
    event,
    false,
    make_url,
    text,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

from lesion_triage.errors import ConfigError
from triage_server.page.database_threads import THREADS

POSTGRESQL = "postgresql+psycopg"
_MIGRATIONS = Path(__file__).with_name("migrations")
_PRAGMAS = {
    "journal_mode": "WAL",
    "synchronous": "FULL",
    "foreign_keys": "ON",
    "secure_delete": "ON",  # what was deleted is overwritten
    "busy_timeout": "10000",
}
_LIBPQ_TIMEOUTS = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
"""For libpq: seconds, except the last, in milliseconds. The address may override each."""
_ENCODING = "UTF8"
_SET_STATEMENT_TIMEOUT = (
    "SELECT set_config('statement_timeout', '10s', false) WHERE current_setting('statement_timeout') = '0'"
)
_SET_DATE_STYLE = "SET datestyle = ISO"  # psycopg reads no other, and a database may have one of its own
_SESSION_SETTINGS = (_SET_STATEMENT_TIMEOUT, _SET_DATE_STYLE)
"""Run after connecting: a connection pooler may refuse these options in the address."""


class UtcDateTime(TypeDecorator[datetime]):
    """UTC. SQLite has no time zones and would return a time without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From the database."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """All tables."""


class CaseRow(Base):
    """One case: what was sent, and what the system answered."""

    __tablename__ = "cases"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(String(9), unique=True)
    """Random; what people call the case."""
    person: Mapped[str] = mapped_column(String(16))
    """Random; the same for all cases said to be of one person."""
    arrived_at: Mapped[datetime] = mapped_column(UtcDateTime)
    caller: Mapped[str] = mapped_column(String(80))
    language: Mapped[str] = mapped_column(String(35))
    disposition: Mapped[str] = mapped_column(String(40))
    priority_band: Mapped[int]
    deadline_hours: Mapped[float | None] = mapped_column(Float)
    history: Mapped[str] = mapped_column(Text)
    """JSON of ``bundle.history``: numbers, yes or no, and names from closed lists."""
    follow_up_share: Mapped[float] = mapped_column(Float, server_default=text("0"))
    """Probability with which the case could be drawn: the setting when it arrived."""
    drawn: Mapped[bool] = mapped_column(server_default=false())
    """Whether it was drawn for follow-up. Nobody may be told before the case has been read."""

    answers: Mapped[list[AnswerRow]] = relationship(cascade="all, delete-orphan", passive_deletes=True)
    photographs: Mapped[list[PhotographRow]] = relationship(
        cascade="all, delete-orphan", passive_deletes=True, order_by="PhotographRow.position"
    )
    readings: Mapped[list[ReadingRow]] = relationship(
        cascade="all, delete-orphan", passive_deletes=True, order_by="ReadingRow.id"
    )
    outcomes: Mapped[list[OutcomeRow]] = relationship(
        cascade="all, delete-orphan", passive_deletes=True, order_by="OutcomeRow.id"
    )

    __table_args__ = (CheckConstraint("priority_band BETWEEN 1 AND 4", name="band"),)


class AnswerRow(Base):
    """The answer in one language, as it was given at the time."""

    __tablename__ = "answers"

    case_id: Mapped[int] = mapped_column(ForeignKey("cases.id", ondelete="CASCADE"), primary_key=True)
    language: Mapped[str] = mapped_column(String(35), primary_key=True)
    document: Mapped[str] = mapped_column(Text)


class PhotographRow(Base):
    """One photograph, stripped of metadata."""

    __tablename__ = "photographs"

    case_id: Mapped[int] = mapped_column(ForeignKey("cases.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    media_type: Mapped[str] = mapped_column(String(20))
    data: Mapped[bytes] = mapped_column(LargeBinary)


class ReadingRow(Base):
    """One reading. Never changed; the last one counts."""

    __tablename__ = "readings"

    id: Mapped[int] = mapped_column(primary_key=True)
    case_id: Mapped[int] = mapped_column(ForeignKey("cases.id", ondelete="CASCADE"))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    caller: Mapped[str] = mapped_column(String(80))
    reader: Mapped[str] = mapped_column(String(80))
    decision: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint("decision IN ('agree', 'override')", name="decision"),
        Index("ix_readings_case_id", "case_id"),
    )


class OutcomeRow(Base):
    """One outcome. Never changed; the last confirmed one counts."""

    __tablename__ = "outcomes"

    id: Mapped[int] = mapped_column(primary_key=True)
    case_id: Mapped[int] = mapped_column(ForeignKey("cases.id", ondelete="CASCADE"))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    caller: Mapped[str] = mapped_column(String(80))
    reader: Mapped[str] = mapped_column(String(80))
    needs_in_person: Mapped[bool | None]
    confirmed_by: Mapped[str] = mapped_column(String(30))

    __table_args__ = (Index("ix_outcomes_case_id", "case_id"),)


def open_database(address: str) -> Engine:
    """Open the database of a reading queue, whose tables must be at the current version.

    Args:
        address: path of an SQLite file, made if it is missing, readable by its owner alone; or the address of
            a PostgreSQL database, ``postgresql://...``.

    Raises:
        ConfigError: it cannot be reached, its tables are of an older version or of one newer than this
            program, or its encoding is not UTF-8.
            The message has no address, which may contain a password.
    """
    url = _parse_url(address)
    fresh = url.get_backend_name() == "sqlite" and _create_file(url)
    engine = _create_engine(url)
    try:
        if fresh:
            migrate(engine)
        found, expected = _current_revision(engine), _head_revision()
        _refuse_newer(found)
        if found != expected:
            raise ConfigError(
                f"The reading queue's tables are of version {found or 'none'}, expected {expected}: back up "
                "the database, then run `triage-server queue migrate`."
            )
    except SQLAlchemyError as error:
        engine.dispose()
        raise _unusable_error(error) from None
    except ConfigError:
        engine.dispose()
        raise
    return engine


def migrate_at(address: str) -> tuple[str | None, str]:
    """Migrate a database to the current version.

    Returns:
        The version found, None if there were no tables, and the version now.

    Raises:
        ConfigError: the database cannot be reached, is newer than this program, or its encoding is not UTF-8.
    """
    url = _parse_url(address)
    if url.get_backend_name() == "sqlite":
        _create_file(url)
    engine = _create_engine(url)
    try:
        found = _current_revision(engine)
        _refuse_newer(found)
        migrate(engine)
    except SQLAlchemyError as error:
        raise _unusable_error(error) from None
    finally:
        engine.dispose()
    return found, _head_revision()


def migrate(engine: Engine) -> None:
    """Migrate the tables to the current version in one transaction."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")  # a large table takes time
        else:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # sqlite3 begins none for CREATE and ALTER
        config = _alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _parse_url(address: str) -> URL:
    if "://" not in address:
        return URL.create("sqlite", database=str(Path(address).absolute()))
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.get_backend_name() not in ("postgresql", "sqlite"):
        raise ConfigError(
            "The reading queue's database type is not supported: expected the path of an SQLite file, or "
            "postgresql://user@host/name."
        )
    return url if url.get_backend_name() == "sqlite" else url.set(drivername=POSTGRESQL)


def _create_file(url: URL) -> bool:
    """Make the file of an SQLite database if there is none; returns whether it is still empty."""
    path = Path(url.database or "")
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            return os.fstat(handle).st_size == 0
        finally:
            os.close(handle)
    except OSError as error:
        raise ConfigError(
            f"{path}: the reading queue's database cannot be opened ({error.strerror}); expected a file, or "
            "a name in a folder that this program may write."
        ) from None


def _create_engine(url: URL) -> Engine:
    try:
        on_postgresql = url.get_backend_name() == "postgresql"
        timeouts = {
            name: value for name, value in _LIBPQ_TIMEOUTS.items() if on_postgresql and name not in url.query
        }
        encoding = {"client_encoding": _ENCODING} if on_postgresql else {}
        engine = create_engine(url, pool_size=THREADS, pool_pre_ping=True, connect_args=timeouts | encoding)
    except ImportError:
        raise ConfigError(
            f"The reading queue needs a driver for {url.get_backend_name()} that is not installed: "
            "install the extra [queue]; in a checkout: pip install '.[queue]'."
        ) from None
    except ArgumentError as error:
        raise ConfigError(f"The reading queue's database cannot be used ({type(error).__name__}).") from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_pragmas)
    else:
        event.listen(engine, "connect", _set_session_settings)
    return engine


def _set_pragmas(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for name, value in _PRAGMAS.items():
        cursor.execute(f"PRAGMA {name}={value}")
    cursor.close()


def _set_session_settings(connection: Any, _: object) -> None:
    for setting in _SESSION_SETTINGS:
        connection.execute(setting)
    connection.commit()


def _unusable_error(error: SQLAlchemyError) -> ConfigError:
    cause = getattr(error, "orig", None) or error
    return ConfigError(
        f"The reading queue's database cannot be used ({type(cause).__name__}); check that it exists, "
        "that this program may write it, and that it is a database."
    )


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_alembic_config())


def _head_revision() -> str:
    head = _scripts().get_current_head()
    assert head is not None
    return head


def _refuse_newer(found: str | None) -> None:
    """Refuse tables that a newer version has migrated: this one has no way back for them."""
    if found is not None and found not in {script.revision for script in _scripts().walk_revisions()}:
        raise ConfigError(
            f"The reading queue's tables are of version {found}, newer than this program, which knows "
            f"versions up to {_head_revision()}; nothing was changed. Install the version of the program "
            "that migrated them, or a newer one, or restore the backup made before."
        )


def _current_revision(engine: Engine) -> str | None:
    """Version of the tables; None: there are none.

    Raises:
        ConfigError: the database could not hold every name, and every reason for overriding.
    """
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
            if encoding != _ENCODING:
                raise ConfigError(
                    f"The reading queue's database has the encoding {encoding}, expected {_ENCODING}: make "
                    f"one with `createdb --encoding {_ENCODING} --template template0`, and copy the cases of "
                    "the old one, if any, with `pg_dump` and `psql`."
                )
        return MigrationContext.configure(connection).get_current_revision()
