"""Examples for the OpenAPI description: cases to send, and what the policy answers.

Imports the bundle's policy and answers; nothing here serves a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lesion_triage.bundle.answers import Issuer, build_answer, build_reason
from lesion_triage.bundle.calibration import PlattCalibrator, calibrated_score
from lesion_triage.bundle.history import NO_HISTORY, History
from lesion_triage.bundle.messages import english_catalogue
from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.red_flags import RedFlag, RedFlags
from lesion_triage.bundle.schema import Answer, ImageAnswer, Policy, ReasonCode

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNoaGgAAAMEAYFL09IQAAAAAElFTkSuQmCC"
"""A grey PNG of one pixel, in base64."""
HISTORY = {"age_years": 61, "bleeding": True, "painful": False}

_HASH = "5f3b" * 16
_CALIBRATOR = PlattCalibrator(slope=0.9, intercept=-0.6)
_FLAG = RedFlag.model_validate(
    {
        "code": "bleeding",
        "when": {"field": "bleeding", "is": True},
        "action": {"refer": True},
        "source": "An example.",
    }
)
_ISSUER = Issuer(
    policy=Policy(
        calibrator=_CALIBRATOR,
        threshold=0.12,
        band_limits=(0.5, 0.12, 0.04),
        deadline_hours=48.0,
        red_flags=RedFlags(flags=(_FLAG,)),
    ),
    bundle_name="example",
    bundle_sha256=_HASH,
    certificate_id=_HASH[:16],
    synthetic=False,
)


def _answer(logits: Sequence[float | None], history: History) -> Answer:
    """The answer to a case, its scores rounded for readers."""
    images = [
        ImageAnswer(
            index=index,
            gradable=logit is not None,
            logit=logit,
            score=None if logit is None else round(calibrated_score(_CALIBRATOR, logit), 4),
            reasons=()
            if logit is not None
            else (build_reason(ReasonCode.image_too_dark, english_catalogue()),),
            advice=() if logit is None else (build_reason(ReasonCode.image_hair, english_catalogue()),),
        )
        for index, logit in enumerate(logits)
    ]
    decision = decide(_ISSUER.policy, logits, history)
    if decision.score is not None:
        decision = replace(decision, score=round(decision.score, 4))
    return build_answer(_ISSUER, decision, images, history, english_catalogue())


DISPOSITIONS = english_catalogue().dispositions
ANSWERS = {
    "needs_in_person": _answer([1.4, None], NO_HISTORY),
    "red_flag": _answer([-3.2], History.model_validate(HISTORY)),
    "below_threshold": _answer([-3.2], NO_HISTORY),
    "ungradable": _answer([None], NO_HISTORY),
}
