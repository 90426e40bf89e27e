"""A corruption is reproducible, grows with its severity, and does what its parameter says."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lesion_triage.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from lesion_triage.data.synthetic import draw_picture
from lesion_triage.errors import DataError


def file_of(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def levels(data: bytes) -> NDArray[np.float64]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.float64)


DRAWING = draw_picture("irregular", 0).resize((320, 240), Image.Resampling.BICUBIC)
FILE = file_of(DRAWING)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_equal_arguments_give_equal_bytes_and_another_picture_other_draws(name: str) -> None:
    assert corrupt(FILE, name, 3, seed=4) == corrupt(FILE, name, 3, seed=4)


@pytest.mark.parametrize("name", ["moved", "cropped", "colour_cast", "glare"])
def test_what_is_drawn_at_random_depends_on_the_seed(name: str) -> None:
    assert len({corrupt(FILE, name, 3, seed=seed) for seed in range(8)}) > 1


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - {"tiny", "cropped"}))
def test_a_higher_severity_is_farther_from_the_original(name: str) -> None:
    original = levels(FILE)
    away = [np.abs(levels(corrupt(FILE, name, severity)) - original).mean() for severity in SEVERITIES]
    assert away == sorted(away)
    assert away[0] > 0


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severities_of_a_corruption_go_one_way(name: str) -> None:
    values = CORRUPTIONS[name].values
    assert len(set(values)) == len(SEVERITIES)
    assert list(values) in (sorted(values), sorted(values, reverse=True))


def test_one_stop_halves_the_linear_light() -> None:
    # 188 is half the light of 255 by the curve of IEC 61966-2-1.
    assert levels(corrupt(file_of(Image.new("RGB", (40, 40), "white")), "dark", 1))[0, 0, 0] == 188


@pytest.mark.parametrize("name", ["defocused", "moved"])
def test_blur_keeps_the_light_and_a_plain_surface(name: str) -> None:
    plain = file_of(Image.new("RGB", (60, 40), (90, 120, 200)))
    assert levels(corrupt(plain, name, 5)) == pytest.approx(levels(plain))


def test_a_point_out_of_focus_becomes_a_disc_of_that_radius() -> None:
    point = Image.new("RGB", (224, 224))
    point.putpixel((112, 112), (255, 255, 255))
    y, x = np.nonzero(levels(corrupt(file_of(point), "defocused", 5))[..., 0])
    reach = np.hypot(x - 112, y - 112).max()
    assert 9.5 <= reach <= 10.5  # 10 / 224 of the short side


def test_thumbnails_have_the_short_side_and_nothing_is_enlarged() -> None:
    sides = [min(Image.open(io.BytesIO(corrupt(FILE, "tiny", severity))).size) for severity in SEVERITIES]
    assert sides == list(CORRUPTIONS["tiny"].values)
    small = file_of(Image.new("RGB", (60, 50)))
    assert Image.open(io.BytesIO(corrupt(small, "tiny", 1))).size == (60, 50)


def test_a_crop_keeps_the_rest_of_the_picture_untouched() -> None:
    cut, original = levels(corrupt(FILE, "cropped", 4)), levels(FILE)
    height, width = cut.shape[:2]
    assert (width, height) == (160, 120)
    corners = [original[top : top + height, left : left + width] for top in (0, 120) for left in (0, 160)]
    assert any(np.array_equal(cut, corner) for corner in corners)


def test_glare_burns_out_about_the_share_that_it_names() -> None:
    grey = file_of(Image.new("RGB", (400, 300), (120, 120, 120)))
    for severity in SEVERITIES[:3]:  # larger ones overlap or leave the picture
        burnt = (levels(corrupt(grey, "glare", severity)).min(axis=2) >= 254).mean()
        assert burnt == pytest.approx(CORRUPTIONS["glare"].values[severity - 1], rel=0.35)


def test_orientation_is_applied_before_anything_is_spoilt() -> None:
    exif = Image.Exif()
    exif[274] = 6
    turned = corrupt(file_of(DRAWING, "JPEG", exif=exif), "recompressed", 1)
    assert Image.open(io.BytesIO(turned)).size == (240, 320)


@pytest.mark.parametrize(("name", "severity"), [("fog", 1), ("dark", 0), ("dark", 6)])
def test_an_unknown_corruption_or_severity_is_refused(name: str, severity: int) -> None:
    with pytest.raises(DataError, match="expected one of defocused"):
        corrupt(FILE, name, severity)
