"""The policy's promises: urgency never falls when the evidence rises; what is no number decides nothing."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import tiny_bundle
from histories import flag, flag_lists, histories
from lesion_triage.bundle.calibration import PlattCalibrator, calibrated_score
from lesion_triage.bundle.history import History
from lesion_triage.bundle.policy import (
    Decision,
    age_bands,
    aggregate_logits,
    decide,
    group_of,
    priority_band_of,
)
from lesion_triage.bundle.red_flags import RedFlags, any_flag_refers, latest_allowed_band, raised_flags
from lesion_triage.bundle.schema import Disposition, Grouping, Policy, ReasonCode
from lesion_triage.errors import ScoringError

float32_logits = st.floats(allow_nan=False, allow_infinity=False, width=32)
any_logits = st.floats(allow_nan=False, allow_infinity=False)
not_finite = st.sampled_from([math.nan, math.inf, -math.inf])
calibrators = st.builds(
    PlattCalibrator,
    slope=st.floats(1e-6, 1e6),
    intercept=st.floats(-1e6, 1e6),
)
aggregations = st.sampled_from(["max", "mean"])


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    third, second, first = sorted(draw(st.tuples(*[st.floats(0, 1)] * 3)))
    return Policy(
        calibrator=draw(calibrators),
        aggregation=draw(aggregations),
        threshold=draw(st.floats(third, 1)),
        band_limits=(first, second, third),
    )


def urgency(decision: Decision) -> tuple[int, int]:
    """Higher is seen sooner; for cases that have a score."""
    return (decision.disposition is Disposition.needs_in_person, -decision.priority_band)


@given(st.floats(-40, 40))
def test_score_never_falls_between_neighbouring_numbers(logit: float) -> None:
    calibrator = PlattCalibrator(slope=1.0, intercept=0.0)
    higher = math.nextafter(logit, math.inf)
    assert calibrated_score(calibrator, logit) <= calibrated_score(calibrator, higher)


@given(calibrators, st.floats(-30, 30))
def test_score_is_the_logistic_function(calibrator: PlattCalibrator, margin: float) -> None:
    logit = (margin - calibrator.intercept) / calibrator.slope
    # tanh is an independent road to the same value.
    expected = 0.5 * (1 + math.tanh((calibrator.slope * logit + calibrator.intercept) / 2))
    assert calibrated_score(calibrator, logit) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_score_saturates_without_overflow() -> None:
    calibrator = PlattCalibrator(slope=1e300, intercept=0.0)
    assert calibrated_score(calibrator, 1e300) == 1.0
    assert calibrated_score(calibrator, -1e300) == 0.0


@given(not_finite)
def test_score_of_no_number_raises(logit: float) -> None:
    with pytest.raises(ScoringError, match="finite"):
        calibrated_score(PlattCalibrator(slope=1.0, intercept=0.0), logit)


@given(st.lists(any_logits, min_size=1, max_size=16), aggregations)
def test_case_logit_lies_between_its_photographs(logits: list[float], aggregation: str) -> None:
    assert min(logits) <= aggregate_logits(logits, aggregation) <= max(logits)


@given(any_logits, st.integers(1, 16), aggregations)
def test_equal_photographs_keep_their_logit_to_the_last_bit(
    logit: float, count: int, aggregation: str
) -> None:
    assert aggregate_logits([logit] * count, aggregation) == logit


@given(st.permutations([-3.5, 0.1, 0.2, 7.25]), aggregations)
def test_order_of_photographs_does_not_matter(logits: list[float], aggregation: str) -> None:
    assert aggregate_logits(logits, aggregation) == aggregate_logits(sorted(logits), aggregation)


def test_mean_is_the_mean() -> None:
    assert aggregate_logits([-1.0, 2.0, 5.0], "mean") == pytest.approx(2.0)


def test_no_photograph_raises() -> None:
    with pytest.raises(ScoringError, match="No gradable photograph"):
        aggregate_logits([], "max")
    with pytest.raises(ScoringError, match="no photograph"):
        decide(tiny_bundle.policy(), [])


@given(policies(), st.lists(float32_logits | st.none(), max_size=4), not_finite)
def test_a_logit_that_is_no_number_raises_wherever_it_stands(
    policy: Policy, others: list[float | None], broken: float
) -> None:
    for place in range(len(others) + 1):
        with pytest.raises(ScoringError, match="finite"):
            decide(policy, [*others[:place], broken, *others[place:]])


@given(policies(), float32_logits, st.lists(float32_logits | st.none(), max_size=5), histories, st.data())
def test_raising_any_logit_never_lowers_urgency(
    policy: Policy, logit: float, others: list[float | None], history: History, data: st.DataObject
) -> None:
    policy = policy.model_copy(update={"red_flags": RedFlags(flags=data.draw(flag_lists()))})
    raised = data.draw(st.floats(min_value=logit, allow_infinity=False, width=32))
    before, after = (decide(policy, [one, *others], history) for one in (logit, raised))
    assert urgency(after) >= urgency(before)


@given(policies(), st.lists(float32_logits, min_size=1, max_size=6), float32_logits | st.none())
def test_adding_a_photograph_never_lowers_a_scored_case_under_max(
    policy: Policy, logits: list[float], added: float | None
) -> None:
    policy = policy.model_copy(update={"aggregation": "max"})
    assert urgency(decide(policy, [*logits, added])) >= urgency(decide(policy, logits))


@given(policies(), float32_logits)
def test_a_tie_with_the_threshold_refers(policy: Policy, logit: float) -> None:
    score = calibrated_score(policy.calibrator, logit)
    tied = tiny_bundle.policy(calibrator=policy.calibrator, threshold=score)
    assert decide(tied, [logit]).disposition is Disposition.needs_in_person
    if score < 1:
        above = tiny_bundle.policy(calibrator=policy.calibrator, threshold=math.nextafter(score, 2))
        assert decide(above, [logit]).disposition is Disposition.below_threshold


@given(policies(), st.lists(float32_logits, min_size=1, max_size=4))
def test_a_referred_case_never_waits_in_the_last_band(policy: Policy, logits: list[float]) -> None:
    decision = decide(policy, logits)
    if decision.disposition is Disposition.needs_in_person:
        assert decision.priority_band < 4


@given(policies(), st.integers(1, 16))
def test_without_a_gradable_photograph_the_case_is_ungradable(policy: Policy, count: int) -> None:
    assert decide(policy, [None] * count) == Decision(
        disposition=Disposition.ungradable,
        priority_band=policy.ungradable_band,
        score=None,
        threshold=policy.threshold,
        reasons=(ReasonCode.no_gradable_image,),
    )


@given(policies(), st.lists(float32_logits, min_size=1, max_size=4), st.integers(1, 4))
def test_ungradable_photographs_change_nothing_but_the_last_band(
    policy: Policy, logits: list[float], ungradable: int
) -> None:
    alone, beside = decide(policy, logits), decide(policy, [*logits, *[None] * ungradable])
    if alone.priority_band == 4:
        raised = (*alone.reasons, ReasonCode.unusable_image_band)
        alone = replace(alone, priority_band=3, reasons=raised)
    assert beside == alone


def test_a_spoilt_photograph_beside_a_low_one_keeps_the_case_out_of_the_last_band():
    policy = flagged(WORRIED, band_limits=(0.9, 0.5, 0.1))
    decision = decide(policy, [-9.0, None])
    assert (decision.disposition, decision.priority_band) == (Disposition.below_threshold, 3)
    assert decision.reasons == (ReasonCode.score_below_threshold, ReasonCode.unusable_image_band)
    by_flag = decide(policy, [-9.0, None], History(patient_worried=True))
    assert by_flag.reasons == (ReasonCode.score_below_threshold, ReasonCode.red_flag_band)
    assert by_flag.priority_band == 3


@given(policies(), flag_lists(), st.lists(float32_logits, min_size=1, max_size=4), histories, st.data())
def test_to_spoil_a_photograph_never_puts_a_case_in_the_last_band(policy, flags, logits, history, data):
    policy = policy.model_copy(update={"red_flags": RedFlags(flags=flags)})
    spoilt = data.draw(st.integers(0, len(logits) - 1))
    decision = decide(policy, [*logits[:spoilt], None, *logits[spoilt + 1 :]], history)
    assert decision.priority_band < 4


def test_reason_says_which_side_of_the_threshold() -> None:
    policy = tiny_bundle.policy(threshold=0.5)
    assert decide(policy, [0.0]).reasons == (ReasonCode.score_at_or_above_threshold,)
    assert decide(policy, [-0.1]).reasons == (ReasonCode.score_below_threshold,)


@pytest.mark.parametrize(
    ("score", "band"),
    [(1.0, 1), (0.9, 1), (0.899, 2), (0.5, 2), (0.499, 3), (0.1, 3), (0.099, 4), (0.0, 4)],
)
def test_band_starts_at_its_limit(score: float, band: int) -> None:
    policy = tiny_bundle.policy(threshold=0.5, band_limits=(0.9, 0.5, 0.1))
    assert priority_band_of(policy, score) == band


@pytest.mark.parametrize("score", [math.nan, -0.001, 1.001])
def test_band_of_no_score_raises(score: float) -> None:
    with pytest.raises(ScoringError, match=r"\[0, 1\]"):
        priority_band_of(tiny_bundle.policy(), score)


@pytest.mark.parametrize("bands", [(0.2, 0.5, 0.1), (0.9, 0.8, 0.6)])
def test_a_policy_whose_bands_contradict_it_is_refused(bands: tuple[float, float, float]) -> None:
    with pytest.raises(ValidationError, match=r"must descend|last band"):
        tiny_bundle.policy(threshold=0.5, band_limits=bands)


# Groups

BY_SEX = Grouping(by="sex", thresholds={"female": 0.5, "male": 0.7})
BY_AGE = Grouping(by="age_band", age_edges_years=(30, 70), thresholds={"30 to 69": 0.6})


@pytest.mark.parametrize("edges", [(70, 30), (30, 30)])
def test_edges_of_age_bands_ascend(edges: tuple[int, ...]):
    """With (70, 30) everyone from 30 on would be of the last band, whatever threshold the others have."""
    with pytest.raises(ValidationError, match="age_edges_years must ascend"):
        Grouping(by="age_band", age_edges_years=edges, thresholds={})


@pytest.mark.parametrize(
    ("age", "group"),
    [(0, "under 30"), (29.9, "under 30"), (30, "30 to 69"), (69.9, "30 to 69"), (70, "70 and over")],
)
def test_an_age_belongs_to_the_band_that_begins_at_or_below_it(age, group):
    assert group_of("age_band", (30, 70), History(age_years=age)) == group
    assert group in age_bands((30, 70))


@pytest.mark.parametrize("by", ["sex", "age_band", "anatom_site_general", "fitzpatrick_skin_type"])
def test_what_the_history_does_not_say_is_a_group_of_its_own(by):
    assert group_of(by, (30, 70), History()) == "unknown"


def test_a_case_is_compared_with_the_lowest_threshold_of_its_groups():
    policy = tiny_bundle.policy(threshold=0.5, groupings=(BY_SEX, BY_AGE))
    for sex, threshold in (("female", 0.5), ("male", 0.6)):
        history = History(sex=sex, age_years=40)
        at, below = math.log(threshold / (1 - threshold)), math.log(threshold / (1 - threshold)) - 1e-6
        assert decide(policy, [at + 1e-12], history).threshold == threshold
        assert decide(policy, [at + 1e-6], history).disposition is Disposition.needs_in_person
        assert decide(policy, [below], history).disposition is Disposition.below_threshold


@given(float32_logits, st.sampled_from([History(), History(sex="male"), History(sex="other", age_years=40)]))
def test_a_case_that_the_certificate_does_not_cover_goes_up_whatever_its_score(logit, history):
    policy = tiny_bundle.policy(threshold=0.5, groupings=(BY_SEX, BY_AGE))
    decision = decide(policy, [logit], history)
    assert decision.disposition is Disposition.needs_in_person
    assert ReasonCode.uncertified_subgroup in decision.reasons
    assert decision.priority_band < 4


@given(policies(), st.lists(float32_logits, min_size=1, max_size=3), st.floats(0, 119))
def test_a_history_changes_nothing_where_no_group_is_told_apart(policy, logits, age):
    history = History(sex="female", age_years=age, anatom_site_general="back")
    assert decide(policy, logits, history) == decide(policy, logits)


def test_a_threshold_of_a_group_below_the_policys_is_refused():
    with pytest.raises(ValidationError, match="below the policy's"):
        tiny_bundle.policy(threshold=0.6, groupings=(BY_SEX,))


# Red flags

BLEEDING = flag({"field": "bleeding", "is": True}, "bleeding")
WORRIED = flag({"field": "patient_worried", "is": True}, "worried", up_to_band=3)
UNWELL = flag({"field": "unwell", "is": True}, "unwell", refer=True, up_to_band=1)
photographs = st.lists(float32_logits | st.none(), min_size=1, max_size=4)


def flagged(*flags: object, **overrides: object) -> Policy:
    return tiny_bundle.policy(red_flags=RedFlags(flags=flags), **overrides)  # type: ignore[arg-type]


@given(st.lists(st.floats(-30, -1), min_size=1, max_size=3))
def test_a_red_flag_refers_whatever_the_score(logits):
    decision = decide(flagged(BLEEDING), logits, History(bleeding=True))
    assert decision.disposition is Disposition.needs_in_person
    assert decision.reasons == (ReasonCode.red_flag,)
    assert decision.red_flags == (BLEEDING,)
    assert decision.priority_band < 4
    assert decision.score == decide(flagged(), logits).score


def test_a_red_flag_refers_a_case_that_could_not_be_scored():
    decision = decide(flagged(BLEEDING), [None], History(bleeding=True))
    assert decision.disposition is Disposition.needs_in_person
    assert decision.reasons == (ReasonCode.red_flag, ReasonCode.no_gradable_image)
    assert decision.score is None
    assert decision.priority_band == 1


def test_a_case_outside_the_certificate_is_referred_though_no_photograph_could_be_scored():
    decision = decide(tiny_bundle.policy(groupings=(BY_SEX,)), [None], History(sex="other"))
    assert decision.disposition is Disposition.needs_in_person
    assert decision.reasons == (ReasonCode.uncertified_subgroup, ReasonCode.no_gradable_image)


@pytest.mark.parametrize("history", [History(sex="other"), History(sex="male", bleeding=True)])
def test_a_referred_case_without_a_score_does_not_wait_in_the_last_band_though_ungradable_ones_do(history):
    policy = flagged(BLEEDING, groupings=(BY_SEX,), ungradable_band=4)
    assert decide(policy, [None], History(sex="male")).priority_band == 4
    decision = decide(policy, [None], history)
    assert (decision.disposition, decision.priority_band) == (Disposition.needs_in_person, 3)


def test_a_red_flag_may_move_a_case_up_and_leave_its_disposition():
    policy = flagged(WORRIED, band_limits=(0.9, 0.5, 0.1))
    lowest = decide(policy, [-9.0], History(patient_worried=True))
    assert (lowest.disposition, lowest.priority_band) == (Disposition.below_threshold, 3)
    assert lowest.reasons == (ReasonCode.score_below_threshold, ReasonCode.red_flag_band)
    already_up = decide(policy, [9.0], History(patient_worried=True))
    assert already_up.priority_band == 1
    assert ReasonCode.red_flag_band not in already_up.reasons


def test_an_ungradable_case_waits_no_later_than_its_red_flags_allow():
    policy = flagged(WORRIED, UNWELL, ungradable_band=4)
    assert decide(policy, [None]).priority_band == 4
    worried = decide(policy, [None], History(patient_worried=True))
    assert (worried.disposition, worried.priority_band) == (Disposition.ungradable, 3)
    assert decide(policy, [None], History(unwell=True, patient_worried=True)).priority_band == 1


@given(policies(), flag_lists(), photographs, histories)
def test_red_flags_only_ever_send_up(policy, flags, logits, history):
    without = decide(policy, logits, history)
    with_flags = decide(policy.model_copy(update={"red_flags": RedFlags(flags=flags)}), logits, history)
    raised = raised_flags(flags, history)
    assert with_flags.red_flags == raised
    assert with_flags.score == without.score
    assert with_flags.priority_band <= without.priority_band
    assert with_flags.priority_band <= latest_allowed_band(raised)
    if any_flag_refers(raised) or without.disposition is Disposition.needs_in_person:
        assert with_flags.disposition is Disposition.needs_in_person
        assert with_flags.priority_band < 4
    else:
        assert with_flags.disposition is without.disposition


@given(policies(), flag_lists(), photographs, histories, st.data())
def test_one_more_yes_never_lowers_a_case(policy, flags, logits, history, data):
    policy = policy.model_copy(update={"red_flags": RedFlags(flags=flags)})
    unsaid = sorted(name for name in ("bleeding", "changing", "unwell") if not getattr(history, name))
    if unsaid:
        more = history.model_copy(update={data.draw(st.sampled_from(unsaid)): True})
        before, after = decide(policy, logits, history), decide(policy, logits, more)
        assert after.priority_band <= before.priority_band
        assert (after.disposition is Disposition.below_threshold) <= (
            before.disposition is Disposition.below_threshold
        )


@given(policies(), flag_lists(), photographs, histories)
def test_every_decision_has_a_reason_and_no_reason_stands_twice(policy, flags, logits, history):
    decision = decide(policy.model_copy(update={"red_flags": RedFlags(flags=flags)}), logits, history)
    assert decision.reasons
    assert len(set(decision.reasons)) == len(decision.reasons)
