"""Age and sex from the FHIR R4 Patient whom a case is about. Imports the history and the resources.

Nothing else of a Patient is read, except what FHIR forbids to ignore. A birth date becomes an age in
completed years at once; it is kept nowhere, and no refusal quotes it.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Sequence
from datetime import date, timedelta

from lesion_triage.bundle.history import History
from triage_server.fhir_resources import Resource, as_object, invalid_document, list_member, refuse_modifiers
from triage_server.problems import RequestError

_GENDERS = ("female", "male", "other", "unknown")
_BIRTH_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?", re.ASCII)
"""R4's date: a year, a month or a day."""
_MAX_AGE_YEARS = 120
"""Of ``History.age_years``. A birth date before that is a placeholder, such as 1900-01-01."""
_TOLERANCE_YEARS = 1
"""Between an age that was answered and the birth date: an answer may be rounded, or a year old."""


def complete_history(history: History, patients: Sequence[Resource], today: date) -> History:
    """The history with the age and sex of its Patient where it does not answer them.

    An answer counts more than the Patient, unless they contradict each other.

    Args:
        history: as answered in Observations and QuestionnaireResponses.
        patients: the resources that the subjects of the case refer to, all of one person.
        today: the day, in UTC, on which the request is answered.

    Raises:
        RequestError: a Patient is not in use, dead or invalid, or contradicts another or the history.
    """
    for patient in patients:
        _check_in_use(patient)
    known: dict[str, str | float] = {}
    gender = _only_value(patients, "gender")
    if gender not in (None, *_GENDERS):
        raise _invalid(f"Patient.gender; expected {', '.join(_GENDERS)}")
    if {gender, (history.sex or "").strip().casefold()} == {"female", "male"}:
        raise _invalid("sex, with two different answers, one of them Patient.gender")
    if gender not in (None, "unknown") and history.sex is None:
        known["sex"] = gender
    birth_date = _only_value(patients, "birthDate")
    if birth_date is not None:
        youngest, oldest = _age_range_years(birth_date, today)
        if history.age_years is None:
            known["age_years"] = float(youngest)
        elif not youngest - _TOLERANCE_YEARS <= history.age_years <= oldest + _TOLERANCE_YEARS:
            raise _invalid("age_years, with two different answers, one of them from Patient.birthDate")
    return history.model_copy(update=known)


def _check_in_use(patient: Resource) -> None:
    """Refuse a Patient with a modifier: the age would be another person's, or that of a dead one."""
    refuse_modifiers(patient)
    if patient.get("active") is False:
        raise invalid_document("Patient.active: a record that is not in use")
    if patient.get("deceasedBoolean") or patient.get("deceasedDateTime"):
        raise invalid_document("Patient.deceased: a person who has died")
    if any(as_object(one).get("type") == "replaced-by" for one in list_member(patient, "link")):
        raise invalid_document("Patient.link: a record that was replaced by another")


def _only_value(patients: Sequence[Resource], name: str) -> str | None:
    """The value of a member, if any has it. A null is a lost value, and so refused, not an absent one."""
    values = {str(value) if isinstance(value := one[name], str) else None for one in patients if name in one}
    if None in values or len(values) > 1:
        raise _invalid(f"Patient.{name}, not a text or with two different values")
    return next(iter(values), None)


def _age_range_years(birth_date: str, today: date) -> tuple[int, int]:
    """Youngest and oldest possible age in completed years; they differ if the date has no month or day.

    The youngest counts: somebody who may still be a child is one.
    """
    match = _BIRTH_DATE.fullmatch(birth_date)
    if match is None:
        raise _invalid("Patient.birthDate; expected YYYY, YYYY-MM or YYYY-MM-DD")
    year, month, day = match.groups()
    try:
        first = date(int(year), int(month or 1), int(day or 1))
        last_month = int(month or 12)
        last = date(first.year, last_month, int(day or monthrange(first.year, last_month)[1]))
    except ValueError:
        raise _invalid("Patient.birthDate, a day that no calendar has") from None
    if first > today + timedelta(days=1):  # somewhere it is tomorrow already
        raise _invalid("Patient.birthDate, in the future")
    youngest, oldest = (max(_completed_years(born, today), 0) for born in (last, first))
    if youngest > _MAX_AGE_YEARS:
        raise _invalid(f"Patient.birthDate, more than {_MAX_AGE_YEARS} years ago")
    return youngest, oldest


def _completed_years(born: date, today: date) -> int:
    return today.year - born.year - ((today.month, today.day) < (born.month, born.day))


def _invalid(fields: str) -> RequestError:
    return RequestError("history_not_valid", fields=fields)
