"""What the reading queue stores and deletes. Imports the tables, the lists and the bundle's documents.

Every method is one transaction and blocks: call it on a thread. Readings and outcomes are only
appended. A case that nobody has read cannot be deleted, by hand or by age.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Engine, Select, false, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, selectinload

from lesion_triage.bundle.history import History, history_to_text
from lesion_triage.bundle.metadata_stripping import media_type
from lesion_triage.bundle.schema import Answer
from triage_server.page import lists, sqlite_journal
from triage_server.page.database import (
    AnswerRow,
    CaseRow,
    OutcomeRow,
    PhotographRow,
    ReadingRow,
)
from triage_server.page.database_threads import is_abandoned, queue_unavailable
from triage_server.page.lists import ListPage
from triage_server.page.reading_order import Urgency
from triage_server.page.records import (
    Actor,
    ConfirmedBy,
    Decision,
    ListedCase,
    QueuedCase,
    QueueDepth,
    ReadCase,
)
from triage_server.problems import RequestError

_RANDOM = secrets.SystemRandom()
"""Of the operating system: whoever knows earlier draws cannot foretell the next."""
_NUMBER_ALPHABET = "23456789BCDFGHJKMNPQRSTVWXYZ"
"""Letters of case numbers: none that is mistaken for another, and no vowel, so that none spells a word."""
CASE_NUMBER = re.compile(f"[{_NUMBER_ALPHABET}]{{4}}-[{_NUMBER_ALPHABET}]{{4}}")
_BETWEEN_LETTERS = re.compile(r"[\s\-\u2010-\u2015\u2212]+")
"""White space, hyphens and dashes: people type some, none or others, and text processors put in their own."""
_BEGIN_SNAPSHOT = {
    "sqlite": "BEGIN",  # sqlite3 begins no transaction for SELECT
    "postgresql": "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
}
"""By dialect, the first statement of a transaction whose queries all see the same moment."""


def parse_number(typed: str) -> str:
    """A case's number as it was typed, as it is stored; what cannot be a number is of no case."""
    letters = _BETWEEN_LETTERS.sub("", typed).upper()
    return f"{letters[:4]}-{letters[4:]}"


