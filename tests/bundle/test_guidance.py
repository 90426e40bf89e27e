"""Which limits and which advice go with an answer: none is lost, and whoever waits is told when not to."""

import pytest
from hypothesis import example, given

from histories import flag, flag_lists, histories
from lesion_triage.bundle.guidance import (
    QUESTIONS,
    Counselling,
    Limit,
    NotAssessed,
    answered_questions,
    assessment_limits,
    counselling_for,
    policy_questions,
    unassessed_aspects,
)
from lesion_triage.bundle.history import NO_HISTORY, History
from lesion_triage.bundle.red_flags import RedFlag, raised_flags
from lesion_triage.bundle.schema import Disposition

EVERYTHING = History.model_validate(
    {name: 1 if name[-6:] in ("_years", "_weeks") or name[-3:] == "_mm" else False for name in QUESTIONS}
)
OF_THE_CASE = {Limit.history_not_given, Limit.history_partly_given, Limit.photographs_unusable}


@given(histories)
def test_a_history_is_complete_partial_or_missing(history: History) -> None:
    limits = set(assessment_limits(history, QUESTIONS, photographs_unusable=0))
    missing = [name for name in QUESTIONS if getattr(history, name) is None]
    assert (Limit.history_not_given in limits) is (len(missing) == len(QUESTIONS))
    assert (Limit.history_partly_given in limits) is (0 < len(missing) < len(QUESTIONS))
    assert set(Limit) - OF_THE_CASE <= limits


def test_an_answer_no_is_an_answer() -> None:
    assert answered_questions(EVERYTHING, QUESTIONS) == QUESTIONS
    assert set(assessment_limits(EVERYTHING, QUESTIONS, photographs_unusable=0)) == set(Limit) - OF_THE_CASE
    assert answered_questions(NO_HISTORY, QUESTIONS) == ()


BY_SITE = flag({"any_of": [{"all_of": [{"field": "anatom_site_general", "one_of": ["oral/genital"]}]}]})
GIVEN_IN_PART = {Limit.history_not_given, Limit.history_partly_given}


@given(flag_lists(), histories)
@example((BY_SITE,), History(anatom_site_general="oral/genital"))
def test_no_answer_says_beside_a_red_flag_that_no_history_was_given(
    flags: tuple[RedFlag, ...], history: History
) -> None:
    if raised_flags(flags, history):
        assert Limit.history_not_given not in assessment_limits(
            history, policy_questions(flags), photographs_unusable=0
        )


@pytest.mark.parametrize(
    ("history", "flags", "limits"),
    [
        (History(anatom_site_general="oral/genital"), (BY_SITE,), {Limit.history_partly_given}),
        (History(anatom_site_general="oral/genital"), (), {Limit.history_not_given}),
        (History(sex="female"), (BY_SITE,), {Limit.history_not_given}),
        (EVERYTHING, (BY_SITE,), {Limit.history_partly_given}),
        (EVERYTHING.model_copy(update={"anatom_site_general": "head/neck"}), (BY_SITE,), set()),
    ],
)
def test_a_group_is_an_answer_where_a_rule_looks_at_it(
    history: History, flags: tuple[RedFlag, ...], limits: set[Limit]
) -> None:
    assert (
        GIVEN_IN_PART & set(assessment_limits(history, policy_questions(flags), photographs_unusable=0))
        == limits
    )


@pytest.mark.parametrize(("unusable", "expected"), [(0, False), (1, True), (16, True)])
def test_unusable_photographs_are_a_limit(unusable: int, expected: bool) -> None:
    limits = assessment_limits(NO_HISTORY, QUESTIONS, photographs_unusable=unusable)
    assert (Limit.photographs_unusable in limits) is expected


@given(histories)
def test_what_only_an_examination_shows_is_never_assessed(history: History) -> None:
    only_seen = {
        NotAssessed.firmness_and_thickness,
        NotAssessed.dermoscopy_not_sent,
        NotAssessed.rest_of_skin,
        NotAssessed.lymph_nodes,
    }
    assert only_seen <= set(unassessed_aspects(history)) <= set(NotAssessed)


def test_a_symptom_that_was_not_asked_for_leaves_symptoms_unassessed() -> None:
    assert NotAssessed.symptoms not in unassessed_aspects(EVERYTHING)
    assert NotAssessed.symptoms in unassessed_aspects(EVERYTHING.model_copy(update={"itching": None}))


@pytest.mark.parametrize("disposition", Disposition)
def test_everybody_is_told_when_to_seek_care_sooner(disposition: Disposition) -> None:
    sooner = {advice for advice in Counselling if advice.startswith(("sooner", "same_day"))}
    assert len(sooner) == 7
    assert sooner <= set(counselling_for(disposition))


def test_each_advice_is_given_with_some_disposition() -> None:
    assert {advice for one in Disposition for advice in counselling_for(one)} == set(Counselling)
    assert Counselling.keep_the_appointment in counselling_for(Disposition.needs_in_person)
    assert Counselling.send_new_photographs not in counselling_for(Disposition.below_threshold)
