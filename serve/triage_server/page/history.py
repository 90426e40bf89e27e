"""The history as a form: its questions with their closed lists, and the history that was filled in.

Imports the bundle's history, guidance and certificate, and the problems.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from lesion_triage.bundle.certificate import Certificate
from lesion_triage.bundle.history import ISIC_TERMS, History
from lesion_triage.bundle.policy import UNKNOWN_GROUP
from lesion_triage.bundle.red_flags import GROUP_FIELDS, NUMBER_FIELDS, YES_NO_FIELDS
from lesion_triage.bundle.schema import Policy
from lesion_triage.bundle.store import Bundle
from triage_server.page.forms import Form
from triage_server.problems import RequestError

_LESION_QUESTIONS = (
    "is_new",
    "changing",
    "growing",
    "growing_rapidly",
    "raised_and_firm",
    "bleeding",
    "ulcerated",
    "painful",
    "itching",
    "inflamed",
    "unlike_other_moles",
    "involves_nail",
)
NUMBER_RANGES = {"age_years": (0.0, 120.0), "duration_weeks": (0.0, 6500.0), "diameter_mm": (0.1, 500.0)}
"""Smallest and largest number, by field."""
_NUMBER_PATTERN = re.compile(r"[0-9]+(?:[.,][0-9]{1,2})?")
"""As people type numbers. Three digits after the mark are refused: "1,040" may be a thousand or one."""
_YES_NO = {"": None, "yes": True, "no": False}


@dataclass(frozen=True)
class Questions:
    """What the form asks."""

    groups: Mapping[str, tuple[str, ...]]
    """Choices by field: a closed list, because free text could contain a person's name."""
    numbers: Mapping[str, tuple[float, float]]
    """Smallest and largest number, by field."""
    lesion: tuple[str, ...]
    """Yes-or-no questions about the lesion."""
    risks: tuple[str, ...]
    """All other yes-or-no questions."""
    required: frozenset[str]
    """Fields that the certificate requires: it does not cover a case without them."""


def questions_for(bundle: Bundle) -> Questions:
    """The questions for a bundle: the usual choices, and those of the certificate's groups."""
    policy, certificate = bundle.policy, bundle.certificate
    groups = {
        name: tuple(dict.fromkeys((*ISIC_TERMS[name], *_certified_groups(certificate, policy, name))))
        for name in GROUP_FIELDS
    }
    required = {"age_years" if one.by == "age_band" else one.by for one in policy.groupings}
    return Questions(
        groups=groups,
        numbers={name: NUMBER_RANGES[name] for name in NUMBER_FIELDS},
        lesion=_LESION_QUESTIONS,
        risks=tuple(name for name in YES_NO_FIELDS if name not in _LESION_QUESTIONS),
        required=frozenset(required),
    )


def _certified_groups(certificate: Certificate, policy: Policy, name: str) -> list[str]:
    rows = [member for row in certificate.groups if row.by == name for member in row.members]
    with_threshold = [group for one in policy.groupings if one.by == name for group in one.thresholds]
    return [group for group in (*rows, *with_threshold) if group != UNKNOWN_GROUP]


def parse_history(form: Form, questions: Questions) -> History:
    """The history as filled in.

    Raises:
        RequestError: a field holds what the form does not offer; names the fields, not their values.
    """
    values: dict[str, object] = {}
    invalid: list[str] = []
    for name in (*questions.lesion, *questions.risks):
        if (answer := form.get(name)) in _YES_NO:
            values[name] = _YES_NO[answer]
        else:
            invalid.append(name)
    for name, groups in questions.groups.items():
        if (group := form.get(name)) and group not in groups:
            invalid.append(name)
        values[name] = group or None
    for name, (least, most) in questions.numbers.items():
        if typed := form.get(name):
            if _NUMBER_PATTERN.fullmatch(typed) and least <= float(typed.replace(",", ".")) <= most:
                values[name] = float(typed.replace(",", "."))
            else:
                invalid.append(name)
    try:
        history = History.model_validate(values)
    except ValidationError as error:
        invalid += [str(problem["loc"][0]) for problem in error.errors()]
    if invalid:
        raise RequestError("history_not_valid", fields=", ".join(dict.fromkeys(invalid)))
    return history
