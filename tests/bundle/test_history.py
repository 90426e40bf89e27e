"""What was said stays what was said: a yes outweighs a no, and nothing else outweighs anything."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from histories import histories
from lesion_triage.bundle.history import (
    History,
    history_from_json,
    history_from_text,
    history_to_text,
    merge_histories,
    parse_decimal,
)
from lesion_triage.bundle.red_flags import GROUP_FIELDS, NUMBER_FIELDS, YES_NO_FIELDS


def said(several: list[History], name: str) -> list[Any]:
    answers = [getattr(one, name) for one in several]
    return [answer for answer in answers if answer is not None]


@given(st.lists(histories, max_size=4))
def test_no_number_and_no_group_is_changed_by_a_later_answer(several: list[History]) -> None:
    joined = merge_histories(several)
    for name in (*NUMBER_FIELDS, *GROUP_FIELDS):
        assert getattr(joined, name) == next(iter(said(several, name)), None)


def test_a_diameter_of_one_millimetre_is_no_yes() -> None:
    assert merge_histories([History(diameter_mm=8), History(diameter_mm=1)]) == History(diameter_mm=8)


@given(st.lists(histories, max_size=4))
def test_a_yes_outweighs_every_no(several: list[History]) -> None:
    joined = merge_histories(several)
    for name in YES_NO_FIELDS:
        answers = said(several, name)
        assert getattr(joined, name) is (True in answers if answers else None)


@pytest.mark.parametrize("answer", [True, False])
@pytest.mark.parametrize("name", NUMBER_FIELDS)
def test_a_yes_or_a_no_is_no_number(name: str, answer: bool) -> None:
    with pytest.raises(ValidationError, match="expected a number, found true or false"):
        History.model_validate({name: answer})
    with pytest.raises(ValidationError, match="expected a number, found true or false"):
        History.model_validate_json(json.dumps({name: answer}))


@pytest.mark.parametrize("text", ["61", "1e1", "1_0", " 7 ", ""])
@pytest.mark.parametrize("name", NUMBER_FIELDS)
def test_a_text_is_no_number(name: str, text: str) -> None:
    for read in (History.model_validate, lambda told: history_from_json(json.dumps(told))):
        with pytest.raises(ValidationError, match="expected a number, found a text"):
            read({name: text})


@pytest.mark.parametrize("name", NUMBER_FIELDS)
def test_the_description_of_a_number_names_the_limits_that_are_kept(name: str) -> None:
    told, null = History.model_json_schema()["properties"][name]["anyOf"]
    assert null == {"type": "null"}
    assert told.keys() == {"type", "minimum", "maximum"}
    for inside in (told["minimum"], told["maximum"]):
        assert getattr(History.model_validate({name: inside}), name) == inside
    for outside in (told["minimum"] - 1, told["maximum"] + 1):
        with pytest.raises(ValidationError):
            History.model_validate({name: outside})


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-999, 999))
def test_a_number_survives_a_cell_of_a_table(number: float) -> None:
    assert parse_decimal(f" {number} ") == number


@pytest.mark.parametrize(
    "cell", ["", "old", "1_0", "nan", "inf", "0x10", "6,1", "1 0", "\u0663", "true", "1e"]
)
def test_what_is_no_number_in_a_cell_is_refused(cell: str) -> None:
    with pytest.raises(ValueError, match="expected a number"):
        parse_decimal(cell)


@given(histories)
def test_what_was_said_is_read_back(history: History) -> None:
    assert history_from_text(history_to_text(history)) == history
    assert history_from_json(history.model_dump_json().encode()) == history


@pytest.mark.parametrize(
    "text",
    [
        '{"bleeding": true, "bleeding": false}',
        '{"bleeding": true, "sex": "male", "bleeding": true}',
        '{"bleeding": true, "ble\\u0065ding": null}',
        '{"age_years": ' + "1" * 4000 + ', "age_years": 61}',
        '{"age_years": {"age_years": [1, 1]}, "age_years": 61}',
    ],
)
def test_a_field_that_stands_twice_is_refused_by_name(text: str) -> None:
    for told in (text, text.encode()):
        with pytest.raises(ValidationError, match="the field appears twice; keep one") as caught:
            history_from_json(told)
        assert caught.value.errors()[0]["loc"] == ("age_years" if "age" in text else "bleeding",)


@given(st.binary() | st.text() | st.text().map(lambda text: f'{{"sex": "{text}", "sex": "male"}}'))
def test_any_text_is_a_history_or_refused(text: str | bytes) -> None:
    with contextlib.suppress(ValidationError):
        assert history_from_json(text) == History.model_validate_json(text)
