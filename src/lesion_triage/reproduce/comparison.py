"""Compares the cells found with those recorded, one by one. Imports this package's definition and cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from lesion_triage.reproduce.cells import Cells, Value
from lesion_triage.reproduce.definition import Version

_ROUNDING = 1e-12


class Verdict(StrEnum):
    """Result for one cell."""

    agrees = "agrees"
    differs = "differs"
    not_compared = "not compared"


@dataclass(frozen=True, slots=True)
class Row:
    """One cell, recorded and found."""

    cell: str
    recorded: Value
    found: Value
    tolerance: float | None
    """None: not compared."""
    verdict: Verdict
    why: str
    """The reason for the tolerance, or why it was not compared."""

    @property
    def difference(self) -> float | None:
        """Found minus recorded; None if one of them is not a number."""
        if isinstance(self.recorded, str) or isinstance(self.found, str):
            return None
        if self.recorded is None or self.found is None:
            return None
        return self.found - self.recorded


def compare(
    version: Version,
    recorded: Cells,
    found: Cells,
    *,
    obstacles: Mapping[str, str],
    other_machine: str = "",
) -> list[Row]:
    """One row for each cell in the version's table, in the order of the table.

    Args:
        version: the expected table.
        recorded: all cells of the record.
        found: all cells of this reproduction; a document that could not be made has none.
        obstacles: document -> why its cells cannot be compared, such as different pictures.
        other_machine: how this machine differs from that of the record; empty: not at all.
    """
    rows = []
    for line in version.table:
        for cell in [*recorded, *(cell for cell in found if cell not in recorded)]:
            if version.tolerance(cell) is not line:
                continue
            tolerance = line.within if other_machine or line.on_same_machine is None else line.on_same_machine
            rows.append(
                _compare_cell(cell, recorded, found, tolerance, line.because, obstacles, other_machine)
            )
    return rows


def _compare_cell(
    cell: str,
    recorded: Cells,
    found: Cells,
    tolerance: float | None,
    reason: str,
    obstacles: Mapping[str, str],
    other_machine: str,
) -> Row:
    ours, theirs = found.get(cell), recorded.get(cell)
    why = next(
        (obstacle for document, obstacle in obstacles.items() if f"{cell}.".startswith(f"{document}.")), ""
    )
    if not why and cell.partition(".")[0] in ("mean", "lowest", "highest"):
        why = next(iter(obstacles.values()), "")
    if not why and cell not in recorded:
        why = "not in the record"
    if not why and tolerance is None:
        why = f"another machine: {other_machine}"
    if why:
        return Row(cell, theirs, ours, None, Verdict.not_compared, why)
    assert tolerance is not None
    verdict = (
        Verdict.agrees if cell in found and _within_tolerance(theirs, ours, tolerance) else Verdict.differs
    )
    return Row(cell, theirs, ours, tolerance, verdict, reason)


def _within_tolerance(recorded: Value, found: Value, tolerance: float) -> bool:
    if isinstance(recorded, int | float) and isinstance(found, int | float):
        return abs(found - recorded) <= tolerance + _ROUNDING
    return recorded == found


def exit_status(rows: list[Row]) -> int:
    """Exit status: 0: all agree; 1: some differ; 3: none differs, but some could not be compared."""
    verdicts = {row.verdict for row in rows}
    if Verdict.differs in verdicts:
        return 1
    return 3 if Verdict.not_compared in verdicts or not rows else 0
