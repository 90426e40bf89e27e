"""Tables of answered cases whose outcomes are followed up, as the page exports them, and what of them counts.

Imports bundle, data's tables, numpy and the exception tree.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.history import parse_decimal
from lesion_triage.bundle.schema import Disposition
from lesion_triage.data.records import known_or_empty
from lesion_triage.data.sources.tables import Row, read_rows
from lesion_triage.errors import DataError

COLUMNS = (
    "case",
    "arrived_at",
    "certificate_id",
    "disposition",
    "follow_up_share",
    "drawn",
    "needs_in_person",
)
_NO_CHANCE = 10
"""So many cases of each kind, and more, do not differ in their share because it was once changed."""
_FIRST_YEAR, _LAST_YEAR = 2000, 2099
_TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, slots=True)
class FollowedCase:
    """A case that was answered, and what is known of it since."""

    case: str
    person: str
    """Whose it is, as the table names them; the case itself where it names nobody."""
    arrived_at: datetime
    """In UTC."""
    certificate_id: str
    disposition: Disposition
    share: float
    """Probability, in [0, 1], with which a case that arrived then was drawn to be followed up."""
    drawn: bool
    needs_in_person: bool | None
    """None: not known."""

    @property
    def missed(self) -> bool:
        """Whether the policy left it below the threshold. Says nothing of whether it was positive."""
        return self.disposition is Disposition.below_threshold

    @property
    def followed_up(self) -> bool:
        """Whether its outcome was to become known by design: it was referred, not scored, or drawn."""
        return self.drawn or not self.missed


@dataclass(frozen=True, eq=False)
class Counted:
    """What a test of the sensitivity counts, and what it does not."""

    missed: NDArray[np.bool_]
    """Of the counted positive cases, in order of arrival; shape (n,)."""
    share: NDArray[np.float64]
    """With which each would have been followed up had it been missed; shape (n,)."""
    arrived_at: tuple[datetime, ...]
    later_cases: int
    """Cases left out because the same person has an earlier one."""
    not_drawn: int
    """Positive cases below the threshold that became known although they had not been drawn."""


def read_cases(tables: Sequence[Path]) -> list[FollowedCase]:
    """Cases of one or several exports in order of arrival; of a case in several tables, the last one's row.

    Args:
        tables: CSV files with ``COLUMNS``, oldest first; ``patient_id`` is optional, others are ignored.

    Raises:
        DataError: a table cannot be read, lacks a column, or has a case twice or a cell that cannot be used;
            or two tables have different cases under one name; or the share depends on the answer. The message
            names the line, and quotes no cell.
    """
    cases: dict[str, FollowedCase] = {}
    for table in tables:
        for line, case in _read(table):
            if (earlier := cases.get(case.case)) and _as_answered(earlier) != _as_answered(case):
                raise DataError(
                    f"{table}, line {line}: an earlier table has this case with another arrived_at, "
                    "disposition, follow_up_share or drawn, which never change; give each case "
                    "a name of its own."
                )
            cases[case.case] = case
    _refuse_share_by_answer(cases.values())
    # The page writes whole seconds: cases of one second stay in the order of the tables.
    return sorted(cases.values(), key=lambda one: one.arrived_at)


def count(cases: Sequence[FollowedCase], certificate_id: str) -> Counted:
    """Which positive cases a test of a certificate may count.

    A case counts if its outcome was to become known whatever it would be: what became known by chance stands
    for an unknown number of others. Cases of one person are not independent, so only the first to arrive can
    count. A later one never counts in its place, or whether it does would depend on the answer to the first.
    Nor does it if another certificate answered the first: a person is drawn as a whole, and whoever was drawn
    is called in and so comes again more often. Of later cases more are drawn than their share says.

    Args:
        cases: in order of arrival; those of other certificates too.
        certificate_id: only what was answered under this certificate counts.
    """
    first = {case.person: case for case in reversed(cases)}
    own = [case for case in cases if case.certificate_id == certificate_id]
    eligible = [case for case in own if first[case.person] is case]
    positive = [case for case in eligible if case.needs_in_person]
    counted = [case for case in positive if case.followed_up]
    return Counted(
        missed=np.array([case.missed for case in counted], dtype=np.bool_),
        share=np.array([case.share for case in counted], dtype=np.float64),
        arrived_at=tuple(case.arrived_at for case in counted),
        later_cases=len(own) - len(eligible),
        not_drawn=len(positive) - len(counted),
    )


def parse_day(text: str) -> datetime:
    """The beginning of a day in UTC, from ``2026-11-30``.

    Raises:
        ValueError: no such day.
    """
    day = date.fromisoformat(text)
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _refuse_share_by_answer(cases: Collection[FollowedCase]) -> None:
    """Raise if the share says that all referred cases are followed up: so they are, but it is not the share.

    Misses would seem so easy to find that their absence proved a high sensitivity, also where none is sought.
    """
    referred = [case.share == 1 for case in cases if not case.missed]
    below = [case.share == 1 for case in cases if case.missed]
    if min(len(referred), len(below)) >= _NO_CHANCE and all(referred) and not any(below):
        raise DataError(
            "the tables have follow_up_share 1 for each case that was referred or not scored, and for none "
            "below the threshold; give the share that was in force when the case arrived, whatever was "
            "answered."
        )


def _as_answered(case: FollowedCase) -> tuple[object, ...]:
    """What was known of a case when it was answered."""
    return case.arrived_at, case.disposition, case.share, case.drawn


def _read(table: Path) -> Iterator[tuple[int, FollowedCase]]:
    lines: dict[str, int] = {}
    for line, row in read_rows(table, COLUMNS, ("patient_id",), hint="the page's export has follow-up.csv"):
        case = _case(row, f"{table}, line {line}")
        if case.case in lines:
            raise DataError(f"{table}, line {line}: the case of line {lines[case.case]} again; keep one row.")
        lines[case.case] = line
        yield line, case


def _case(row: Row, place: str) -> FollowedCase:
    if not row["case"]:
        raise DataError(f"{place}: the cell of case is empty.")
    if row["patient_id"] and not known_or_empty(row["patient_id"]):
        raise DataError(
            f"{place}: patient_id has a word that means unknown and would make strangers one person; leave "
            "the cell empty."
        )
    try:
        disposition = Disposition(row["disposition"])
    except ValueError:
        raise DataError(
            f"{place}: expected one of {', '.join(Disposition)} in disposition; leave out what has no answer."
        ) from None
    case = FollowedCase(
        case=row["case"],
        person=f"patient {row['patient_id']}" if row["patient_id"] else f"case {row['case']}",
        arrived_at=_moment(row["arrived_at"], place),
        certificate_id=row["certificate_id"],
        disposition=disposition,
        share=_share(row["follow_up_share"], place),
        drawn=_truth(row, "drawn", place),
        needs_in_person=_truth(row, "needs_in_person", place) if row["needs_in_person"] else None,
    )
    if case.drawn and case.share == 0:
        raise DataError(f"{place}: a case is drawn although its follow_up_share is 0.")
    if not case.drawn and case.share == 1:
        raise DataError(f"{place}: a case is not drawn although its follow_up_share is 1.")
    return case


def _moment(text: str, place: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise DataError(
            f"{place}: expected a moment such as 2026-11-30T14:05:00+00:00 in arrived_at."
        ) from None
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise DataError(f"{place}: expected a year from {_FIRST_YEAR} to {_LAST_YEAR} in arrived_at.")
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _share(text: str, place: str) -> float:
    try:
        share = parse_decimal(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise DataError(f"{place}: expected a number from 0 to 1 in follow_up_share.")
    return share


def _truth(row: Row, column: str, place: str) -> bool:
    try:
        return _TRUTHS[row[column].lower()]
    except KeyError:
        raise DataError(f"{place}: expected true or false in {column}.") from None
