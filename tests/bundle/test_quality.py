"""The quality gate measures what it says, tells everything that is wrong, and does not judge by skin tone."""

import dataclasses
import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from pydantic import ValidationError

from lesion_triage.bundle import focus
from lesion_triage.bundle.pixels import Picture, decode
from lesion_triage.bundle.quality import QualityAssessment, QualityMeasures, assess_quality
from lesion_triage.bundle.schema import PixelSpec, QualityLimits, ReasonCode

SPEC, LIMITS = PixelSpec(size_px=160), QualityLimits()
MONK = ("f6ede4", "f3e7db", "f7ead0", "eadaba", "d7bd96", "a07e56", "825c43", "604134", "3a312a", "292420")
"""The ten tones of the Monk skin tone scale (skintone.google, CC BY 4.0), lightest first."""


def picture(pixels: NDArray[np.uint8], width_px: int = 640, height_px: int = 480) -> Picture:
    square = Image.fromarray(pixels)
    return Picture(pixels=pixels, square=square, width_px=width_px, height_px=height_px)


def measure_quality(measured: Picture) -> QualityMeasures:
    return assess_quality(measured, LIMITS).measures


def quarters(dark: int, bright: int) -> NDArray[np.uint8]:
    """Grey square, half of it at each level: mean and contrast can be worked out in the head."""
    square = np.full((32, 32, 3), dark, dtype=np.uint8)
    square[16:, 16:] = square[:16, :16] = bright
    return square


def tone(code: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(code)
    return red, green, blue


def drawn(
    skin: tuple[int, int, int] = (214, 166, 132),
    *,
    centre: tuple[float, float] = (0.5, 0.5),
    lesion: float = 0.55,
    seed: int = 0,
) -> Image.Image:
    """A spot on skin with texture at every scale, 640 by 480; ``lesion`` is its share of the skin's light."""
    random = np.random.default_rng(seed)
    width, height = 640, 480
    texture = np.zeros((height, width))
    for octave in range(7):
        grid = Image.fromarray(random.normal(0, 1, (3 * 2**octave, 4 * 2**octave)).astype(np.float32))
        texture += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) * 0.02
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    away = np.hypot((x - centre[0] * width) / height, (y - centre[1] * height) / height)
    cover = 1 / (1 + np.exp((away - 0.22) * 60))
    light = (1 + texture) * (1 - (1 - lesion) * cover)
    return Image.fromarray(np.clip(light[..., None] * np.array(skin), 0, 255).astype(np.uint8))


