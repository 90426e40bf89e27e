"""Markdown tables and stage times that several cards need. Imports the dossier and the population."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lesion_triage.cards.dossier import Dossier
from lesion_triage.cards.population import Count

STAGES = ("manifest", "split", "audit", "train", "predict", "audit_model", "calibrate", "export", "evaluate")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + [table_row(row) for row in rows]


def table_row(cells: Iterable[object]) -> str:
    """A row of a Markdown table; line breaks and bars in a cell would break it and are replaced."""
    return "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"


def group_table(title: str, found: Mapping[str, Count]) -> list[str]:
    """Lines of a table of groups."""
    rows = (
        (name, f"{one.photographs:,}", f"{one.cases:,}", f"{one.positives:,}") for name, one in found.items()
    )
    return table((title, "photographs", "cases", "of them positive"), rows)


def stage_file(stage: str) -> str:
    """A stage's record, relative to the run."""
    return f"stages/{stage}.json"


def stage_times(dossier: Dossier) -> list[tuple[str, float]]:
    """Stages and the seconds they took, if recorded; a stage taken over from earlier keeps its first time."""
    found = ((name, dossier.get(stage_file(name), "seconds")) for name in STAGES)
    return [(name, float(seconds)) for name, seconds in found if seconds is not None]
