"""The lists that the page shows, from columns alone. Imports the tables, the reading order and the records.

One stored answer that this version cannot read must not hide all other cases. So answers are parsed only to
be shown, and once to learn whether they can be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Generic, TypeVar, cast

from sqlalchemy import ColumnElement, Select, exists, func, or_, select
from sqlalchemy.orm import Session

from lesion_triage.bundle.schema import Disposition
from triage_server.page.database import AnswerRow, CaseRow, OutcomeRow, ReadingRow
from triage_server.page.reading_order import Urgency
from triage_server.page.records import (
    Actor,
    ConfirmedBy,
    Decision,
    ListedCase,
    Newer,
    Outcome,
    QueueDepth,
    ReadCase,
    Reading,
    parse_answers,
)

PAGE_SIZE = 100
"""Cases on one page of a list."""
Case = TypeVar("Case")


@dataclass(frozen=True)
class ListPage(Generic[Case]):
    """One page of a list."""

    cases: Sequence[Case]
    number: int
    """Of this page, from 1."""
    count: int
    """Cases on the whole list."""

    @property
    def last(self) -> int:
        """Number of the last page; 1 for an empty list."""
        return max(1, -(-self.count // PAGE_SIZE))

    @property
    def first_case(self) -> int:
        """Position of this page's first case in the whole list, from 1."""
        return (self.number - 1) * PAGE_SIZE + 1


class ReadabilityCache:
    """Which waiting cases have answers that this version can read. Tried once each: answers never change."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    def check(self, session: Session, numbers: Mapping[int, str]) -> Mapping[str, bool]:
        """Readability by case number; ``numbers``: of all waiting cases, by database key."""
        known = {number: self._known[number] for number in numbers.values() if number in self._known}
        untried = [key for key, number in numbers.items() if number not in known]
        for chunk in (untried[at : at + PAGE_SIZE] for at in range(0, len(untried), PAGE_SIZE)):
            documents = answer_documents(session, chunk)
            known |= {numbers[key]: parse_answers(documents[key]) is not None for key in chunk}
            self._known = known  # saved piece by piece, so that an interruption loses little
        self._known = known
        return known

    def mark_unreadable(self, numbers: Sequence[str]) -> None:
        """Mark cases that were readable when tried, and whose answers something else has altered since."""
        self._known |= dict.fromkeys(numbers, False)


def answer_documents(session: Session, keys: Sequence[int]) -> Mapping[int, Mapping[str, str]]:
    """Stored answers of these cases, by case and language."""
    found: dict[int, dict[str, str]] = {key: {} for key in keys}
    wanted = select(AnswerRow.case_id, AnswerRow.language, AnswerRow.document)
    for key, language, document in session.execute(wanted.where(AnswerRow.case_id.in_(keys))):
        found[key][language] = document
    return found


@dataclass(frozen=True, slots=True)
class _Entry:
    key: int
    number: str
    person: str
    language: str
    urgency: Urgency


def reading_order(session: Session, now: datetime, readable: ReadabilityCache) -> list[_Entry]:
    """All unread cases, in reading order."""
    columns = (
        *(CaseRow.id, CaseRow.number, CaseRow.person, CaseRow.language),
        *(CaseRow.priority_band, CaseRow.arrived_at, CaseRow.deadline_hours),
    )
    rows = session.execute(select(*columns).where(~is_read())).all()
    known = readable.check(session, {row.id: row.number for row in rows})
    entries = [
        _Entry(key, number, person, language, Urgency(band, at, hours, known[number]))
        for key, number, person, language, band, at, hours in rows
    ]
    return sorted(entries, key=lambda entry: (entry.urgency.sort_key(now), entry.key))


def fingerprint_of(entries: Sequence[_Entry], now: datetime) -> str:
    """A fingerprint of the queue's order and of the deadlines passed, by which a page notices a change."""
    shown = [f"{entry.number} {entry.urgency.is_overdue(now)}" for entry in entries]
    return sha256(",".join(shown).encode()).hexdigest()[:16]


def queue_depth(session: Session, now: datetime) -> QueueDepth:
    """How many cases wait. Of no case is the answer parsed: neither a deadline nor a wait stands in it."""
    wanted = select(CaseRow.priority_band, CaseRow.arrived_at, CaseRow.deadline_hours).where(~is_read())
    waiting = [Urgency(*row) for row in session.execute(wanted)]
    waits = [(now - one.arrived_at).total_seconds() for one in waiting]
    # A clock that was set back has cases arrive in the future.
    return QueueDepth(len(waiting), sum(one.is_overdue(now) for one in waiting), max(0.0, *waits, 0.0))


def waiting_cases(
    session: Session, now: datetime, readable: ReadabilityCache, page_number: int
) -> tuple[ListPage[ListedCase], str]:
    """A page of the queue, the last one if there are fewer, and its fingerprint."""
    while True:
        entries = reading_order(session, now, readable)
        # Keys, not times: a clock may be set back.
        newest = {entry.person: entry for entry in sorted(entries, key=lambda entry: entry.key)}
        number = _clamp_page(page_number, len(entries))
        shown = entries[(number - 1) * PAGE_SIZE : number * PAGE_SIZE]
        documents = answer_documents(session, [entry.key for entry in shown])
        cases = [
            ListedCase(
                *(entry.number, entry.urgency, documents[entry.key], entry.language),
                newer=_newer(entry, newest[entry.person]),
            )
            for entry in shown
        ]
        altered = [case.number for case in cases if case.urgency.readable and case.answers is None]
        if not altered:
            return ListPage(cases, number, len(entries)), fingerprint_of(entries, now)
        readable.mark_unreadable(altered)


