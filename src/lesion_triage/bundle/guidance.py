"""Which limits, gaps and advice accompany an answer, as codes. The texts are in the catalogues.

Imports the standard library, the history, the red flags and the schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from lesion_triage.bundle.history import History
from lesion_triage.bundle.red_flags import NUMBER_FIELDS, YES_NO_FIELDS, RedFlag, group_fields_in_rules
from lesion_triage.bundle.schema import Disposition

QUESTIONS = (*YES_NO_FIELDS, *NUMBER_FIELDS)
"""Questions of a history about lesion and person. The groups (sex, site, skin type) are not among them:
each becomes a question only if a rule looks at it."""


class Limit(StrEnum):
    """What makes this remote assessment less than an examination."""

    no_touch = "no_touch"
    photographs_only = "photographs_only"
    other_skin_not_examined = "other_skin_not_examined"
    one_moment = "one_moment"
    history_not_given = "history_not_given"
    history_partly_given = "history_partly_given"
    photographs_unusable = "photographs_unusable"
    certificate_scope = "certificate_scope"
    excludes_nothing = "excludes_nothing"


class NotAssessed(StrEnum):
    """What nobody has examined."""

    firmness_and_thickness = "firmness_and_thickness"
    dermoscopy_not_sent = "dermoscopy_not_sent"
    rest_of_skin = "rest_of_skin"
    lymph_nodes = "lymph_nodes"
    course = "course"
    symptoms = "symptoms"
    general_condition = "general_condition"


class Counselling(StrEnum):
    """What a clinician can tell the patient: what to watch for, and when to seek care sooner."""

    clinician_reads = "clinician_reads"
    photographs_are_no_examination = "photographs_are_no_examination"
    send_new_photographs = "send_new_photographs"
    keep_the_appointment = "keep_the_appointment"
    look_every_month = "look_every_month"
    sooner_if_it_changes = "sooner_if_it_changes"
    sooner_if_it_bleeds = "sooner_if_it_bleeds"
    sooner_if_it_hurts = "sooner_if_it_hurts"
    sooner_if_another_appears = "sooner_if_another_appears"
    sooner_if_a_lump_stays = "sooner_if_a_lump_stays"
    same_day_if_unwell = "same_day_if_unwell"
    sooner_if_worried = "sooner_if_worried"


def assessment_limits(
    history: History, questions: Sequence[str], *, photographs_unusable: int
) -> tuple[Limit, ...]:
    """The limits of one remote assessment.

    Args:
        history: as given.
        questions: ``policy_questions`` the rules that apply.
        photographs_unusable: how many of the case's photographs could not be used.
    """
    answered_count = len(answered_questions(history, questions))
    conditional = {
        Limit.history_not_given: answered_count == 0,
        Limit.history_partly_given: 0 < answered_count < len(questions),
        Limit.photographs_unusable: photographs_unusable > 0,
    }
    return tuple(limit for limit in Limit if conditional.get(limit, True))


def unassessed_aspects(history: History) -> tuple[NotAssessed, ...]:
    """What was not assessed. Answers in the history, reported rather than examined, shorten the list."""
    reported_by = {
        NotAssessed.course: {"changing", "growing", "growing_rapidly"},
        NotAssessed.symptoms: {"bleeding", "ulcerated", "painful", "itching"},
        NotAssessed.general_condition: {"fever", "weight_loss", "unwell"},
    }
    known = set(answered_questions(history, QUESTIONS))
    return tuple(gap for gap in NotAssessed if gap not in reported_by or not reported_by[gap] <= known)


def counselling_for(disposition: Disposition) -> tuple[Counselling, ...]:
    """The advice for a disposition. A patient who is told to wait is also told when not to."""
    only = {
        Counselling.keep_the_appointment: Disposition.needs_in_person,
        Counselling.send_new_photographs: Disposition.ungradable,
    }
    return tuple(advice for advice in Counselling if only.get(advice, disposition) is disposition)


def policy_questions(flags: Sequence[RedFlag]) -> tuple[str, ...]:
    """``QUESTIONS``, and the groups that a rule looks at: a flag that fires implies an answer to something.

    It walks through all rules, so call it once for a policy, not for each case.
    """
    return (*QUESTIONS, *group_fields_in_rules(flags))


def answered_questions(history: History, questions: Sequence[str]) -> tuple[str, ...]:
    """The questions that the history answers, in the order asked."""
    return tuple(question for question in questions if getattr(history, question) is not None)
