from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage_server.negotiation import language_for

OFFERED = ("de", "en", "pt-BR")


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("de", "de"),
        ("DE", "de"),
        ("de-CH", "de"),
        ("pt-br", "pt-BR"),
        ("pt", "en"),  # a narrower language is not what was asked for: RFC 4647, section 3.4
        ("fr, de;q=0.5", "de"),
        ("de;q=0.5, en;q=0.8", "en"),
        ("de;q=0, en", "en"),
        ("fr, *;q=0.1", "en"),
        ("en-GB,en-US;q=0.9,en;q=0.8,de;q=0.7", "en"),
        ("de;q=1.0000, ,;;", "en"),
    ],
)
def test_the_best_language_that_there_is_answers(header, language):
    assert language_for(header, OFFERED, "en") == language


@given(st.text(max_size=200))
def test_no_header_is_ever_refused(header):
    assert language_for(header, OFFERED, "en") in OFFERED
