"""What is read of a run's files; a file of another form is damaged. Imports the dossier.

``Results`` and ``Audit`` are what a record of change reads, the forms that begin with ``Card`` what cards do.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, RootModel, ValidationError

from lesion_triage.bundle.document import first_problem
from lesion_triage.cards.dossier import Dossier
from lesion_triage.errors import RunError


class _Interval(BaseModel):
    value: float
    low: float
    high: float


class _Slice(BaseModel):
    name: str
    title: str
    metrics: dict[str, _Interval | None] = {}
    sensitivity_exact: _Interval | None = None
    specificity_exact: _Interval | None = None
    referral_rate_exact: _Interval | None = None


class _Parity(BaseModel):
    images: int
    largest_score_difference: float
    decision_flips: int | None


class Results(BaseModel):
    """What a record of change reads of ``results.json``."""

    slices: tuple[_Slice, ...] = ()
    parity: Annotated[_Parity | None, BeforeValidator(lambda found: found or None)] = None


class _Finding(BaseModel):
    code: str
    counts_as: str


class Audit(BaseModel):
    """What a record of change reads of ``audit.json``."""

    verdict: Literal["pass", "warn", "fail"]
    facts: dict[str, Any] = {}
    findings: tuple[_Finding, ...] = ()


class _CountedInterval(_Interval):
    successes: int
    trials: int


class _CardSlice(_Slice):
    cases: int
    positives: int
    metrics: dict[str, _Interval | None]
    note: str = ""
    sensitivity_exact: _CountedInterval | None = None
    specificity_exact: _CountedInterval | None = None


class _CardGroup(BaseModel):
    by: str
    group: str
    cases: int
    positives: int
    sensitivity: _Interval | None
    specificity: _Interval | None


class CardResults(Results):
    """What cards read of ``results.json``."""

    split: str
    cases: int
    positives: int
    missed: int
    photographs: int
    slices: tuple[_CardSlice, ...]
    groups: tuple[_CardGroup, ...] = ()


class _CardFinding(_Finding):
    title: str
    verdict: str
    summary: str
    accepted: str


class CardAudit(Audit):
    """What cards read of ``audit.json``."""

    findings: tuple[_CardFinding, ...]


class _CardSource(BaseModel):
    source: str


class _CardData(BaseModel):
    source: str | None = None
    mixture: tuple[_CardSource, ...] = ()


class _CardEnsemble(BaseModel):
    members: int | None = None


class CardConfig(BaseModel):
    """What cards compute with of ``config.yaml``; a key that is missing is a blank on the card."""

    data: _CardData = _CardData()
    ensemble: _CardEnsemble = _CardEnsemble()


class CardStage(BaseModel):
    """What cards read of a stage's record."""

    seconds: float


class CardLines(RootModel[list[dict[str, Any]]]):
    """A learning curve, or the openings of the test split."""


def checked(dossier: Dossier, file: str, form: type[BaseModel]) -> dict[str, Any] | None:
    """The content of a file, as it stands there; None: there is no such file.

    Raises:
        RunError: it cannot be read, or is not of the form.
    """
    found: dict[str, Any] | None = dossier.get(file)
    if found is None:
        return None
    try:
        form.model_validate(found)
    except ValidationError as error:
        raise RunError(
            f"{dossier.path(file)}: damaged ({first_problem(error)}); restore it, or run the stage "
            "that wrote it again."
        ) from None
    return found
