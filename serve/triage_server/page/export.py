"""Outcomes as files: for `lesion-triage recertify`, `tally` and `watch`, and for whoever audits the readings.

Imports the store, the README and the bundle's history. The ZIP is streamed in groups of cases, so that
neither memory nor the number of queries grows with each case. No transaction stays open while a group is
sent: a browser that stalls must not hold a connection, nor keep deleted cases in the database's journal. The
tables come last, so that they describe what was actually sent.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lesion_triage.bundle.guidance import QUESTIONS
from lesion_triage.bundle.history import History
from lesion_triage.bundle.schema import Disposition
from triage_server.page import export_readme
from triage_server.page.records import QueuedCase
from triage_server.page.store import ReadingQueue

_QUESTION_COLUMNS = tuple(name for name in QUESTIONS if name != "age_years")
"""Questions whose columns have the question's own name; the age has the archive's."""
COLUMNS = (
    "image",
    "needs_in_person",
    "lesion_id",
    "patient_id",
    "sex",
    "age_approx",
    "anatom_site_general",
    "fitzpatrick_skin_type",
    *_QUESTION_COLUMNS,
)
"""Those of `data.source: folder`."""
READING_COLUMNS = (
    "case",
    "arrived_at",
    "disposition",
    "priority_band",
    "bundle_sha256",
    "certificate_id",
    "read_at",
    "read_by",
    "key",
    "decision",
    "reason",
)
OUTCOME_COLUMNS = ("case", "outcome_at", "outcome_by", "key", "needs_in_person", "confirmed_by", "counts")
FOLLOW_UP_COLUMNS = (
    "case",
    "patient_id",
    "arrived_at",
    "certificate_id",
    "disposition",
    "follow_up_share",
    "drawn",
    "needs_in_person",
)
"""Those of `lesion-triage watch`."""
_EXTENSIONS = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}
_BOOLEAN_TEXT = {True: "true", False: "false", None: ""}
_FORMULA = re.compile('(^|[;\t\r\n])(?=[\\s"]*[=+@\\-\uff1d\uff0b\uff0d\uff20])|^(?=[\t\r\n])')
"""Where a spreadsheet may see the start of a formula: in a cell, or after another separator than the comma
that it splits cells at. In some spreadsheets full-width signs start one."""
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_GROUP_CASES = 200
_GROUP_BYTES = 16 * 2**20


class _Sink(io.RawIOBase):
    """Collects the ZIP, which is taken away chunk by chunk."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._written += data
        return len(data)

    def take(self) -> bytes:
        """What was written since the last call."""
        data, self._written = bytes(self._written), bytearray()
        return data


def zip_chunks(
    queue: ReadingQueue,
    sizes: Sequence[tuple[str, int]],
    group_cases: int = _GROUP_CASES,
    group_bytes: int = _GROUP_BYTES,
) -> Iterator[bytes]:
    """The ZIP file of these cases, group by group. A case that is deleted before its group is left out.

    Args:
        queue: has the cases.
        sizes: number and bytes of the photographs of cases that have been read, in order of arrival.
        group_cases: most cases of a group.
        group_bytes: most bytes of a group's photographs, unless one case has more.
    """
    sink, tables = _Sink(), _Tables()
    with zipfile.ZipFile(sink, "w") as archive:
        for numbers in _groups(sizes, group_cases, group_bytes):
            for case, photographs in queue.read_cases_with_photographs(numbers, _is_in_table):
                for position, data in enumerate(photographs):
                    path = _photograph_path(case, position)
                    archive.writestr(_zip_entry(path), data)
                tables.add(case)
            yield sink.take()
        for name, text in tables.files():
            archive.writestr(_zip_entry(name), text)
    yield sink.take()


def _groups(sizes: Sequence[tuple[str, int]], group_cases: int, group_bytes: int) -> Iterator[list[str]]:
    group, held_bytes = list[str](), 0
    for number, size_bytes in sizes:
        if group and (len(group) == group_cases or held_bytes + size_bytes > group_bytes):
            yield group
            group, held_bytes = [], 0
        group.append(number)
        held_bytes += size_bytes
    if group:
        yield group


