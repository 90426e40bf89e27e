"""A name that is not known is answered with the one that was meant, or with all there are."""

from __future__ import annotations

import pytest

from lesion_triage.errors import first_line, hint, without_password


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


@pytest.mark.parametrize(
    ("message", "line"),
    [("cut off", "cut off"), ("\n lost\nat once", "lost"), ("", "OSError"), (" \n", "OSError")],
)
def test_an_error_that_says_nothing_is_told_by_its_class(message, line):
    assert first_line(OSError(message)) == line


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("http://ada:secret@host:5000/x", "http://host:5000/x"),
        ("at http://ada:sec@ret@host, and http://host/a@b", "at http://host, and http://host/a@b"),
        ("http://host", "http://host"),
    ],
)
def test_user_name_and_password_are_left_out_of_an_address(text, without):
    assert without_password(text) == without
