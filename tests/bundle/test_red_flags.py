"""Red flags can only send up: another yes never silences one, and a silence neither fires nor suppresses."""

from itertools import product
from time import thread_time
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from histories import FIELDS, conditions, flag, flag_lists, histories, yes_conditions
from lesion_triage.bundle.history import ISIC_TERMS, NO_HISTORY, History
from lesion_triage.bundle.red_flags import (
    GROUP_FIELDS,
    YES_NO_FIELDS,
    RedFlag,
    RedFlags,
    any_flag_refers,
    flag_presence,
    latest_allowed_band,
    raised_flags,
)

YES = {"field": "bleeding", "is": True}
FEW = YES_NO_FIELDS[:4]


def codes(flags: tuple[RedFlag, ...], history: History) -> set[str]:
    return {one.code for one in raised_flags(flags, history)}


# What fires


@given(flag_lists(), histories, st.sampled_from(YES_NO_FIELDS))
def test_another_yes_never_lets_fewer_flags_fire(
    flags: tuple[RedFlag, ...], history: History, field: str
) -> None:
    assert codes(flags, history) <= codes(flags, history.model_copy(update={field: True}))


@given(flag_lists(), histories, st.data())
def test_the_answer_to_an_open_question_never_silences_a_flag(
    flags: tuple[RedFlag, ...], history: History, data: st.DataObject
) -> None:
    silent = [name for name in FIELDS if getattr(history, name) is None]
    if silent:
        name = data.draw(st.sampled_from(silent))
        told = history.model_copy(update={name: data.draw(FIELDS[name])})
        assert codes(flags, history) <= codes(flags, told)


@given(flag_lists(), histories, st.sampled_from(list(FIELDS)))
def test_an_answer_that_is_withheld_never_fires_a_flag(
    flags: tuple[RedFlag, ...], history: History, field: str
) -> None:
    assert codes(flags, history.model_copy(update={field: None})) <= codes(flags, history)


@given(flag_lists(), histories, st.sampled_from(YES_NO_FIELDS))
def test_a_no_counts_as_a_silence(flags: tuple[RedFlag, ...], history: History, field: str) -> None:
    no, silence = (history.model_copy(update={field: answer}) for answer in (False, None))
    assert raised_flags(flags, no) == raised_flags(flags, silence)


@given(flag_lists())
def test_a_history_that_says_nothing_fires_nothing(flags: tuple[RedFlag, ...]) -> None:
    assert raised_flags(flags, NO_HISTORY) == ()


@given(flag_lists(), histories)
def test_another_flag_never_lowers_urgency(flags: tuple[RedFlag, ...], history: History) -> None:
    some, all_ = raised_flags(flags[1:], history), raised_flags(flags, history)
    assert any_flag_refers(all_) >= any_flag_refers(some)
    assert latest_allowed_band(all_) <= latest_allowed_band(some)


@pytest.mark.parametrize(
    ("when", "told", "expected"),
    [
        (YES, {"bleeding": True}, True),
        (YES, {"bleeding": False, "growing": True}, False),
        ({"field": "age_years", "at_least": 40}, {"age_years": 40}, True),
        ({"field": "age_years", "at_least": 40}, {"age_years": 39.9}, False),
        ({"field": "age_years", "at_most": 15}, {"age_years": 15}, True),
        ({"field": "age_years", "at_most": 15}, {"age_years": 15.1}, False),
        ({"field": "age_years", "at_least": 20, "at_most": 30}, {"age_years": 31}, False),
        ({"field": "age_years", "at_least": 20, "at_most": 30}, {"age_years": 25}, True),
        ({"field": "sex", "one_of": ["one", "two"]}, {"sex": "two"}, True),
        ({"field": "sex", "one_of": ["one", "two"]}, {"sex": "three"}, False),
        ({"field": "sex", "one_of": ["M\u00e4nnlich"]}, {"sex": "ma\u0308nnlich "}, True),
        ({"field": "sex", "one_of": ["ma\u0308nnlich"]}, {"sex": "M\u00c4NNLICH"}, True),
        ({"all_of": [YES, {"field": "growing", "is": True}]}, {"bleeding": True}, False),
        ({"any_of": [YES, {"field": "growing", "is": True}]}, {"growing": True}, True),
        ({"all_of": [YES, {"any_of": [{"field": "age_years", "at_least": 9}]}]}, {"bleeding": True}, False),
    ],
)
def test_a_condition_holds_when_the_history_says_so(
    when: dict[str, Any], told: dict[str, Any], expected: bool
) -> None:
    assert bool(raised_flags((flag(when),), History(**told))) is expected


def test_flags_fire_in_the_order_in_which_they_are_declared() -> None:
    flags = (flag(YES, "second"), flag({"field": "growing", "is": True}, "silent"), flag(YES, "first"))
    assert [one.code for one in raised_flags(flags, History(bleeding=True))] == ["second", "first"]


def test_the_earliest_band_counts() -> None:
    flags = [flag(YES, up_to_band=3), flag(YES, refer=True), flag(YES, up_to_band=2)]
    assert latest_allowed_band(flags) == 2
    assert any_flag_refers(flags)
    assert latest_allowed_band([]) == 4
    assert not any_flag_refers([])


# What is known of a flag that has not fired


@given(yes_conditions(FEW), st.fixed_dictionaries({name: FIELDS[name] for name in FEW}))
def test_presence_is_what_every_way_to_complete_the_answers_agrees_on(
    when: dict[str, Any], told: dict[str, bool | None]
) -> None:
    rule, silent = flag(when), [name for name, answer in told.items() if answer is None]
    ways = [
        bool(raised_flags((rule,), History(**{**told, **dict(zip(silent, way, strict=True))})))
        for way in product((False, True), repeat=len(silent))
    ]
    expected = "present" if all(ways) else "not_known" if any(ways) else "absent"
    assert flag_presence(rule, History(**told)) == expected


