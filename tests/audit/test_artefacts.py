from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from PIL import Image

from drawn_artefacts import PLANTED, SKIN, skin, with_dark_corners
from lesion_triage.audit.artefacts import (
    ARTEFACTS,
    SIDE_PX,
    dark_corner_mask,
    ita_degrees,
    lesion_mask,
    measure_appearance,
)


def flags(picture: Image.Image) -> set[str]:
    found = measure_appearance(np.asarray(picture))
    return {name for name in ARTEFACTS if getattr(found, name)}


@pytest.mark.parametrize("seed", range(5))
def test_plain_skin_shows_nothing(seed):
    assert flags(skin(seed)) == set()


@pytest.mark.parametrize("artefact", PLANTED)
@pytest.mark.parametrize("seed", range(3))
def test_an_artefact_is_seen_where_it_was_drawn(artefact, seed):
    assert artefact in flags(PLANTED[artefact](skin(seed)))


@pytest.mark.parametrize("artefact", ["dark_corners", "ink", "ruler", "patches"])
def test_an_artefact_is_not_taken_for_another(artefact):
    assert flags(PLANTED[artefact](skin(7))) == {artefact}


def test_the_lesion_is_found_to_within_a_tenth_of_its_area_and_not_the_dark_corners():
    side = SIDE_PX
    y, x = np.mgrid[:side, :side]
    truth = (y - side / 2) ** 2 + (x - side / 2) ** 2 < 30**2
    for picture in (skin(1), with_dark_corners(skin(1))):
        found = lesion_mask(np.asarray(picture))
        assert (found & truth).sum() / (found | truth).sum() > 0.9


def test_without_a_lesion_the_middle_quarter_stands_for_it():
    flat = np.full((SIDE_PX, SIDE_PX, 3), 200, np.uint8)
    assert lesion_mask(flat).mean() == pytest.approx(0.25, abs=0.01)


def test_a_bright_picture_has_no_dark_corners():
    assert not dark_corner_mask(np.full((64, 64), 180, np.uint8)).any()


@pytest.mark.parametrize(
    ("tone", "low", "high"), [((244, 213, 194), 55, 90), ((142, 96, 70), -30, 10), ((60, 40, 28), -90, -30)]
)
def test_the_angle_orders_skin_from_light_to_dark(tone, low, high):
    assert low < measure_appearance(np.asarray(skin(2, tone))).ita_degrees <= high


def test_the_angle_is_chardons():
    lab = np.empty((40, 40, 3), np.float32)
    lab[:] = (70.0, 10.0, 15.0)
    assert ita_degrees(lab, np.ones((40, 40), bool)) == pytest.approx(math.degrees(math.atan((70 - 50) / 15)))


def test_skin_that_is_not_yellow_or_not_there_has_no_angle():
    lab = np.zeros((40, 40, 3), np.float32)
    lab[..., 0] = 70
    assert math.isnan(ita_degrees(lab, np.ones((40, 40), bool)))
    lab[..., 2] = 15
    assert math.isnan(ita_degrees(lab, np.zeros((40, 40), bool)))


def test_the_frame_is_the_outer_tenth_and_does_not_see_the_middle():
    one, other = np.asarray(skin(3)).copy(), np.asarray(skin(3)).copy()
    other[40:150, 40:150] = 0
    assert measure_appearance(one).frame == pytest.approx(measure_appearance(other).frame)
    lab = cv2.cvtColor(np.full((1, 1, 3), SKIN, np.uint8).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0, 0]
    assert measure_appearance(one).frame[:3] == pytest.approx(lab.tolist(), abs=1.5)
