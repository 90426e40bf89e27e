"""Strategies for histories and red flags: every answer, every silence, every kind of condition."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from lesion_triage.bundle.history import History
from lesion_triage.bundle.red_flags import GROUP_FIELDS, NUMBER_FIELDS, YES_NO_FIELDS, RedFlag

ANSWERS = st.sampled_from([None, False, True])
NUMBERS = st.none() | st.sampled_from([0.0, 1.0]) | st.integers(0, 120).map(float)
"""0 and 1 often: to Python they are a no and a yes."""
GROUPS = st.none() | st.sampled_from(["one", "two", "oral/genital", "Head/Neck", "vulva", "unknown"])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(YES_NO_FIELDS, ANSWERS),
    **dict.fromkeys(NUMBER_FIELDS, NUMBERS),
    **dict.fromkeys(GROUP_FIELDS, GROUPS),
}
histories = st.fixed_dictionaries({}, optional=FIELDS).map(lambda told: History(**told))


def yes_conditions(fields: tuple[str, ...] = YES_NO_FIELDS) -> st.SearchStrategy[dict[str, Any]]:
    """Conditions on yes-or-no questions, as they stand in a file."""
    return _nested(st.sampled_from(fields).map(lambda name: {"field": name, "is": True}))


def _ranges() -> st.SearchStrategy[dict[str, Any]]:
    end = st.none() | st.integers(0, 120)
    return st.tuples(st.sampled_from(NUMBER_FIELDS), end, end).filter(_possible).map(_range)


def _possible(drawn: tuple[str, int | None, int | None]) -> bool:
    _, low, high = drawn
    return (low, high) != (None, None) and (low is None or high is None or low <= high)


def _range(drawn: tuple[str, int | None, int | None]) -> dict[str, Any]:
    field, low, high = drawn
    ends = {"at_least": low, "at_most": high}
    return {"field": field, **{key: value for key, value in ends.items() if value is not None}}


def _nested(leaves: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.recursive(
        leaves,
        lambda inner: st.tuples(
            st.sampled_from(["all_of", "any_of"]), st.lists(inner, min_size=1, max_size=3)
        ).map(lambda drawn: {drawn[0]: drawn[1]}),
        max_leaves=6,
    )


conditions = _nested(
    st.sampled_from(YES_NO_FIELDS).map(lambda name: {"field": name, "is": True})
    | _ranges()
    | st.tuples(
        st.sampled_from(GROUP_FIELDS), st.lists(st.sampled_from(["one", "oral/genital"]), min_size=1)
    ).map(lambda drawn: {"field": drawn[0], "one_of": drawn[1]})
)
actions = st.tuples(st.booleans(), st.sampled_from([None, 1, 2, 3])).filter(
    lambda drawn: drawn != (False, None)
)


def flag(when: dict[str, Any], code: str = "a_flag", **action: Any) -> RedFlag:
    """A rule as it would be read from a file; it refers if nothing else is said."""
    document = {"code": code, "when": when, "action": action or {"refer": True}, "source": "made up"}
    return RedFlag.model_validate(document)


@st.composite
def flag_lists(draw: st.DrawFn) -> tuple[RedFlag, ...]:
    """Up to five rules with codes of their own."""
    drawn = draw(st.lists(st.tuples(conditions, actions), max_size=5))
    return tuple(
        flag(when, f"flag_{place}", refer=refer, up_to_band=band)
        for place, (when, (refer, band)) in enumerate(drawn)
    )