def _newer(entry: _Entry, newest: _Entry) -> Newer | None:
    return None if newest is entry else Newer(newest.number, newest.urgency)


def read_cases(session: Session, page_number: int) -> ListPage[ReadCase]:
    """A page of the read cases: those without a known outcome first, then by time of the last reading."""
    decisions = func.count(ReadingRow.decision.distinct()).label("decisions")
    newest = func.max(ReadingRow.id).label("id")
    latest = select(ReadingRow.case_id, newest, decisions).group_by(ReadingRow.case_id).subquery()
    effective = _effective_outcomes().subquery()
    count = session.scalar(select(func.count()).select_from(CaseRow).where(is_read())) or 0
    number = _clamp_page(page_number, count)
    wanted = (
        select(CaseRow, ReadingRow, latest.c.decisions, OutcomeRow, effective.c.contradictory)
        .join(latest, latest.c.case_id == CaseRow.id)
        .join(ReadingRow, ReadingRow.id == latest.c.id)
        .outerjoin(effective, effective.c.case_id == CaseRow.id)
        .outerjoin(OutcomeRow, OutcomeRow.id == effective.c.id)
        .order_by(OutcomeRow.needs_in_person.is_not(None), ReadingRow.at, CaseRow.id)
        .offset((number - 1) * PAGE_SIZE)
        .limit(PAGE_SIZE)
    )
    cases = [
        ReadCase(
            case.number,
            Urgency(case.priority_band, case.arrived_at, case.deadline_hours),
            case.disposition,
            reading_of(reading),
            decisions > 1,
            None if outcome is None else outcome_of(outcome),
            bool(contradictory),
            case.drawn,
        )
        for case, reading, decisions, outcome, contradictory in session.execute(wanted)
    ]
    return ListPage(cases, number, count)


def known_outcomes(session: Session) -> Mapping[str, tuple[int, int]]:
    """By disposition: read cases with a known outcome, and all read cases."""
    effective = _effective_outcomes().subquery()
    wanted = (
        select(CaseRow.disposition, func.count(OutcomeRow.needs_in_person), func.count())
        .outerjoin(effective, effective.c.case_id == CaseRow.id)
        .outerjoin(OutcomeRow, OutcomeRow.id == effective.c.id)
        .where(is_read())
        .group_by(CaseRow.disposition)
    )
    found = {disposition: (known, count) for disposition, known, count in session.execute(wanted)}
    return {disposition.value: (0, 0) for disposition in Disposition} | dict(sorted(found.items()))


def drawn_outcomes(session: Session) -> tuple[int, int]:
    """Of the read cases that were drawn for follow-up: those with a known outcome, and all."""
    effective = _effective_outcomes().subquery()
    wanted = (
        select(func.count(OutcomeRow.needs_in_person), func.count())
        .select_from(CaseRow)
        .outerjoin(effective, effective.c.case_id == CaseRow.id)
        .outerjoin(OutcomeRow, OutcomeRow.id == effective.c.id)
        .where(is_read(), CaseRow.drawn)
    )
    known, count = session.execute(wanted).one()
    return known, count


def is_read() -> ColumnElement[bool]:
    """Whether the case has a reading."""
    return exists().where(ReadingRow.case_id == CaseRow.id)


def reading_of(row: ReadingRow) -> Reading:
    """A row as a record."""
    return Reading(row.at, Actor(row.caller, row.reader), cast("Decision", row.decision), row.reason)


def outcome_of(row: OutcomeRow) -> Outcome:
    """A row as a record."""
    actor, how = Actor(row.caller, row.reader), cast("ConfirmedBy", row.confirmed_by)
    return Outcome(row.at, actor, row.needs_in_person, how)


def _effective_outcomes() -> Select[int, int, bool | None]:
    """The outcome of each case that counts: the last confirmed one, else the last.

    With ``contradictory`` as ``QueuedCase`` has it; NULL or false: it is not.
    """
    needs, is_confirmed = OutcomeRow.needs_in_person, OutcomeRow.needs_in_person.is_not(None)
    confirmed = func.max(OutcomeRow.id).filter(is_confirmed)
    effective = func.coalesce(confirmed, func.max(OutcomeRow.id)).label("id")
    withdrawn = func.max(OutcomeRow.id).filter(~is_confirmed) > func.min(OutcomeRow.id).filter(is_confirmed)
    contradictory = or_(func.count(needs.distinct()) > 1, withdrawn).label("contradictory")
    return select(OutcomeRow.case_id, effective, contradictory).group_by(OutcomeRow.case_id)


def _clamp_page(page_number: int, count: int) -> int:
    return max(1, min(page_number, -(-count // PAGE_SIZE)))
