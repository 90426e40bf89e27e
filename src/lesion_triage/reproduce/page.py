"""The comparison as a page: a table, what it rests on, and a verdict in one line. Imports this package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lesion_triage.reproduce.cells import Value
from lesion_triage.reproduce.comparison import Row, Verdict
from lesion_triage.reproduce.definition import Experiment, Tolerance, Version, VersionName
from lesion_triage.reproduce.records import Record

_COLUMN_TITLES = ("cell", "recorded", "found", "difference", "tolerance", "verdict")
_HASH_DIGITS = 12
_MAX_LISTED = 8
"""Most cells of one line that the expected table lists one by one."""
_MAX_PRINTED = 40
"""Most rows that are printed in full; of a longer table, only those that do not agree."""


def report(
    name: str,
    version_name: VersionName,
    definition: Experiment,
    record: Record,
    rows: Sequence[Row],
    machine: Mapping[str, str],
    other_machine: str,
    *,
    short: bool = False,
) -> str:
    """Everything that is printed and kept, as Markdown.

    Args:
        name: of the experiment.
        version_name: which of its versions.
        definition: its question, and what the version shows.
        record: what it is compared with.
        rows: the comparison.
        machine: this one.
        other_machine: how the record's machine differs; empty: not at all.
        short: in a long table, leave out what agrees.
    """
    printed = list(rows)
    if short and len(rows) > _MAX_PRINTED:
        printed = [row for row in rows if row.verdict is not Verdict.agrees]
    version = definition.versions()[version_name]
    where = (
        f"recorded on {record.recorded_on}"
        if record.recorded_on
        else "date and machine of the record unknown"
    )
    lines = [
        f"# {name}, {version_name}",
        "",
        definition.asks,
        "",
        version.shows,
        "",
        f"Here: {machine['processor']}, {machine['threads']} threads; {where}"
        + (
            f"; this machine differs: {other_machine}."
            if other_machine
            else ", this machine like that of the record."
        ),
        "",
        *(table(printed) if printed else ()),
        *([f"({len(rows) - len(printed)} cells that agree are not shown)"] * (len(printed) < len(rows))),
        "",
        *_reason_lines(rows),
        "",
        verdict_line(rows),
    ]
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Row]) -> Iterator[str]:
    """A Markdown table with aligned columns."""
    cells = [
        (
            row.cell,
            format_value(row.recorded),
            format_value(row.found),
            "" if row.difference is None else f"{row.difference:+.2g}" if row.difference else "0",
            "" if row.tolerance is None else f"{row.tolerance:g}",
            row.verdict.value if row.verdict is not Verdict.differs else "DIFFERS",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(_COLUMN_TITLES, *cells, strict=True)]
    for number, line in enumerate((_COLUMN_TITLES, *cells)):
        yield f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        if number == 0:
            yield f"|{'|'.join('-' * (width + 2) for width in widths)}|"


def format_value(value: Value) -> str:
    """A value in readable form."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return value[:_HASH_DIGITS] if len(value) == 64 else value
    return str(value) if isinstance(value, int) else f"{value:.4g}" if abs(value) < 1e-3 else f"{value:.4f}"


def _reason_lines(rows: Sequence[Row]) -> Iterator[str]:
    """The reasons for the tolerances, and for cells not compared; each once."""
    compared: dict[str, list[Row]] = {}
    for row in rows:
        heading = "not compared" if row.verdict is Verdict.not_compared else f"tolerance {row.tolerance:g}"
        compared.setdefault(f"- {heading}, {{}}: {row.why}", []).append(row)
    for text, these in compared.items():
        first = these[0].cell
        yield text.format(first if len(these) == 1 else f"{first} and {len(these) - 1} more")


def verdict_line(rows: Sequence[Row]) -> str:
    """The verdict, in one line."""
    count = {verdict: sum(row.verdict is verdict for row in rows) for verdict in Verdict}
    if not rows:
        return "Nothing is recorded of this version: give --record to record it."
    return (
        f"{count[Verdict.agrees]} of {len(rows)} cells agree, {count[Verdict.differs]} differ, "
        f"{count[Verdict.not_compared]} could not be compared."
    )


def expected_table(version: Version, record: Record) -> str:
    """The expected table, as Markdown: recorded cells, permitted differences, and their reasons."""
    recorded = record.cells(version)
    lines = ["| cell | recorded | same machine | elsewhere | because |", "|---|---|---|---|---|"]
    for line in version.table:
        these = {cell: value for cell, value in recorded.items() if version.tolerance(cell) is line}
        allowed = f"{_tolerance_text(line, here=True)} | {_tolerance_text(line, here=False)}"
        if len(these) > _MAX_LISTED:
            these = {f"`{line.cells}`, {len(these)} cells": _range_text(list(these.values()))}
        for number, (cell, value) in enumerate(these.items()):
            lines.append(
                f"| {cell} | {format_value(value)} | {allowed} | {line.because if number == 0 else '〃'} |"
            )
    return "\n".join(lines) + "\n"


def _range_text(values: Sequence[Value]) -> str:
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) == len(values):
        return f"{format_value(min(numbers))} to {format_value(max(numbers))}"
    return ", ".join(sorted({format_value(value) for value in values}))


def _tolerance_text(line: Tolerance, *, here: bool) -> str:
    allowed = line.on_same_machine if here and line.on_same_machine is not None else line.within
    return "not compared" if allowed is None else "equal" if allowed == 0 else f"± {allowed:g}"