SITE = {"field": "anatom_site_general", "one_of": ["oral/genital"]}


@pytest.mark.parametrize(
    ("when", "told", "expected"),
    [
        (SITE, {"anatom_site_general": "oral/genital"}, "present"),
        (SITE, {"anatom_site_general": "Oral/Genital "}, "present"),
        (SITE, {"anatom_site_general": "head/neck"}, "absent"),
        (SITE, {"anatom_site_general": "Palms/Soles"}, "absent"),
        (SITE, {}, "not_known"),
        *(
            (SITE, {"anatom_site_general": word}, "not_known")
            for word in ("vulva", "mouth", "genital", "unknown")
        ),
        ({"field": "anatom_site_general", "one_of": ["Scalp"]}, {"anatom_site_general": "scalp"}, "present"),
        (
            {"field": "anatom_site_general", "one_of": ["scalp"]},
            {"anatom_site_general": "head/neck"},
            "not_known",
        ),
        ({"field": "sex", "one_of": ["female"]}, {"sex": "Male"}, "absent"),
        ({"field": "sex", "one_of": ["female"]}, {"sex": "f"}, "not_known"),
        (
            {"field": "fitzpatrick_skin_type", "one_of": ["V", "VI"]},
            {"fitzpatrick_skin_type": "iv"},
            "absent",
        ),
        (
            {"field": "fitzpatrick_skin_type", "one_of": ["V", "VI"]},
            {"fitzpatrick_skin_type": "5"},
            "not_known",
        ),
    ],
)
def test_a_group_is_absent_only_where_the_word_is_known_to_be_another(
    when: dict[str, Any], told: dict[str, Any], expected: str
) -> None:
    assert flag_presence(flag(when), History(**told)) == expected


@given(conditions, histories, st.sampled_from(GROUP_FIELDS), st.from_regex(r"\A[a-z]{1,9}\Z"))
def test_a_word_that_no_rule_knows_says_as_little_as_silence(
    when: dict[str, Any], history: History, field: str, word: str
) -> None:
    assume(word not in {"one", *(usual.lower() for usual in ISIC_TERMS[field])})
    spoken, silent = (history.model_copy(update={field: said}) for said in (word, None))
    assert flag_presence(flag(when), spoken) == flag_presence(flag(when), silent)


# The language is closed


@given(conditions)
def test_a_flag_survives_its_own_spelling(when: dict[str, Any]) -> None:
    rules = RedFlags(flags=(flag(when),))
    again = RedFlags.model_validate_json(rules.to_json())
    assert again == rules
    assert again.sha256() == rules.sha256()


def test_a_nested_rule_is_written_at_once() -> None:
    """Each level doubled the time: a policy could keep whoever opens its bundle for years."""
    when: dict[str, Any] = YES
    for _ in range(18):
        when = {"all_of": [when]}
    rules = RedFlags(flags=(flag(when),))
    started = thread_time()
    assert RedFlags.model_validate_json(rules.to_json()) == rules
    assert thread_time() - started < 0.5


@pytest.mark.parametrize(
    ("when", "complaint"),
    [
        ({"field": "bleeding", "is": False}, "True"),
        ({"field": "bleeding", "is": None}, "True"),
        ({"field": "bleding", "is": True}, "did you mean 'bleeding'"),
        ({"field": "age_years", "is": True}, "no yes-or-no question 'age_years'"),
        ({"field": "bleeding", "at_least": 1}, "no number 'bleeding'"),
        ({"field": "age_years", "at_least": None}, "expected at_least, at_most or both"),
        ({"field": "age_years", "at_least": 9, "at_most": 8}, "no number is at least 9"),
        ({"field": "age_years", "at_least": float("nan")}, "finite"),
        ({"field": "sex", "one_of": []}, "at least 1"),
        ({"all_of": []}, "at least 1"),
        ({"any_of": []}, "at least 1"),
        ({"not": YES}, "expected one of the keys all_of"),
        ({"field": "bleeding", "is": True, "unless": "x"}, "not permitted"),
        ({"all_of": [YES], "any_of": [YES]}, "not permitted"),
        ("bleeding", "expected a condition such as"),
        ({}, "expected one of the keys"),
    ],
)
def test_another_condition_is_refused(when: Any, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        flag(when)


@pytest.mark.parametrize(
    "action", [{"refer": False}, {"up_to_band": 4}, {"up_to_band": 0}, {"refer": True, "discharge": True}]
)
def test_an_action_that_would_not_send_up_is_refused(action: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        flag(YES, **action)


def test_two_flags_of_one_code_are_refused() -> None:
    with pytest.raises(ValidationError, match="two flags have the code same"):
        RedFlags(flags=(flag(YES, "same"), flag(YES, "same")))


# The history


@pytest.mark.parametrize("word", ["off", "no", "unknown", 0, 1, "true"])
def test_only_true_and_false_answer_a_question(word: Any) -> None:
    with pytest.raises(ValidationError):
        History.model_validate({"bleeding": word})


def test_a_history_has_no_place_for_free_text() -> None:
    with pytest.raises(ValidationError, match="comment"):
        History.model_validate({"comment": "seen by Mrs Example"})
    for name in ("sex", "anatom_site_general", "fitzpatrick_skin_type"):
        with pytest.raises(ValidationError):
            History.model_validate({name: "x" * 61})
