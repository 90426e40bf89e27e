"""Checklists as data: items, a run's answers, and the page. Imports the dossier and its tables.

An item is filled with a pointer to its evidence, filled in part, or blank. The questions are in our words: to
submit a checklist, use the form of its authors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lesion_triage.cards.dossier import Dossier, Pointer, Unknown
from lesion_triage.cards.markdown_tables import table_row

BLANK = "Not known to this run: to be filled by the authors."


class Status(StrEnum):
    """How much of an item a run can answer."""

    FILLED = "filled"
    PARTLY = "partly filled"
    BLANK = "blank"


@dataclass(frozen=True, slots=True)
class Answer:
    """A run's answer to an item."""

    text: str
    evidence: tuple[Pointer, ...]
    """At least one; each must lead to something."""
    missing: str = ""
    """What else the item asks that the run does not know; empty: nothing."""


Filler = Callable[[Dossier], Answer]
"""Answers an item; raises Unknown if the run lacks the evidence."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a checklist."""

    number: str
    """As in the publication."""
    section: str
    question: str
    filler: Filler | None = None
    """None: no run can know it."""


@dataclass(frozen=True, slots=True)
class Checklist:
    """A published checklist."""

    name: str
    file: str
    """Name of the page, without suffix."""
    source: str
    """Reference with DOI."""
    note: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Filled:
    """An item with a run's answer."""

    item: Item
    answer: Answer | None
    """None: blank."""

    @property
    def status(self) -> Status:
        """How much is answered."""
        if self.answer is None:
            return Status.BLANK
        return Status.PARTLY if self.answer.missing else Status.FILLED


def fill(checklist: Checklist, dossier: Dossier) -> tuple[Filled, ...]:
    """Every item with the run's answer. An item stays blank if any of its evidence is missing."""
    return tuple(Filled(item, _answer(item, dossier)) for item in checklist.items)


def _answer(item: Item, dossier: Dossier) -> Answer | None:
    if item.filler is None:
        return None
    try:
        answer = item.filler(dossier)
    except Unknown:
        return None
    assert answer.evidence, f"item {item.number} says something and points nowhere"
    return answer if all(map(dossier.holds, answer.evidence)) else None


def counts(filled: Sequence[Filled]) -> dict[Status, int]:
    """How many items are filled, filled in part, and blank."""
    found = Counter(one.status for one in filled)
    return {status: found[status] for status in Status}


def tally(filled: Sequence[Filled]) -> str:
    """``counts`` in words."""
    return ", ".join(f"{number} {status.value}" for status, number in counts(filled).items())


def page(checklist: Checklist, filled: Sequence[Filled], heading: str) -> str:
    """A filled checklist as Markdown.

    Args:
        checklist: which one.
        filled: its items.
        heading: a line that names the run.
    """
    lines = [f"# {checklist.name}", "", heading, "", f"Source: {checklist.source} {checklist.note}", ""]
    lines += [f"Of {len(filled)} items: {tally(filled)}.", ""]
    section = ""
    for one in filled:
        if one.item.section != section:
            section = one.item.section
            lines += ["", f"## {section}", "", "| item | asks | this run | evidence |"]
            lines += ["|---|---|---|---|"]
        lines.append(_row(one))
    return "\n".join(_without_double_blanks(lines)) + "\n"


def _row(one: Filled) -> str:
    if one.answer is None:
        answer, evidence = f"**{BLANK}**", ""
    else:
        rest = f" **Not known to this run: {one.answer.missing}**" if one.answer.missing else ""
        answer = one.answer.text + rest
        evidence = "; ".join(f"`{pointer}`" for pointer in one.answer.evidence)
    return table_row((one.item.number, one.item.question, answer, evidence))


def _without_double_blanks(lines: Sequence[str]) -> list[str]:
    kept: list[str] = []
    for line in lines:
        if line or (kept and kept[-1]):
            kept.append(line)
    return kept
