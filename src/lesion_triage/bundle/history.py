"""What a platform may say about person and lesion beside the photographs.

Imports pydantic and the document. Every field is a number, a yes or no, or the name of a group. There is no
free text, so there is no place for anything that identifies a person.
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
ISIC_TERMS: Mapping[str, tuple[str, ...]] = {
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
"""Terms of the ISIC archive. Within a field they are mutually exclusive: one rules out all the others."""

YesNo = StrictBool | None
"""None: not answered, which is never read as no. Strict, because lax parsing reads "off" as no."""


_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def _refuse_coercion(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number, found true or false")
    if isinstance(value, str | bytes):
        raise ValueError("expected a number, found a text")
    return value


_NotCoerced = BeforeValidator(_refuse_coercion)
"""Refuses booleans, which lax parsing reads as 1 and 0, and text, of which it reads "1_0" as 10.
It must be outermost, or the OpenAPI description would lose the limits of the field."""


class History(Document):
    """What is known of the person and the lesion beside the photographs. None: not answered."""

    sex: GroupName | None = None
    age_years: Annotated[FiniteFloat, Field(ge=0, le=120), _NotCoerced] | None = None
    anatom_site_general: GroupName | None = None
    fitzpatrick_skin_type: GroupName | None = None

    duration_weeks: Annotated[FiniteFloat, Field(ge=0, le=6500), _NotCoerced] | None = None
    """Since the lesion was first noticed."""
    diameter_mm: Annotated[FiniteFloat, Field(ge=0, le=500), _NotCoerced] | None = None
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
    """It is raised above the skin and firm to the touch."""
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
    """It is a new or changing line in a nail, or is under or beside one."""

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
    """Not explained otherwise; the same for the next two."""
    weight_loss: YesNo = None
    unwell: YesNo = None
    patient_worried: YesNo = None
    """More about this lesion than about others."""
    clinician_concerned: YesNo = None
    """The clinician who saw the lesion asks for it to be seen again in person."""


NO_HISTORY = History()


def history_to_text(history: History) -> str:
    """The answers given, as one line of JSON for a table cell; empty if there are none."""
    return "" if history == NO_HISTORY else history.model_dump_json(exclude_none=True)


def history_from_json(text: str | bytes) -> History:
    """Parse a history from JSON, whatever its origin.

    Raises:
        pydantic.ValidationError: not a JSON object, an answer that is not valid, or a field that occurs
            duplicate: it would be anyone's guess which answer counts.
    """
    history = History.model_validate_json(text)
    pairs = json.loads(text, object_pairs_hook=list)  # pydantic would silently keep the last duplicate
    times = Counter(name for name, _ in pairs)
    if duplicate := next((name for name, count in times.items() if count > 1), None):
        problem = PydanticCustomError("field_twice", "the field appears twice; keep one")
        raise ValidationError.from_exception_data(
            "History", [InitErrorDetails(type=problem, loc=(duplicate,), input=None)]
        )
    return history


def history_from_text(text: str) -> History:
    """Read back the output of ``history_to_text``.

    Raises:
        pydantic.ValidationError: as ``history_from_json``.
    """
    return history_from_json(text) if text else NO_HISTORY


def parse_decimal(text: str) -> float:
    """The number in a table cell or form field, where every answer is text.

    Raises:
        ValueError: not a number in decimal notation, with or without an exponent.
    """
    if not _DECIMAL.fullmatch(text.strip()):
        raise ValueError("expected a number")
    return float(text)


def merge_histories(histories: Sequence[History]) -> History:
    """Merge histories about the same lesion: a yes outweighs a no, otherwise the first answer counts.

    Whether another number or group would send the case up depends on the policy; a caller that decides how
    urgent a case is refuses two.
    """
    answers: dict[str, Any] = {}
    for name in History.model_fields:
        given = [answer for one in histories if (answer := getattr(one, name)) is not None]
        if given:
            # Not ``True in said``: in Python a diameter of 1 equals True.
            answers[name] = any(answer is True for answer in given) or given[0]
    return History(**answers)
