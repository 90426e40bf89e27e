"""A slice holds the cases its name says, and gives no number that it cannot support."""

from __future__ import annotations

import numpy as np

from lesion_triage.calibrate.cases import Case
from lesion_triage.config import Evaluate
from lesion_triage.evaluate.subgroups import MINIMUM_PER_CLASS, Slice, measure, slices_of
from lesion_triage.predictions import Prediction


def case(number, *photographs):
    """``photographs``: (source, confirm type, needs in person) of each."""
    return Case(
        f"case-{number}",
        tuple(
            Prediction(
                f"{number}-{i}", f"case-{number}", 0.0, "", truth, "", confirmed, source, "", None, "", ""
            )
            for i, (source, confirmed, truth) in enumerate(photographs)
        ),
    )


def members(cases):
    return {part.name: part.members.tolist() for part in slices_of(cases)}


def test_histology_slice_needs_the_photographs_that_decide_the_case():
    cases = (
        case(0, ("a", "histopathology", True), ("a", "", False)),
        case(1, ("a", "histopathology", False), ("a", "", True)),
        case(2, ("a", "histopathology", False), ("a", "histopathology", False)),
        case(3, ("a", "histopathology", False), ("a", "follow_up", False)),
    )
    assert members(cases)["histology_confirmed"] == [True, False, True, False]


def test_molemax_is_left_out_where_it_is_present():
    cases = (
        case(0, ("vidir_molemax", "", False)),
        case(1, ("rosendahl", "", True)),
        case(2, ("rosendahl", "", True), ("vidir_molemax", "", True)),
    )
    found = members(cases)
    assert found["without_vidir_molemax"] == [False, True, False]
    assert found["source_rosendahl"] == [False, True, False]
    assert found["source_vidir_molemax"] == [True, False, False]
    assert "without_vidir_molemax" not in members(cases[1:2])


def test_a_single_source_is_no_slice():
    assert set(members((case(0, ("a", "", True)), case(1, ("a", "", False))))) == {
        "all",
        "histology_confirmed",
    }


def test_slice_with_too_few_cases_says_so_instead_of_a_number():
    size = 100
    positive = np.arange(size) < MINIMUM_PER_CLASS - 1
    part = Slice("all", "All cases", np.ones(size, dtype=bool))
    result = measure(part, np.linspace(0, 1, size), positive, 0.5, Evaluate(bootstrap_draws=100))
    assert result.metrics == {}
    assert result.sensitivity_exact is None
    assert result.note == (
        "too few cases for numbers: 9 positive and 91 negative, expected at least 10 of each"
    )
    assert (result.cases, result.positives) == (100, 9)


def test_empty_slice_says_so():
    part = Slice("none", "None", np.zeros(5, dtype=bool))
    result = measure(part, np.zeros(5), np.ones(5, dtype=bool), 0.5, Evaluate(bootstrap_draws=100))
    assert result.note.startswith("too few cases for numbers: 0 positive and 0 negative")


def test_slice_measures_its_members_alone():
    rng = np.random.default_rng(0)
    scores, positive = rng.random(200), rng.random(200) < 0.4
    scores[3] = np.inf
    chosen = np.arange(200) < 100
    config = Evaluate(bootstrap_draws=100)
    whole = np.ones(100, dtype=bool)
    part = measure(Slice("some", "Some", chosen), scores, positive, 0.5, config)
    alone = measure(Slice("some", "Some", whole), scores[:100], positive[:100], 0.5, config)
    assert part == alone
    assert part.abstained == 1
    assert part.sensitivity_exact.value == np.mean(scores[:100][positive[:100]] >= 0.5)