class ReadingQueue:
    """The reading queue in its database."""

    def __init__(
        self,
        engine: Engine,
        keep_days: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        follow_up_share: float = 0.0,
    ) -> None:
        self._engine, self._keep_for, self.now = engine, timedelta(days=keep_days), clock
        self._follow_up_share = follow_up_share
        self._readability = lists.ReadabilityCache()

    def draw_number(self) -> str:
        """A random number that no case has."""
        with self._session() as session:
            return _new_number(session)

    def add(
        self,
        number: str,
        answers: Sequence[Answer],
        photographs: Sequence[bytes],
        history: History,
        caller: str,
        same_person_as: str | None = None,
    ) -> None:
        """Put a case into the queue, and draw for follow-up, whatever the case is and how it was answered.

        A person is drawn as a whole: a later case is drawn if the earlier one was. Otherwise a certificate
        that counts patients would see only some of their misses.

        Args:
            number: drawn for it.
            answers: the same answer in several languages, the sender's first.
            photographs: stripped, in the order sent.
            history: as given.
            caller: who sent it.
            same_person_as: number of an earlier case of the same person; None: not given.

        Raises:
            RequestError: there is no such earlier case, or the database cannot be used.
        """
        first = answers[0]
        with self._session() as session:
            person, share = secrets.token_hex(8), self._follow_up_share
            drawn = _RANDOM.random() < share
            if same_person_as is not None:
                earlier = session.scalar(select(CaseRow).where(_has_number(same_person_as)))
                if earlier is None:
                    raise RequestError("earlier_case_not_found")
                person = earlier.person
                if earlier.follow_up_share > 0:
                    share, drawn = earlier.follow_up_share, earlier.drawn
            row = CaseRow(
                number=number,
                person=person,
                arrived_at=self.now(),
                caller=caller,
                language=first.language,
                disposition=first.disposition.value,
                priority_band=first.priority_band,
                deadline_hours=first.deadline_hours,
                history=history_to_text(history),
                follow_up_share=share,
                drawn=drawn,
                answers=[AnswerRow(language=one.language, document=one.model_dump_json()) for one in answers],
                photographs=[
                    PhotographRow(position=position, media_type=media_type(data), data=data)
                    for position, data in enumerate(photographs)
                ],
            )
            session.add(row)

    def waiting_cases(self, page_number: int = 1) -> tuple[ListPage[ListedCase], str]:
        """A page of the unread cases, in reading order, and ``pulse`` of the whole queue."""
        with self._session() as session:
            return lists.waiting_cases(session, self.now(), self._readability, page_number)

    def depth(self) -> QueueDepth:
        """How many cases wait now."""
        with self._session() as session:
            return lists.queue_depth(session, self.now())

    def newest_arrival(self) -> datetime | None:
        """When the newest case arrived, by the clock of then; None: there is no case."""
        with self._session() as session:
            return session.scalar(select(func.max(CaseRow.arrived_at)))

    def read_cases(self, page_number: int = 1) -> ListPage[ReadCase]:
        """A page of the read cases: without an outcome first, then by time of the last reading."""
        with self._session() as session:
            return lists.read_cases(session, page_number)

    def known_outcomes(self) -> Mapping[str, tuple[int, int]]:
        """By disposition: read cases with a known outcome, and all read cases."""
        with self._session() as session:
            return lists.known_outcomes(session)

    def drawn_outcomes(self) -> tuple[int, int]:
        """Of the read cases that were drawn for follow-up: those with a known outcome, and all."""
        with self._session() as session:
            return lists.drawn_outcomes(session)

    def read_cases_with_sizes(self) -> list[tuple[str, int]]:
        """All read cases in order of arrival: number, and bytes of the photographs."""
        size = func.coalesce(func.sum(func.length(PhotographRow.data)), 0)
        wanted = (
            select(CaseRow.number, size)
            .outerjoin(PhotographRow, PhotographRow.case_id == CaseRow.id)
            .where(lists.is_read())
            .group_by(CaseRow.id)
            .order_by(CaseRow.id)
        )
        with self._session() as session:
            return [(number, int(size_bytes)) for number, size_bytes in session.execute(wanted)]

    def read_cases_with_photographs(
        self, numbers: Sequence[str], has_photographs: Callable[[QueuedCase], bool]
    ) -> list[tuple[QueuedCase, list[bytes]]]:
        """Several read cases, all as they are at one moment, by as many queries as one case takes.

        Args:
            numbers: of some hundreds of cases at most; one that no longer exists is left out.
            has_photographs: which of them come with their photographs, in the order sent; the others come
                with none.

        Returns:
            In order of arrival.
        """
        with self._session() as session:
            session.connection().exec_driver_sql(_BEGIN_SNAPSHOT[self._engine.dialect.name])
            rows = session.scalars(
                _select_cases().where(CaseRow.number.in_(numbers), lists.is_read()).order_by(CaseRow.id)
            )
            cases = [(_case_from_row(row), row.id) for row in rows]
            photographs: dict[int, list[bytes]] = {key: [] for case, key in cases if has_photographs(case)}
            wanted = (
                select(PhotographRow.case_id, PhotographRow.data)
                .where(PhotographRow.case_id.in_(photographs))
                .order_by(PhotographRow.case_id, PhotographRow.position)
            )
            for key, data in session.execute(wanted):
                photographs[key].append(data)
            return [(case, photographs.get(key, [])) for case, key in cases]

    def find_or_none(self, number: str) -> QueuedCase | None:
        """One case; None: no case has this number."""
        with self._session() as session:
            row = session.scalar(_select_cases().where(_has_number(number)))
            return None if row is None else _case_from_row(row)

    def find(self, number: str) -> QueuedCase:
        """One case.

        Raises:
            RequestError: no case has this number.
        """
        if (case := self.find_or_none(number)) is None:
            raise RequestError("not_found")
        return case

    def find_with_others(self, number: str) -> tuple[QueuedCase, list[QueuedCase], list[QueuedCase]]:
        """One case, the newer ones of the same person and the older ones, each newest first.

        As many queries as ``find``.

        Raises:
            RequestError: no case has this number.
        """
        person = select(CaseRow.person).where(_has_number(number)).scalar_subquery()
        wanted = _select_cases().where(CaseRow.person == person).order_by(CaseRow.id.desc())
        with self._session() as session:
            cases = [_case_from_row(row) for row in session.scalars(wanted)]
        position = next((place for place, case in enumerate(cases) if case.number == number), None)
        if position is None:
            raise RequestError("not_found")
        return cases[position], cases[:position], cases[position + 1 :]

    def photograph(self, number: str, position: int) -> tuple[str, bytes]:
        """Media type and bytes of one photograph.

        Raises:
            RequestError: there is none.
        """
        wanted = (
            select(PhotographRow)
            .join(CaseRow, CaseRow.id == PhotographRow.case_id)
            .where(_has_number(number), PhotographRow.position == position)
        )
        with self._session() as session:
            row = session.scalar(wanted)
            if row is None:
                raise RequestError("not_found")
            return row.media_type, row.data

    def record_reading(
        self, number: str, actor: Actor, decision: Decision, reason: str, readings_seen: int
    ) -> None:
        """Record a reading and its decision.

        Args:
            number: of the case.
            actor: who read it.
            decision: what was decided.
            reason: why, in the reader's words.
            readings_seen: how many readings the case had when it was shown to the reader.

        Raises:
            RequestError: somebody else has read it since, perhaps at another server with this database; or
                there is no such case.
        """
        with self._session() as session:
            _lock_case(session, number)
            case = _load_case(session, number)
            if len(case.readings) != readings_seen:
                raise RequestError("read_meanwhile")
            case.readings.append(
                ReadingRow(
                    at=self.now(), caller=actor.caller, reader=actor.reader, decision=decision, reason=reason
                )
            )

    def record_outcome(
        self,
        number: str,
        actor: Actor,
        needs_in_person: bool | None,
        confirmed_by: ConfirmedBy,
        outcomes_seen: int,
    ) -> None:
        """Record an outcome; the last one counts.

        Args:
            number: of the case.
            actor: who records it.
            needs_in_person: what turned out; None: not known.
            confirmed_by: how it is known.
            outcomes_seen: how many outcomes the case had when it was shown to the reader.

        Raises:
            RequestError: an outcome was recorded since, perhaps at another server with this database; the
                case has not been read; or there is no such case.
        """
        with self._session() as session:
            _lock_case(session, number)
            case = _load_case(session, number)
            if not case.readings:
                raise RequestError("not_read_yet")
            if len(case.outcomes) != outcomes_seen:
                raise RequestError("outcome_meanwhile")
            case.outcomes.append(
                OutcomeRow(
                    at=self.now(),
                    caller=actor.caller,
                    reader=actor.reader,
                    needs_in_person=needs_in_person,
                    confirmed_by=confirmed_by,
                )
            )

    def delete(self, number: str, records_seen: int | None = None) -> None:
        """Delete a case with its photographs, and empty the journal if nobody reads the file.

        Args:
            number: of the case.
            records_seen: how many readings and outcomes the case had when it was shown to the reader; None:
                whatever was recorded since is deleted too.

        Raises:
            RequestError: something was recorded since, perhaps at another server with this database; the case
                has not been read; or there is no such case.
        """
        with self._session() as session:
            _lock_case(session, number)
            case = _load_case(session, number)
            if not case.readings:
                raise RequestError("not_read_yet")
            if records_seen not in (None, len(case.readings) + len(case.outcomes)):
                raise RequestError("read_meanwhile")
            session.delete(case)
        self.empty_journal()

    def is_expired(self, number: str) -> bool:
        """Whether a case is among ``expired_numbers``."""
        with self._session() as session:
            wanted = select(CaseRow.id).where(_has_number(number), *self._expired_conditions())
            return session.scalar(wanted) is not None

    def delete_expired_case(self, number: str) -> bool:
        """Delete one expired case, if it still is. Call ``empty_journal`` after the last of them."""
        with self._session() as session:
            _lock_case(session, number)  # or what another server records meanwhile would be deleted unseen
            case = session.scalar(_select_cases().where(_has_number(number), *self._expired_conditions()))
            if case is not None:
                session.delete(case)
            return case is not None

    def empty_journal(self) -> None:
        """Remove deleted data from SQLite's journal; the log says what prevents it."""
        sqlite_journal.empty_journal(self._engine)

    def expired_numbers(self) -> list[str]:
        """Numbers of read cases whose last reading and last outcome are older than cases are kept."""
        wanted = select(CaseRow.number).where(*self._expired_conditions())
        with self._session() as session:
            return list(session.scalars(wanted))

    def _expired_conditions(self) -> tuple[ColumnElement[bool], ...]:
        latest_reading = select(func.max(ReadingRow.at)).where(ReadingRow.case_id == CaseRow.id)
        latest_outcome = select(func.max(OutcomeRow.at)).where(OutcomeRow.case_id == CaseRow.id)
        limit = self.now() - self._keep_for
        return (
            latest_reading.scalar_subquery() < limit,
            func.coalesce(latest_outcome.scalar_subquery() < limit, True),
        )

    def pulse(self) -> str:
        """Fingerprint of the queue; changes with the reading order, and when a deadline passes."""
        with self._session() as session:
            now = self.now()
            return lists.fingerprint_of(lists.reading_order(session, now, self._readability), now)

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        try:
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                yield session
                session.flush()
                if is_abandoned():  # the request was told that nothing was stored
                    raise queue_unavailable()
        except SQLAlchemyError:
            # The exception's text may quote data.
            raise queue_unavailable() from None


