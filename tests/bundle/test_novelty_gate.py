"""The novelty gate: what is unfamiliar goes up, a tie included, and no NaN passes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion_triage.bundle.novelty_gate import is_out_of_distribution
from lesion_triage.errors import ScoringError

NOVELTIES = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
LIMITS = st.floats(min_value=1e-3, allow_nan=False, allow_infinity=False)


@given(NOVELTIES, LIMITS)
def test_a_photograph_passes_if_and_only_if_it_is_below_the_limit(novelty: float, limit: float) -> None:
    assert is_out_of_distribution(novelty, limit) is not (novelty < limit)


@given(LIMITS)
def test_a_tie_goes_up(limit: float) -> None:
    assert is_out_of_distribution(limit, limit)
    assert not is_out_of_distribution(math.nextafter(limit, 0.0), limit)


@pytest.mark.parametrize("novelty", [None, math.nan])
def test_a_novelty_that_is_none_or_nan_raises_where_there_is_a_gate(novelty: float | None) -> None:
    with pytest.raises(ScoringError, match="novelty is"):
        is_out_of_distribution(novelty, 4.0)
    assert not is_out_of_distribution(novelty, None)
