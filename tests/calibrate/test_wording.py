"""A promise in words promises no more than its numbers."""

from __future__ import annotations

import pytest

from lesion_triage.calibrate.wording import format_percent


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.95, "95"),
        (0.975, "97.5"),
        (0.995, "99.5"),
        (0.9999999, "99.99999"),
        (0.9, "90"),
        (1 - 3 * 0.05, "85"),
        (1e-06, "0.0001"),
        (0.0, "0"),
        (1.0, "100"),
    ],
)
def test_a_share_in_percent_keeps_every_digit(share, said):
    assert format_percent(share) == said
