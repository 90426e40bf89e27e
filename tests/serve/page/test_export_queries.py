"""An export asks the database for many cases at once, and says the same as one that asks for each."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event, text

import tiny_bundle
from lesion_triage.bundle.history import History
from triage_server.page import export
from triage_server.page.records import Actor
from triage_server.page.store import ReadingQueue

PICTURES = [tiny_bundle.picture_bytes(kind) for kind in ("below", "referred")]
READER = Actor("key:0123456789ab", "=Dr A")
OUTCOMES: tuple[tuple[bool | None, ...], ...] = (
    (),
    (None,),
    (True,),
    (False, True),
    (True, None),
    (None, False),
    (True, False, None),
)


def add_case(queue: ReadingQueue, answers: Any, position: int, same_person_as: str | None = None) -> str:
    """A case like every other of this position: read once or twice, with none to three outcomes."""
    number, history = queue.draw_number(), History(itching=True, age_years=40 + position % 50)
    photographs = PICTURES[: 1 + position % 2]
    queue.add(number, answers, photographs, history, READER.caller, same_person_as=same_person_as)
    queue.record_reading(number, READER, "agree", "", 0)
    if position % 3 == 0:
        queue.record_reading(number, READER, "override", "+seen again", 1)
    for seen, needs in enumerate(OUTCOMES[position % len(OUTCOMES)]):
        queue.record_outcome(number, READER, needs, "not_yet" if needs is None else "examination", seen)
    return number


@contextmanager
def counted_statements(queue: ReadingQueue) -> Iterator[list[str]]:
    """What is sent to the database meanwhile."""
    statements: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    event.listen(queue._engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(queue._engine, "before_cursor_execute", note)


def case_by_case(queue: ReadingQueue, numbers: list[str]) -> bytes:
    """The ZIP file as it is if each case and each photograph is asked for by itself."""
    sink, tables = export._Sink(), export._Tables()
    with zipfile.ZipFile(sink, "w") as archive:
        for number in numbers:
            if (case := queue.find_or_none(number)) is None:
                continue
            if case.outcome is not None and case.outcome.needs_in_person is not None and case.history:
                for position in range(len(case.photographs)):
                    _, data = queue.photograph(number, position)
                    entry = zipfile.ZipInfo(f"photographs/{number}-{position + 1}.png", (1980, 1, 1, 0, 0, 0))
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    archive.writestr(entry, data)
            tables.add(case)
        for name, content in tables.files():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return sink.take()


def test_export_of_200_cases_takes_as_many_queries_as_one_of_20(queue: ReadingQueue, answers: Any) -> None:
    counts = []
    for cases in (20, 200):
        for position in range(len(queue.read_cases_with_sizes()), cases):
            add_case(queue, answers, position)
        with counted_statements(queue) as statements:
            sizes = queue.read_cases_with_sizes()
            list(export.zip_chunks(queue, sizes))
        assert len(sizes) == cases
        assert sum("photographs.data" in one and "length" not in one for one in statements) == 1
        counts.append(len(statements))
    assert counts[0] == counts[1] <= 8


def test_export_has_the_bytes_of_one_that_asks_for_each_case(queue: ReadingQueue, answers: Any) -> None:
    first = add_case(queue, answers, 2)
    numbers = [first, *(add_case(queue, answers, position) for position in range(20))]
    numbers.append(add_case(queue, answers, 3, same_person_as=first))
    unread = queue.draw_number()
    queue.add(unread, answers, PICTURES, History(), READER.caller)
    with queue._engine.begin() as connection:
        for table, key, column, number in (
            ("answers", "case_id", "document", numbers[4]),
            ("cases", "id", "history", numbers[5]),
        ):
            changed = connection.execute(
                text(
                    f"UPDATE {table} SET {column} = '{{\"a_later_key\": 3, ' || substr({column}, 2) "
                    f"WHERE {key} = (SELECT id FROM cases WHERE number = :number)"
                ),
                {"number": number},
            )
            assert changed.rowcount
    sizes = queue.read_cases_with_sizes()
    assert [number for number, _ in sizes] == numbers
    for erased in (numbers[1], numbers[3], numbers[-2]):  # without an outcome, and with
        queue.delete(erased)
    expected = case_by_case(queue, numbers)
    for limits in ({}, {"group_cases": 1}, {"group_cases": 4}, {"group_bytes": 3 * len(PICTURES[0])}):
        assert b"".join(export.zip_chunks(queue, sizes, **limits)) == expected, limits


def test_case_that_is_deleted_between_groups_is_left_out_and_the_rest_is_not(
    queue: ReadingQueue, answers: Any
) -> None:
    numbers = [add_case(queue, answers, position) for position in (2, 2, 0, 2, 0, 2)]
    pieces = export.zip_chunks(queue, queue.read_cases_with_sizes(), group_cases=2)
    begun = next(pieces)
    for erased in numbers[2:4]:  # a whole group
        queue.delete(erased)
    queue.delete(numbers[0])  # already sent
    with zipfile.ZipFile(io.BytesIO(begun + b"".join(pieces))) as archive:
        readings = archive.read("readings.csv").decode().splitlines()[1:]
        pictured = {name[12:21] for name in archive.namelist() if name.startswith("photographs/")}
    assert {row.split(",")[0] for row in readings} == {numbers[position] for position in (0, 1, 4, 5)}
    assert pictured == {numbers[position] for position in (0, 1, 5)}  # of 4 no outcome is known


def test_other_queries_are_answered_while_an_export_waits_for_its_reader(
    queue: ReadingQueue, answers: Any
) -> None:
    """No connection is held for a browser that stalls."""
    for _ in range(3):
        add_case(queue, answers, 2)
    pieces = export.zip_chunks(queue, queue.read_cases_with_sizes(), group_cases=1)
    next(pieces)
    assert queue._engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    pieces.close()  # type: ignore[attr-defined]
