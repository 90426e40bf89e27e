"""The label table: which diagnosis counts as "needs an in-person visit". Imports the exception tree only.

``decisions`` is the table that a clinician reviews line by line: one decision for each kind of lesion, with
its reason and source. ``codes`` says which line each dataset's own code maps to. docs/labels.md shows both.

The label is the reference standard for training and for the certificate; it is not management advice. It
asks one question about a lesion whose nature is known: did it have to be seen and treated in person, by
whichever clinician? A lesion that looks worrying, grows, bleeds or is new at an unusual age deserves a visit
whatever it turns out to be. That is a red flag, is handled separately from the picture, and is no reason to
change a line here. The False rows therefore mean "not by this diagnosis alone", and the None of a record
without a label is never turned into False. The line most open to debate is actinic keratosis: mild ones may
be left untreated. A site that disagrees changes the line, retrains and recertifies.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from lesion_triage.data.labels.codes import CODES
from lesion_triage.data.labels.decisions import DECISIONS
from lesion_triage.errors import DataError, hint

T = TypeVar("T")


class Label(NamedTuple):
    """What the table says of one dataset's code."""

    name: str
    needs_in_person: bool | None
    """None: the diagnosis alone does not decide; such records enter no split."""
    why: str
    source: str
    """Short references: the dataset's own for the meaning of the code, then the decision's."""
    decision: str
    """Key of the line in ``decisions``; a kind of lesion has the same key in every dataset."""


def _label(meaning: str, key: str) -> Label:
    name, needs, why, source = DECISIONS[key]
    return Label(name, needs, why, f"{meaning}; {source}", key)


LABELS: Mapping[str, Mapping[str, Label]] = MappingProxyType(
    {
        family: MappingProxyType({code: _label(meaning, key) for code, key in codes.items()})
        for family, (meaning, codes) in CODES.items()
    }
)
"""Family of sources, then the source's own code, then the label."""


def label_for(family: str, code: str) -> Label:
    """The line of the table for one code, spelt exactly as in its source.

    Raises:
        DataError: the family or the code is not in the table: a new diagnosis is a clinical decision, not a
            default.
    """
    codes = _lookup(LABELS, family, "family of sources")
    return _lookup(codes, code, f"diagnosis of '{family}'")


def _lookup(table: Mapping[str, T], key: str, what: str) -> T:
    if key in table:
        return table[key]
    raise DataError(
        f"'{key}' is not a known {what}; {hint(key, table)} A new one needs a reviewed line in data/labels."
    )