def assessed(image: Image.Image, form: str = "PNG", **options: int) -> QualityAssessment:
    """Through the whole pixel path; whoever keeps no advice is told the same otherwise."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    decoded = decode(stream.getvalue(), SPEC)
    found = assess_quality(decoded, LIMITS)
    assert assess_quality(decoded, LIMITS, advise=False) == dataclasses.replace(found, advice=())
    return found


def with_light(image: Image.Image, factor: float) -> Image.Image:
    return image.point([min(255, round(level * factor)) for level in range(256)] * 3)


def with_glare(image: Image.Image, radius_px: int) -> Image.Image:
    spoilt = image.copy()
    ImageDraw.Draw(spoilt).circle((220, 200), radius_px, "white")
    return spoilt


def with_lines(image: Image.Image, colour: str, width_px: int, count: int) -> Image.Image:
    spoilt, random = image.copy(), np.random.default_rng(0)
    pen = ImageDraw.Draw(spoilt)
    for _ in range(count):
        pen.line([tuple(end) for end in random.uniform(0, (640, 480), (2, 2)).tolist()], colour, width_px)
    return spoilt


def with_ring(image: Image.Image, colour: str) -> Image.Image:
    spoilt = image.copy()
    ImageDraw.Draw(spoilt).ellipse((120, 40, 520, 440), outline=colour, width=14)
    return spoilt


# What is measured


def test_measures_short_side_mean_and_contrast() -> None:
    quality = measure_quality(picture(quarters(100, 140), 300, 200))
    assert (quality.short_side_px, quality.mean_level, quality.contrast) == (200, 120.0, 20.0)


@given(st.integers(0, 2**32 - 1))
def test_agrees_with_floating_point_luma_in_whole_levels(seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    luma = pixels.astype(np.float64) @ [0.299, 0.587, 0.114]
    whole = (pixels.astype(np.int64) @ [19595, 38470, 7471] + 0x8000) >> 16  # the same, in 2**-16 of a level
    assert np.abs(whole - luma).max() < 0.502
    quality = measure_quality(picture(pixels))
    assert quality.mean_level == pytest.approx(whole.mean(), abs=1e-9)
    assert quality.contrast == pytest.approx(whole.std(), abs=1e-9)


def test_the_largest_square_does_not_overflow() -> None:
    pixels = np.zeros((1024, 1024, 3), dtype=np.uint8)
    pixels[512:] = 255
    quality = measure_quality(picture(pixels))
    assert (quality.mean_level, quality.contrast) == (127.5, 127.5)


def test_clipped_and_burnt_out_parts_are_told_apart() -> None:
    pixels = np.full((64, 64, 3), 120, dtype=np.uint8)
    pixels[:16, :, :2] = 250
    pixels[16:24] = 255
    quality = measure_quality(picture(pixels))
    assert (quality.clipped_share, quality.glare_share) == (24 / 64, 8 / 64)


def focus_in_plain_words(grey: NDArray[np.int64]) -> float:
    """The definition, pixel pair by pixel pair; the rim is that of ``focus``."""
    side = (len(grey) - 4) // 8 * 8
    rim, height = (len(grey) - side) // 2, side // 8
    answers = []
    for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
        totals = {}
        for reach in (1, 2, 4):
            blocks = totals[reach] = np.zeros((8, 8))
            for y, x in itertools.product(range(side), repeat=2):
                top, left = rim - down * reach // 2 + y, rim - across * reach // 2 + x
                there = grey[top + down * reach, left + across * reach]
                blocks[y // height, x // height] += (grey[top, left] - there) ** 2
        shares = (totals[2] - totals[1]) / np.maximum(totals[4] - totals[1], 3.0 * height**2)
        answers.append(sorted(shares.ravel())[-7])
    return min(answers)


@given(st.integers(0, 2**32 - 1), st.integers(20, 37))
@settings(max_examples=10)
def test_focus_is_what_its_definition_says(seed: int, side: int) -> None:
    grey = np.random.default_rng(seed).integers(128, 256, (side, side))  # light: the floor is the medium one
    assert focus.sharpness(grey.astype(np.int16)) == pytest.approx(focus_in_plain_words(grey), abs=1e-12)


@pytest.mark.parametrize("slope", [2, 5, 9])
def test_a_ramp_has_the_focus_of_pure_blur(slope: int) -> None:
    # D(h) grows as the square of h: (4 - 1) / (16 - 1).
    y, x = np.mgrid[0:20, 0:20]
    assert focus.sharpness((slope * (2 * x + 3 * y)).astype(np.int16)) == pytest.approx(0.2)


def test_a_random_walk_has_the_focus_of_a_scene_whose_power_falls_with_the_square() -> None:
    # D(h) grows as h: (2 - 1) / (4 - 1). The sharpest of the eight rows of blocks lies somewhat above it.
    steps = np.random.default_rng(0).choice((-8, 8), (2, 1024))
    walk = (np.cumsum(steps[0])[:, None] + np.cumsum(steps[1])).astype(np.int16)
    assert 0.33 < focus.sharpness(walk) < 0.45


def test_focus_does_not_depend_on_contrast() -> None:
    grey = np.asarray(drawn().convert("L").resize((128, 128), Image.Resampling.BOX)).astype(np.int16)
    assert focus.sharpness(3 * grey) == pytest.approx(focus.sharpness(grey), abs=0.03)


@pytest.mark.parametrize("noise", [1.0, 2.0])
def test_noise_does_not_make_a_blurred_picture_sharp(noise: float) -> None:
    blurred = np.asarray(drawn().filter(ImageFilter.GaussianBlur(12)))
    noisy = blurred + np.random.default_rng(0).normal(0, noise * 4, blurred.shape)  # 4: averaged by resizing
    assert ReasonCode.image_blurred in assessed(Image.fromarray(noisy.clip(0, 255).astype(np.uint8))).refusals


@pytest.mark.parametrize(
    ("quality", "level"),
    [
        # Table K.1 of ITU-T T.81 is quality 50: its 16 lowest steps sum to 259, of which DC is 16.
        (50, (2 * 259 - 16) / 256),
    ],
)
def test_erased_level_follows_from_the_standard_table(quality: int, level: float) -> None:
    stream = io.BytesIO()
    drawn().resize((160, 160)).save(stream, "JPEG", quality=quality)
    assert measure_quality(decode(stream.getvalue(), SPEC)).erased_level == pytest.approx(level)


def test_compression_matters_less_in_a_large_photograph() -> None:
    levels = []
    for side in (160, 640, 2560):
        stream = io.BytesIO()
        drawn().resize((side, side)).save(stream, "JPEG", quality=20)
        levels.append(measure_quality(decode(stream.getvalue(), SPEC)).erased_level or 0.0)
    assert levels[0] > levels[1] > levels[2]


# What is said


@pytest.mark.parametrize(
    ("pixels", "size", "refusals"),
    [
        (quarters(100, 140), (99, 4000), {ReasonCode.image_too_small}),
        (quarters(100, 140), (4000, 99), {ReasonCode.image_too_small}),
        (quarters(0, 50), (640, 480), {ReasonCode.image_too_dark}),
        (quarters(245, 255), (640, 480), {ReasonCode.image_too_bright}),
        (quarters(120, 121), (640, 480), {ReasonCode.image_without_detail}),
        (quarters(0, 0), (1, 1), {ReasonCode.image_too_small, ReasonCode.image_too_dark}),
    ],
)
def test_names_every_reason(
    pixels: NDArray[np.uint8], size: tuple[int, int], refusals: set[ReasonCode]
) -> None:
    assert set(assess_quality(picture(pixels, *size), LIMITS).refusals) == refusals


def test_a_picture_at_every_limit_is_gradable() -> None:
    limits = QualityLimits(min_short_side_px=480, min_mean_level=120, max_mean_level=120, min_contrast=20)
    assert assess_quality(picture(quarters(100, 140)), limits).refusals == ()


REFUSED = {
    ReasonCode.image_too_small: lambda: assessed(drawn().resize((120, 90))),
    ReasonCode.image_too_dark: lambda: assessed(with_light(drawn(), 0.1)),
    ReasonCode.image_too_bright: lambda: assessed(with_light(drawn(), 2.2)),
    ReasonCode.image_without_detail: lambda: assessed(Image.new("RGB", (640, 480), (214, 166, 132))),
    ReasonCode.image_blurred: lambda: assessed(drawn().filter(ImageFilter.GaussianBlur(15))),
    ReasonCode.image_compressed: lambda: assessed(drawn().resize((200, 150)), "JPEG", quality=7),
    ReasonCode.image_glare: lambda: assessed(with_glare(drawn(), 150)),
    ReasonCode.image_colour_cast: lambda: assessed(drawn((110, 120, 200))),
}
ADVISED = {
    ReasonCode.image_too_bright: lambda: assessed(with_light(drawn((240, 225, 200)), 1.1)),
    ReasonCode.image_blurred: lambda: assessed(drawn().filter(ImageFilter.GaussianBlur(4))),
    ReasonCode.image_compressed: lambda: assessed(drawn().resize((200, 150)), "JPEG", quality=18),
    ReasonCode.image_glare: lambda: assessed(with_glare(drawn(), 50)),
    ReasonCode.image_colour_cast: lambda: assessed(drawn((160, 150, 190))),
    ReasonCode.image_no_lesion_found: lambda: assessed(drawn(lesion=1.0)),
    ReasonCode.image_lesion_cut_off: lambda: assessed(drawn(centre=(0.95, 0.9))),
    ReasonCode.image_hair: lambda: assessed(with_lines(drawn(), "#101010", 6, 12)),
    ReasonCode.image_ink: lambda: assessed(with_ring(drawn(), "#3c3cc8")),
}


@pytest.mark.parametrize("code", REFUSED)
def test_every_refusal_is_reached_by_a_drawing(code: ReasonCode) -> None:
    assert code in REFUSED[code]().refusals


@pytest.mark.parametrize("code", ADVISED)
def test_every_advice_is_reached_by_a_drawing_that_is_still_scored(code: ReasonCode) -> None:
    found = ADVISED[code]()
    assert code in found.advice
    assert found.refusals == ()


def test_every_code_of_a_photograph_is_given_somewhere() -> None:
    assert REFUSED.keys() | ADVISED.keys() == {code for code in ReasonCode if code.startswith("image_")}


def test_several_things_are_told_together_in_one_order() -> None:
    spoilt = with_ring(drawn(), "#2828e6").filter(ImageFilter.GaussianBlur(9)).resize((120, 90))
    found = assessed(spoilt)
    assert found.refusals == (ReasonCode.image_too_small, ReasonCode.image_blurred)
    assert ReasonCode.image_ink in found.advice
    assert not set(found.refusals) & set(found.advice)


def test_a_black_frame_is_dark_and_nothing_else() -> None:
    found = assessed(Image.new("RGB", (640, 480)))
    assert (found.refusals, found.advice) == ((ReasonCode.image_too_dark,), ())


@pytest.mark.parametrize("seed", range(5))
def test_a_good_drawing_passes_without_a_remark(seed: int) -> None:
    found = assessed(drawn(seed=seed))
    assert (found.refusals, found.advice) == ((), ())


# Properties


@pytest.mark.parametrize("seed", range(4))
def test_more_blur_never_turns_a_refusal_into_acceptance(seed: int) -> None:
    image = drawn(seed=seed)
    verdicts = [
        bool(assessed(image.filter(ImageFilter.GaussianBlur(radius)) if radius else image).refusals)
        for radius in (0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 30, 45)
    ]
    assert verdicts == sorted(verdicts)
    assert verdicts[-1]


@pytest.mark.parametrize("seed", range(3))
def test_less_light_never_turns_a_refusal_into_acceptance(seed: int) -> None:
    verdicts = [bool(assessed(with_light(drawn(seed=seed), 0.8**step)).refusals) for step in range(24)]
    assert verdicts == sorted(verdicts)
    assert verdicts[-1]


SPOILT = {
    "as it is": drawn(),
    "blurred": drawn().filter(ImageFilter.GaussianBlur(15)),
    "hair": with_lines(drawn(), "#101010", 6, 12),
    "ink": with_ring(drawn(), "#3c3cc8"),
    "glare": with_glare(drawn(), 50),
    "cut off": drawn(centre=(0.95, 0.9)),
}


@pytest.mark.parametrize("name", SPOILT)
def test_turning_and_mirroring_change_no_verdict(name: str) -> None:
    pixels = np.asarray(SPOILT[name].resize((160, 160), Image.Resampling.BICUBIC))
    expected = assess_quality(picture(pixels), LIMITS)
    for turns, mirrored in itertools.product(range(4), (False, True)):
        turned = np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)
        found = assess_quality(picture(np.ascontiguousarray(turned)), LIMITS)
        assert (found.refusals, found.advice) == (expected.refusals, expected.advice)


@pytest.mark.parametrize("size_px", [64, 112, 128, 160, 224, 384])
def test_the_side_that_the_network_wants_changes_no_verdict(size_px: int) -> None:
    for image, blurred in ((SPOILT["as it is"], False), (SPOILT["blurred"], True)):
        stream = io.BytesIO()
        image.save(stream, "PNG")
        found = assess_quality(decode(stream.getvalue(), PixelSpec(size_px=size_px)), LIMITS)
        assert (ReasonCode.image_blurred in found.refusals) is blurred


# Skin of every tone


@pytest.mark.parametrize("code", MONK)
@pytest.mark.parametrize("lesion", [0.55, 0.7])
def test_skin_of_every_tone_passes_without_a_remark(code: str, lesion: float) -> None:
    found = assessed(drawn(tone(code), lesion=lesion))
    assert (found.refusals, found.advice) == ((), ())


def skin_of(ita_degrees: float) -> tuple[int, int, int]:
    """A skin colour of an individual typology angle (Chardon et al. 1991): L* = 50 + b* tan(ITA).

    a* and b* are near those measured in people of all skin types: 8 to 12 and 12 to 18.
    """
    b_star, a_star = 15.0, 10.0
    l_star = 50 + b_star * np.tan(np.radians(ita_degrees))
    fy = (l_star + 16) / 116
    f = np.array([fy + a_star / 500, fy, fy - b_star / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.95047, 1, 1.08883]
    linear = xyz @ np.linalg.inv(
        np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    )
    linear = np.clip(linear, 0, 1)
    levels = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (int(level) for level in np.round(255 * levels))
    return red, green, blue


@pytest.mark.parametrize("ita_degrees", [65, 55, 41, 28, 10, -10, -30, -50, -60])
def test_light_and_colour_of_skin_from_very_light_to_very_dark_are_not_refused(ita_degrees: float) -> None:
    found = assessed(drawn(skin_of(ita_degrees)))
    assert (found.refusals, found.advice) == ((), ())


@pytest.mark.parametrize("code", MONK)
def test_blur_is_found_on_skin_of_every_tone(code: str) -> None:
    blurred = drawn(tone(code)).filter(ImageFilter.GaussianBlur(15))
    assert ReasonCode.image_blurred in assessed(blurred).refusals


# Limits


@pytest.mark.parametrize(
    "limits",
    [
        {"advise_clipped_share": 0.5, "max_clipped_share": 0.4},
        {"min_focus": 0.5, "advise_focus": 0.4},
        {"advise_cast": 1.4, "max_cast": 1.3},
        {"min_mean_level": 200, "max_mean_level": 100},
    ],
)
def test_limits_that_would_refuse_before_they_advise_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="wrong way round"):
        QualityLimits.model_validate(limits)
