from __future__ import annotations

import pytest
from drawn import config

from lesion_triage.train.data_loading import picture_sides

SIDES = {
    **{32: [32], 48: [48, 32], 59: [59, 32], 60: [60], 63: [63], 64: [64], 65: [65, 64], 96: [96, 64]},
    **{128: [128, 96], 160: [160, 128], 224: [224, 192], 1024: [1024, 832]},
}


@pytest.mark.parametrize(("size_px", "expected"), SIDES.items())
def test_small_pictures_are_a_multiple_of_32_px_and_never_larger_than_the_whole(size_px, expected):
    made = config("test_efficientnet", small_first=0.5, epochs=2)
    pixels = made.pixels.model_copy(update={"size_px": size_px})
    assert picture_sides(made.model_copy(update={"pixels": pixels})) == expected