def _zip_entry(name: str) -> zipfile.ZipInfo:
    """Compressed, since a program that reads the stream cannot know where an uncompressed entry ends."""
    entry = zipfile.ZipInfo(name, _ZIP_DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


class _Tables:
    """The tables, filled while the cases pass."""

    def __init__(self) -> None:
        self._cases: list[tuple[str, list[dict[str, object]]]] = []
        self._follow_up: list[dict[str, object]] = []
        self._readings: list[dict[str, object]] = []
        self._read: Counter[str] = Counter(dict.fromkeys(Disposition, 0))
        self._known: Counter[str] = Counter()
        self._outcomes: list[dict[str, object]] = []
        self._contradictory: list[str] = []
        self._unreadable_history: list[str] = []

    def add(self, case: QueuedCase) -> None:
        """Add a case."""
        self._read[case.disposition] += 1
        self._readings += _reading_rows(case)
        self._outcomes += _outcome_rows(case)
        self._follow_up.append(_follow_up_row(case))
        if _needs_in_person(case) is None:
            return
        self._known[case.disposition] += 1
        if case.contradictory:
            self._contradictory.append(case.number)
        if case.history is None:
            self._unreadable_history.append(case.number)
        else:
            self._cases.append((case.person, list(_case_rows(case, case.history))))

    def files(self) -> Iterator[tuple[str, str]]:
        """Names and contents."""
        cases = _rows_with_persons(self._cases)
        drawn = {
            row["case"]: row["needs_in_person"] != "" for row in self._follow_up if row["drawn"] == "true"
        }
        yield "cases.csv", _csv_text(COLUMNS, cases)
        if drawn:
            yield "drawn.csv", _csv_text(COLUMNS, [row for row in cases if row["lesion_id"] in drawn])
        yield "follow-up.csv", _csv_text(FOLLOW_UP_COLUMNS, self._follow_up)
        yield "readings.csv", _csv_text(READING_COLUMNS, self._readings)
        yield "outcomes.csv", _csv_text(OUTCOME_COLUMNS, self._outcomes)
        yield (
            "README.txt",
            export_readme.text(
                known_and_read={said: (self._known[said], read) for said, read in self._read.items()},
                known_and_drawn=(sum(drawn.values()), len(drawn)),
                counts_patients=any(row["patient_id"] for row in cases),
                contradictory=self._contradictory,
                unreadable_history=self._unreadable_history,
            ),
        )


def _rows_with_persons(cases: Sequence[tuple[str, list[dict[str, object]]]]) -> list[dict[str, object]]:
    """The rows of all cases of a table; ``patient_id`` only where several of its cases are one person's."""
    cases_per_person = Counter(person for person, _ in cases)
    return [
        row | {"patient_id": person if cases_per_person[person] > 1 else ""}
        for person, rows in cases
        for row in rows
    ]


def _needs_in_person(case: QueuedCase) -> bool | None:
    return case.outcome.needs_in_person if case.outcome else None


def _is_in_table(case: QueuedCase) -> bool:
    """Whether the case has rows in ``cases.csv``, so that its photographs are sent."""
    return _needs_in_person(case) is not None and case.history is not None


def photograph_name(number: str, position: int, kind: str) -> str:
    """The file name of a photograph of this media type: its case, and its number on the page."""
    return f"{number}-{position + 1}.{_EXTENSIONS[kind]}"


def _photograph_path(case: QueuedCase, position: int) -> str:
    return f"photographs/{photograph_name(case.number, position, case.photographs[position])}"


def _case_rows(case: QueuedCase, history: History) -> Iterator[dict[str, object]]:
    answers = {name: getattr(history, name) for name in _QUESTION_COLUMNS}
    row = {
        "needs_in_person": _BOOLEAN_TEXT[_needs_in_person(case)],
        "lesion_id": case.number,
        "sex": history.sex,
        "age_approx": history.age_years,
        "anatom_site_general": history.anatom_site_general,
        "fitzpatrick_skin_type": history.fitzpatrick_skin_type,
        **{
            name: _BOOLEAN_TEXT[value] if isinstance(value, bool) else value
            for name, value in answers.items()
        },
    }
    for position in range(len(case.photographs)):
        yield {"image": _photograph_path(case, position), **row}


def _follow_up_row(case: QueuedCase) -> dict[str, object]:
    """Always with the person: `watch` reads several exports, and the earlier case may be in another."""
    answer = case.answer(case.first_language)
    return {
        "case": case.number,
        "patient_id": case.person,
        "arrived_at": case.urgency.arrived_at.isoformat(timespec="seconds"),
        "certificate_id": answer.certificate_id if answer else "",
        "disposition": case.disposition,
        "follow_up_share": case.follow_up_share,
        "drawn": _BOOLEAN_TEXT[case.drawn],
        "needs_in_person": _BOOLEAN_TEXT[_needs_in_person(case)],
    }


def _reading_rows(case: QueuedCase) -> Iterator[dict[str, object]]:
    answer = case.answer(case.first_language)
    for reading in case.readings:
        yield {
            "case": case.number,
            "arrived_at": case.urgency.arrived_at.isoformat(timespec="seconds"),
            "disposition": case.disposition,
            "priority_band": case.urgency.priority_band,
            "bundle_sha256": answer.bundle_sha256 if answer else "",
            "certificate_id": answer.certificate_id if answer else "",
            "read_at": reading.at.isoformat(timespec="seconds"),
            "read_by": _escape_formula(reading.actor.reader),
            "key": reading.actor.caller,
            "decision": reading.decision,
            "reason": _escape_formula(reading.reason),
        }


def _outcome_rows(case: QueuedCase) -> Iterator[dict[str, object]]:
    for outcome in case.outcomes:
        yield {
            "case": case.number,
            "outcome_at": outcome.at.isoformat(timespec="seconds"),
            "outcome_by": _escape_formula(outcome.actor.reader),
            "key": outcome.actor.caller,
            "needs_in_person": _BOOLEAN_TEXT[outcome.needs_in_person],
            "confirmed_by": outcome.confirmed_by,
            "counts": _BOOLEAN_TEXT[outcome is case.outcome],
        }


def _escape_formula(text: str) -> str:
    """Text that people typed, made harmless to spreadsheets."""
    return _FORMULA.sub(r"\1'", text)


def _csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
