"""Turns a decision into the answer that every interface returns. Imports the documents of this package.

Nothing is decided here. Every sentence comes from a message catalogue. Of what a platform sent, the note
repeats numbers and never words.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from lesion_triage.bundle.guidance import (
    assessment_limits,
    counselling_for,
    policy_questions,
    unassessed_aspects,
)
from lesion_triage.bundle.history import History
from lesion_triage.bundle.messages import Catalogue
from lesion_triage.bundle.note import NoteFacts, NotePhotograph, write_note
from lesion_triage.bundle.policy import Decision
from lesion_triage.bundle.red_flags import RedFlag
from lesion_triage.bundle.schema import Answer, ImageAnswer, Policy, PresentFlag, Reason, ReasonCode, Remark
from lesion_triage.bundle.store import Bundle


@dataclass(frozen=True, slots=True)
class Issuer:
    """The bundle's facts that an answer rests on and names."""

    policy: Policy
    bundle_name: str
    bundle_sha256: str
    certificate_id: str
    synthetic: bool
    questions: tuple[str, ...] = field(init=False)
    """The questions that the policy's rules ask."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "questions", policy_questions(self.policy.red_flags.flags))

    @classmethod
    def for_bundle(cls, bundle: Bundle) -> Self:
        """The issuer for a bundle."""
        return cls(
            policy=bundle.policy,
            bundle_name=bundle.header.name,
            bundle_sha256=bundle.sha256,
            certificate_id=bundle.certificate.certificate_id(),
            synthetic=bundle.header.synthetic,
        )


def build_reason(code: ReasonCode, catalogue: Catalogue) -> Reason:
    """A reason code with its texts."""
    message = catalogue.reasons[code]
    return _reason(code, message.text, message.coaching)


# Cached: building these objects for each answer takes a third of the answer's time.
@functools.lru_cache(1024)
def _reason(code: ReasonCode, text: str, coaching: str | None) -> Reason:
    return Reason(code=code, text=text, coaching=coaching)


@functools.lru_cache(1024)
def _remark(code: str, text: str) -> Remark:
    return Remark(code=code, text=text)


def build_answer(
    issuer: Issuer,
    decision: Decision,
    images: Sequence[ImageAnswer],
    history: History,
    catalogue: Catalogue,
) -> Answer:
    """Build the answer for one decided case.

    Args:
        issuer: the bundle whose policy decided.
        decision: of the case.
        images: findings of its photographs, in the order sent.
        history: sent by the platform.
        catalogue: must have a text for every red flag of the policy.
    """
    unusable = sum(not image.gradable for image in images)
    limits = assessment_limits(history, issuer.questions, photographs_unusable=unusable)
    not_assessed, counselling = unassessed_aspects(history), counselling_for(decision.disposition)
    facts = NoteFacts(
        disposition=decision.disposition,
        priority_band=decision.priority_band,
        reasons=decision.reasons,
        photographs=tuple(_note_photograph(image) for image in images),
        red_flags=issuer.policy.red_flags,
        questions=issuer.questions,
        limits=limits,
        not_assessed=not_assessed,
        counselling=counselling,
        certificate_id=issuer.certificate_id,
        bundle_name=issuer.bundle_name,
        bundle_sha256=issuer.bundle_sha256,
        synthetic=issuer.synthetic,
    )
    return Answer(
        language=catalogue.language,
        disposition=decision.disposition,
        priority_band=decision.priority_band,
        score=decision.score,
        threshold=decision.threshold,
        deadline_hours=issuer.policy.deadline_hours,
        reasons=tuple(build_reason(code, catalogue) for code in decision.reasons),
        red_flags=tuple(_present_flag(flag, catalogue) for flag in decision.red_flags),
        images=tuple(images),
        limits=_remarks(limits, catalogue.limits),
        not_assessed=_remarks(not_assessed, catalogue.not_assessed),
        counselling=_remarks(counselling, catalogue.counselling),
        note=write_note(facts, history, catalogue),
        notice=catalogue.notice,
        synthetic=issuer.synthetic,
        bundle_name=issuer.bundle_name,
        bundle_sha256=issuer.bundle_sha256,
        certificate_id=issuer.certificate_id,
    )


def _note_photograph(image: ImageAnswer) -> NotePhotograph:
    remarks = (*image.reasons, *image.advice)
    return NotePhotograph(usable=image.gradable, reasons=tuple(one.code for one in remarks))


def _present_flag(flag: RedFlag, catalogue: Catalogue) -> PresentFlag:
    return PresentFlag(
        code=flag.code,
        text=catalogue.red_flags[flag.code].text,
        refers=flag.action.refer,
        up_to_band=flag.action.up_to_band,
    )


def _remarks(codes: Iterable[str], texts: Mapping[str, str]) -> tuple[Remark, ...]:
    return tuple(_remark(code, texts[code]) for code in codes)