def _new_number(session: Session) -> str:
    while True:
        letters = "".join(secrets.choice(_NUMBER_ALPHABET) for _ in range(8))
        number = f"{letters[:4]}-{letters[4:]}"
        if session.scalar(select(CaseRow.id).where(CaseRow.number == number)) is None:
            return number


def _select_cases() -> Select[CaseRow]:
    photographs = selectinload(CaseRow.photographs).load_only(
        PhotographRow.position, PhotographRow.media_type
    )
    return select(CaseRow).options(
        photographs,
        selectinload(CaseRow.answers),
        selectinload(CaseRow.readings),
        selectinload(CaseRow.outcomes),
    )


def _has_number(number: str) -> ColumnElement[bool]:
    """Condition: of this number. An impossible one is not sent to the database: PostgreSQL refuses a NUL."""
    return CaseRow.number == number if CASE_NUMBER.fullmatch(number) else false()


def _lock_case(session: Session, number: str) -> None:
    """Lock the row against other servers, by an update without effect."""
    session.execute(update(CaseRow).where(_has_number(number)).values(number=CaseRow.number))


def _load_case(session: Session, number: str) -> CaseRow:
    row = session.scalar(_select_cases().where(_has_number(number)))
    if row is None:
        raise RequestError("not_found")
    return row


def _case_from_row(row: CaseRow) -> QueuedCase:
    case = QueuedCase(
        number=row.number,
        urgency=Urgency(row.priority_band, row.arrived_at, row.deadline_hours),
        documents={one.language: one.document for one in row.answers},
        first_language=row.language,
        person=row.person,
        disposition=row.disposition,
        history_json=row.history,
        photographs=tuple(one.media_type for one in row.photographs),
        readings=tuple(lists.reading_of(one) for one in row.readings),
        outcomes=tuple(lists.outcome_of(one) for one in row.outcomes),
        follow_up_share=row.follow_up_share,
        drawn=row.drawn,
    )
    return case if case.answers is not None else replace(case, urgency=replace(case.urgency, readable=False))
