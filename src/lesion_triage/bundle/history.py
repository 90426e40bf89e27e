"""What a platform may tell of the person and the lesion beside the photographs.

Imports pydantic and the document. Every field is closed: a number, a yes or a no, or the name of a group.
There is no free text, so nothing that identifies a person has a place to stand.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, FiniteFloat, StrictBool, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from lesion_triage.bundle.document import Document

GroupName = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^\w[\w &/.,+()-]*$")]
USUAL_WORDS: Mapping[str, tuple[str, ...]] = {
    "sex": ("female", "male", "other"),
    "anatom_site_general": (
        "head/neck",
        "upper extremity",
        "lower extremity",
        "anterior torso",
        "posterior torso",
        "lateral torso",
        "palms/soles",
        "oral/genital",
    ),
    "fitzpatrick_skin_type": ("I", "II", "III", "IV", "V", "VI"),
}
"""Words of the ISIC archive. No two of a field overlap, so who says one of them says none of the others."""

YesNo = StrictBool | None
"""None: not said, which is never read as no. Strict, because a lax reader takes the word "off" for no."""


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def _a_number(told: Any) -> Any:
    if isinstance(told, bool):
        raise ValueError("expected a number, found true or false")
    if isinstance(told, str | bytes):
        raise ValueError("expected a number, found a text")
    return told


_Number = BeforeValidator(_a_number)
"""No yes and no no, which a lax reader takes for 1 and 0, and no text, of which it takes "1_0" for 10.
Outermost, or the description of the interface would not name the limits of a field."""


class History(Document):
    """What is known of the person and the lesion beside the photographs. None: not said."""

    sex: GroupName | None = None
    age_years: Annotated[FiniteFloat, Field(ge=0, le=120), _Number] | None = None
    anatom_site_general: GroupName | None = None
    fitzpatrick_skin_type: GroupName | None = None

    duration_weeks: Annotated[FiniteFloat, Field(ge=0, le=6500), _Number] | None = None
    """Since the lesion was first noticed."""
    diameter_mm: Annotated[FiniteFloat, Field(ge=0, le=500), _Number] | None = None
    """The largest, measured on the skin: a photograph has no scale."""
    is_new: YesNo = None
    """It appeared within the last twelve months."""
    changing: YesNo = None
    """It has changed in size, shape or colour within the last twelve months."""
    growing: YesNo = None
    """It has become larger or higher for a month or more."""
    growing_rapidly: YesNo = None
    """It has become visibly larger within six weeks."""
    raised_and_firm: YesNo = None
    """It stands above the skin and is firm to the touch."""
    bleeding: YesNo = None
    """It bleeds or oozes without having been hurt."""
    ulcerated: YesNo = None
    """It is open or crusted and has not closed for four weeks."""
    painful: YesNo = None
    """It hurts, by itself or when touched."""
    itching: YesNo = None
    """It itches or feels different, for four weeks or more."""
    inflamed: YesNo = None
    """It is red or swollen, or the skin around it is."""
    unlike_other_moles: YesNo = None
    """It looks different from the person's other moles."""
    involves_nail: YesNo = None
    """It is a new or changing line in a nail, or lies under or beside one."""

    immunosuppressed: YesNo = None
    """By medicine, by a transplant or by an illness."""
    skin_tumour_treated_before: YesNo = None
    """A skin tumour was treated before, there or elsewhere."""
    relative_with_skin_tumour: YesNo = None
    """A parent, brother, sister or child was treated for one."""
    many_moles: YesNo = None
    """More than a hundred."""
    swollen_lymph_nodes: YesNo = None
    """A lump in neck, armpit or groin that has stayed for three weeks."""
    fever: YesNo = None
    """Not explained otherwise, as the next two."""
    weight_loss: YesNo = None
    unwell: YesNo = None
    patient_worried: YesNo = None
    """Of this lesion more than of others."""
    clinician_concerned: YesNo = None
    """The clinician who saw the lesion asks for it to be seen again in person."""


NO_HISTORY = History()


def as_text(history: History) -> str:
    """What was said, as one line of JSON for the cell of a table; empty if nothing was."""
    return "" if history == NO_HISTORY else history.model_dump_json(exclude_none=True)


def from_json(text: str | bytes) -> History:
    """The history in a JSON text, wherever it comes from.

    Raises:
        pydantic.ValidationError: it is no JSON object, an answer is none to its question, or a field stands
            twice: which of the two answers counts would be anybody's guess.
    """
    history = History.model_validate_json(text)
    told = json.loads(text, object_pairs_hook=list)  # pydantic keeps the last of them, and says nothing
    times = Counter(name for name, _ in told)
    if twice := next((name for name, count in times.items() if count > 1), None):
        problem = PydanticCustomError("field_twice", "the field stands twice; keep one")
        raise ValidationError.from_exception_data(
            "History", [InitErrorDetails(type=problem, loc=(twice,), input=None)]
        )
    return history


def from_text(text: str) -> History:
    """Read back what ``as_text`` wrote.

    Raises:
        pydantic.ValidationError: as ``from_json``.
    """
    return from_json(text) if text else NO_HISTORY


def number_in(text: str) -> float:
    """The number in a cell of a table or in a field of a form, where every answer is a text.

    Raises:
        ValueError: it is no number in decimal notation, with or without an exponent.
    """
    if not _NUMBER.fullmatch(text.strip()):
        raise ValueError("expected a number")
    return float(text)


def together(histories: Sequence[History]) -> History:
    """One history of several about the same lesion: a yes outweighs a no, else the first answer stands."""
    answers: dict[str, Any] = {}
    for name in History.model_fields:
        said = [answer for one in histories if (answer := getattr(one, name)) is not None]
        if said:
            # Not ``True in said``: to Python a diameter of 1 is a yes.
            answers[name] = any(answer is True for answer in said) or said[0]
    return History(**answers)
