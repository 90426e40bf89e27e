"""A name that is not known is answered with the one that was meant, or with all there are."""

from __future__ import annotations

import pytest

from lesion_triage.errors import hint


@pytest.mark.parametrize(
    ("name", "otherwise", "said"),
    [
        ("bleding", None, "did you mean 'bleeding'?"),
        ("bleding", "leave it out.", "did you mean 'bleeding'?"),
        ("xyz", None, "known: bleeding, fever."),
        ("xyz", "leave it out.", "leave it out."),
        ("xyz", "", ""),
    ],
)
def test_the_nearest_name_is_offered_and_else_what_was_asked_to_be_said(name, otherwise, said):
    assert hint(name, iter(("bleeding", "fever")), otherwise) == said
