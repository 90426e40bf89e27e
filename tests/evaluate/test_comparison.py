"""Cases of two runs are paired by their photographs, each once, and what has no counterpart is counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

import tiny_bundle as tiny
from lesion_triage.errors import ReportError
from lesion_triage.evaluate.comparison import pair_cases
from lesion_triage.predictions import Predictions
from made_predictions import row


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny.make(tmp_path_factory.mktemp("sealed") / "bundle")


def table(bundle, *rows):
    of = bundle.certificate
    return bundle, Predictions("test", of.manifest_sha256, of.splits_sha256, of.model_sha256, rows)


def rows_of(*names):
    """One photograph for each case; a third of them positive."""
    return [row(name, name, float(number % 5) - 2, number % 3 == 0) for number, name in enumerate(names)]


def copy_of(original, name):
    """The same file as a photograph of another lesion."""
    return replace(original, image_id=name, case_id=name, history='{"bleeding": true}')


def names_of(decided):
    return [case.case_id for case in decided.cases]


def test_a_file_of_two_lesions_is_paired_lesion_by_lesion(bundle):
    rows = rows_of("a", "b", "c")
    rows.append(copy_of(rows[0], "a-again"))
    both = pair_cases(table(bundle, *rows), table(bundle, *rows))
    assert names_of(both.first) == names_of(both.second) == ["a", "b", "c", "a-again"]
    assert (both.only_first, both.only_second) == (0, 0)


@pytest.mark.parametrize(
    ("ours", "theirs"), [("ppqq", "pqrs"), ("pqrs", "ppqq"), ("ppqq", "pqpq"), ("abcd", "abcc")]
)
def test_tables_that_disagree_on_the_units_are_refused_with_the_line(bundle, ours, theirs):
    rows = rows_of("a", "b", "c", "d")
    first, second = (
        [replace(one, unit_id=f"jane-doe-{unit}") for one, unit in zip(rows, units, strict=True)]
        for units in (ours, theirs)
    )
    line = 2 + next(n for n in range(1, 4) if partition(ours[: n + 1]) != partition(theirs[: n + 1]))
    with pytest.raises(
        ReportError, match=rf"line {line} of .* joins or parts what line {line} of "
    ) as caught:
        pair_cases(table(bundle, *first), table(bundle, *second))
    assert "jane" not in str(caught.value)


def partition(units: str) -> list[int]:
    """For each case, the first of its unit."""
    return [units.index(unit) for unit in units]


def test_units_may_have_other_names_in_the_other_table(bundle):
    rows = rows_of("a", "b", "c", "d")
    renamed = [replace(one, unit_id=f"part:{one.unit_id}") for one in rows]
    assert names_of(pair_cases(table(bundle, *rows), table(bundle, *renamed)).second) == ["a", "b", "c", "d"]


def test_of_two_lesions_with_one_file_one_alone_finds_the_lesion_that_the_other_run_has(bundle):
    rows = rows_of("a", "b", "c")
    doubled = [*rows, copy_of(rows[0], "a-again")]
    both = pair_cases(table(bundle, *doubled), table(bundle, *rows))
    assert names_of(both.first) == names_of(both.second) == ["a", "b", "c"]
    assert (both.only_first, both.only_second) == (1, 0)
    turned = pair_cases(table(bundle, *rows), table(bundle, *doubled))
    assert (turned.only_first, turned.only_second) == (0, 1)


def test_of_lesions_with_one_file_those_of_one_outcome_are_paired_in_whatever_order_they_stand(bundle):
    rows = rows_of("a", "b", "c")
    positive, negative = rows[0], replace(copy_of(rows[0], "a-again"), needs_in_person=False)
    both = pair_cases(
        table(bundle, positive, negative, *rows[1:]), table(bundle, negative, positive, *rows[1:])
    )
    assert names_of(both.first) == names_of(both.second) == ["a", "a-again", "b", "c"]
    assert (both.labels_differ, both.only_first, both.only_second) == (0, 0, 0)


@pytest.mark.parametrize(
    ("outcomes", "others", "paired", "labels_differ", "only_first", "only_second"),
    [("+-", "-", 1, 0, 1, 0), ("++-", "--", 1, 1, 1, 0), ("+", "--", 0, 1, 0, 1)],
)
def test_a_file_of_several_lesions_is_paired_as_often_as_the_outcomes_allow(
    bundle, outcomes, others, paired, labels_differ, only_first, only_second
):
    rows = rows_of("a", "b", "c", "d")

    def with_copies(signs):
        named = [(copy_of(rows[0], f"copy {number}"), sign == "+") for number, sign in enumerate(signs)]
        return table(bundle, *(replace(one, needs_in_person=positive) for one, positive in named), *rows[1:])

    both = pair_cases(with_copies(outcomes), with_copies(others))
    assert len(both.first.cases) == len(both.second.cases) == paired + 3
    assert (both.first.positive == both.second.positive).all()
    assert (both.labels_differ, both.only_first, both.only_second) == (labels_differ, only_first, only_second)


def test_a_case_whose_outcome_the_tables_tell_differently_is_left_out_and_counted(bundle):
    rows = rows_of("a", "b", "c", "d")
    other = [
        replace(one, needs_in_person=not one.needs_in_person) if one.case_id == "b" else one for one in rows
    ]
    both = pair_cases(table(bundle, *rows), table(bundle, *other[:-1]))
    assert names_of(both.first) == ["a", "c"]
    assert (both.labels_differ, both.only_first, both.only_second) == (1, 1, 0)
