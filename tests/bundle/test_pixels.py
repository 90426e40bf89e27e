"""The pixel path: every picture a phone can make is read alike, and no bytes at all can surprise it."""

import io
import math
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from lesion_triage.bundle.pixels import DECODER_FORMATS, Picture, decode
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.errors import ImageError
from tiny_bundle import picture_bytes

SPEC = PixelSpec(size_px=32)
SMALL = PixelSpec(size_px=32, max_pixels=1_000_000, max_bytes=100_000)
CODES = {
    "image_empty",
    "image_too_large",
    "image_not_decodable",
    "image_format_not_supported",
    "image_animated",
}


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with some grain, away from black and white: a drawn stand-in for skin."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(80, 180, (6, 8, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    grain = generator.normal(0, 4, (height, width, 3))
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def png(
    header: tuple[int, int, int, int],
    rows: bytes = b"",
    *extra: tuple[bytes, bytes],
    interlaced: bool = False,
) -> bytes:
    """A PNG by hand: (width, height, bits, colour type), raw rows with filter bytes, chunks before them."""
    width, height, bits, colour = header
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)),
        *extra,
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """The smallest EXIF block that says how to hold the picture, in two bytes (kind 3) or in four (4)."""
    magic = b"II*\x00" if order == "<" else b"MM\x00*"
    form = {3: "HHIHH", 4: "HHII"}[kind]
    entry = struct.pack(f"{order}{form}", *[274, kind, 1, orientation, 0][: len(form)])
    return b"Exif\x00\x00" + magic + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)


def rms(one: Picture, other: Picture | NDArray[np.uint8]) -> float:
    pixels = other.pixels if isinstance(other, Picture) else other
    return math.sqrt(np.mean((one.pixels.astype(float) - pixels) ** 2))


@contextmanager
def no_warning() -> Iterator[None]:
    """Under "error" a warning inside Pillow would pass for a broken file; here it is counted."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [str(warning.message) for warning in caught] == []


@contextmanager
def at_once() -> Iterator[None]:
    """In this thread's own time: the machine may be busy with something else."""
    started = time.thread_time()
    yield
    assert time.thread_time() - started < 0.5


def refusal(data: bytes, spec: PixelSpec = SPEC) -> ImageError:
    with no_warning(), pytest.raises(ImageError) as caught:
        decode(data, spec)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return caught.value


# The shape of the answer


@pytest.mark.parametrize("format", DECODER_FORMATS)
@pytest.mark.parametrize("size_px", [32, 224])
def test_every_format_becomes_an_rgb_square(format: str, size_px: int) -> None:
    picture = decode(encoded(photograph(300, 200), format), PixelSpec(size_px=size_px))
    assert picture.pixels.shape == (size_px, size_px, 3)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous
    assert picture.pixels.flags.writeable  # torch.from_numpy warns of arrays that are not
    assert (picture.width_px, picture.height_px) == (300, 200)


def test_channels_are_red_green_blue() -> None:
    picture = decode(encoded(Image.new("RGB", (64, 64), (200, 100, 50))), SPEC)
    assert picture.pixels[16, 16].tolist() == [200, 100, 50]


def test_nothing_at_the_rim_is_cropped_away() -> None:
    image = Image.new("RGB", (640, 320), "white")
    image.paste((200, 0, 0), (0, 0, 40, 320))
    image.paste((0, 0, 200), (600, 0, 640, 320))
    pixels = decode(encoded(image), SPEC).pixels
    assert np.abs(pixels[16, 0].astype(int) - [200, 0, 0]).max() < 15  # bicubic reaches two pixels far
    assert np.abs(pixels[16, -1].astype(int) - [0, 0, 200]).max() < 15


def test_one_pixel_is_a_picture() -> None:
    picture = decode(encoded(Image.new("RGB", (1, 1), (10, 20, 30))), SPEC)
    assert (picture.width_px, picture.height_px) == (1, 1)
    assert (picture.pixels == [10, 20, 30]).all()


def test_a_thread_among_many_gets_the_same_pixels() -> None:
    files = [encoded(photograph(640, 480, seed), "JPEG") for seed in range(4)]
    alone = [decode(file, SPEC).pixels for file in files]
    wrong: list[int] = []

    def work() -> None:
        for number, file in enumerate(files * 3):
            if not np.array_equal(decode(file, SPEC).pixels, alone[number % 4]):
                wrong.append(number)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# Resizing


def keys_cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic convolution kernel with a = -1/2 (Keys 1981)."""
    x = np.abs(distance)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def resampling_matrix(source: int, target: int) -> NDArray[np.float64]:
    """Antialiased: when it shrinks, the kernel is as many times wider as the picture gets smaller."""
    scale = source / target
    centres = (np.arange(target) + 0.5) * scale
    distance = (np.arange(source)[None, :] + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = keys_cubic(distance)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [(333, 250), (64, 64), (20, 500), (7, 9), (32, 32)])
def test_resize_is_antialiased_bicubic(size: tuple[int, int]) -> None:
    image = photograph(*size)
    down, across = resampling_matrix(size[1], 32), resampling_matrix(size[0], 32)
    expected = np.einsum("ry,yxc,sx->rsc", down, np.asarray(image, dtype=float), across)
    difference = np.abs(decode(encoded(image), SPEC).pixels - np.round(expected))
    # Pillow rounds to whole grey levels between its two passes, so one level is its own rounding.
    assert difference.max() <= 1


@pytest.mark.parametrize("size", [(1600, 1200), (1201, 1603), (640, 480), (130, 129)])
@pytest.mark.parametrize("progressive", [False, True])
def test_coarse_jpeg_decoding_stays_close_to_the_full_one(size: tuple[int, int], progressive: bool) -> None:
    data = encoded(photograph(*size), "JPEG", quality=92, subsampling=0, progressive=progressive)
    full = Image.open(io.BytesIO(data)).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
    picture = decode(data, SPEC)
    # Half a grey level is what rounding alone can do; JPEG quality 75 does several times that.
    assert rms(picture, np.asarray(full)) < 0.75
    assert (picture.width_px, picture.height_px) == size


# Orientation


def stored_for(upright: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """How a camera held in that way stores what looks upright (EXIF 2.3, tag 274)."""
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }
    return np.ascontiguousarray(turned[orientation])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_does_not_change_a_pixel(orientation: int, order: str) -> None:
    upright = photograph(210, 140)
    stored = Image.fromarray(stored_for(np.asarray(upright), orientation))
    expected = decode(encoded(upright), SPEC)
    for format, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        found = decode(encoded(stored, format, exif=exif(orientation, order), **options), SPEC)
        assert np.array_equal(found.pixels, expected.pixels)
        assert (found.width_px, found.height_px) == (210, 140)


@pytest.mark.parametrize("size", [(1280, 960), (131, 257)], ids=["whole blocks", "cut blocks"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_jpeg_is_applied(orientation: int, size: tuple[int, int]) -> None:
    upright = photograph(*size)
    stored = Image.fromarray(stored_for(np.asarray(upright), orientation))
    found = decode(encoded(stored, "JPEG", quality=95, subsampling=0, exif=exif(orientation)), SPEC)
    # Stored sideways, the picture is cut into other JPEG blocks; a wrong turn differs by tens of levels,
    # a rim that is off by part of a pixel by more than one.
    assert rms(found, decode(encoded(upright), SPEC)) < 0.75
    assert (found.width_px, found.height_px) == size


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("format", DECODER_FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_in_four_bytes_is_the_same(orientation: int, format: str, order: str) -> None:
    in_two, in_four = (
        decode(encoded(photograph(60, 40), format, exif=exif(orientation, order, kind)), SPEC)
        for kind in (3, 4)
    )
    assert np.array_equal(in_two.pixels, in_four.pixels)
    assert (in_two.width_px, in_two.height_px) == (in_four.width_px, in_four.height_px)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_behind_the_pixels_of_a_png_is_applied(orientation: int) -> None:
    """The standard lets its chunk stand on either side of them."""
    before = encoded(photograph(60, 40), exif=exif(orientation))
    plain, block = encoded(photograph(60, 40)), exif(orientation)[6:]
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block + struct.pack(">I", zlib.crc32(b"eXIf" + block))
    behind = decode(plain[:-12] + chunk + plain[-12:], SPEC)
    assert np.array_equal(behind.pixels, decode(before, SPEC).pixels)
    assert (behind.width_px, behind.height_px) == ((60, 40) if orientation < 5 else (40, 60))


@given(st.binary(max_size=80), st.booleans())
def test_no_exif_block_stands_in_the_way(block: bytes, with_magic: bool) -> None:
    block = b"Exif\x00\x00" + (b"II*\x00\x08\x00\x00\x00" if with_magic else b"") + block
    with no_warning():
        assert decode(encoded(Image.new("RGB", (16, 16)), "JPEG", exif=block), SPEC).width_px == 16


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_means_upright(orientation: int) -> None:
    plain = decode(encoded(photograph(60, 40)), SPEC)
    assert np.array_equal(
        decode(encoded(photograph(60, 40), exif=exif(orientation)), SPEC).pixels, plain.pixels
    )


# Colour


@pytest.mark.parametrize(
    "image",
    [
        photograph(60, 40).convert("L"),
        photograph(60, 40).convert("1"),
        photograph(60, 40).quantize(200),
        photograph(60, 40).convert("LA"),
        photograph(60, 40).convert("RGBA"),
    ],
    ids=lambda image: image.mode,
)
def test_every_mode_is_read_as_its_rgb_copy(image: Image.Image) -> None:
    # One grey level is the rounding between the resize's two passes: before or after the conversion.
    expected = decode(encoded(image.convert("RGB")), SPEC).pixels.astype(int)
    assert np.abs(decode(encoded(image), SPEC).pixels - expected).max() <= 1


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpeg_modes_are_read_as_their_rgb_copy(mode: str) -> None:
    data = encoded(photograph(60, 40).convert(mode), "JPEG", quality=95)
    expected = decode(encoded(Image.open(io.BytesIO(data)).convert("RGB")), SPEC).pixels.astype(int)
    assert np.abs(decode(data, SPEC).pixels - expected).max() <= 2


@pytest.mark.parametrize(("opacity", "level"), [(0, 255), (255, 51), (102, 173)])
def test_transparency_lies_over_white(opacity: int, level: int) -> None:
    # 255 + (51 - 255) * opacity / 255; premultiplied eight-bit colours cost up to two levels.
    for image in (
        Image.new("RGBA", (40, 40), (51, 51, 51, opacity)),
        Image.new("LA", (40, 40), (51, opacity)),
    ):
        pixels = decode(encoded(image), SPEC).pixels.astype(int)
        assert np.abs(pixels - level).max() <= 2


def test_what_a_transparent_pixel_hides_does_not_shine_through() -> None:
    image = Image.new("RGBA", (320, 320), (255, 0, 0, 0))
    image.paste((0, 200, 0, 255), (0, 0, 160, 320))
    pixels = decode(encoded(image), SPEC).pixels.astype(int)
    assert (pixels[..., 0] <= pixels[..., 2] + 1).all()  # red nowhere exceeds what white brings along


def test_transparent_colours_of_a_palette_are_white() -> None:
    image = Image.new("P", (40, 40), 0)
    image.putpalette([200, 0, 0, 0, 0, 200])
    for transparency in (0, b"\x00\xff"):
        with no_warning():
            assert (decode(encoded(image, transparency=transparency), SPEC).pixels == 255).all()


@pytest.mark.parametrize(("mode", "key"), [("L", 7), ("RGB", (7, 8, 9))])
def test_a_transparent_colour_key_is_white(mode: str, key: int | tuple[int, ...]) -> None:
    assert (decode(encoded(Image.new(mode, (40, 40), key), transparency=key), SPEC).pixels == 255).all()


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.tile(np.linspace(0, 65535, 320).astype(np.uint16), (40, 1))
    eight = Image.fromarray((ramp >> 8).astype(np.uint8))
    grey = decode(encoded(Image.fromarray(ramp)), SPEC)
    assert rms(grey, decode(encoded(eight), SPEC)) == 0
    rows = b"".join(b"\x00" + np.repeat(row, 3).astype(">u2").tobytes() for row in ramp)
    colour = decode(png((320, 40, 16, 2), rows), SPEC)
    assert np.array_equal(colour.pixels, grey.pixels)
    keyed = decode(png((320, 40, 16, 2), rows, (b"tRNS", struct.pack(">HHH", 500, 500, 500))), SPEC)
    assert np.array_equal(keyed.pixels, grey.pixels)


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def icc_profile(red: list[float], green: list[float], blue: list[float], gamma: float) -> bytes:
    """A display profile by hand (ICC.1:2001-04): three colorants relative to D50 and one gamma."""

    def xyz(values: list[float]) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(fixed(value) for value in values)

    text = b"wide"
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    name = b"desc" + bytes(4) + struct.pack(">I", len(text) + 1) + text + bytes(1 + 78 + 9)
    tags = {
        b"desc": name[: len(name) - len(name) % 4],
        b"wtpt": xyz([0.9642, 1.0, 0.8249]),
        b"rXYZ": xyz(red),
        b"gXYZ": xyz(green),
        b"bXYZ": xyz(blue),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    place = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for kind, data in tags.items():
        table += kind + struct.pack(">II", place + len(body), len(data))
        body += data
    illuminant = fixed(0.9642) + fixed(1.0) + fixed(0.8249)
    head = struct.pack(">I4sI4s4s4s", place + len(body), bytes(4), 0x02200000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + illuminant
    return head.ljust(128, b"\x00") + table + body


# Colorants relative to D50: Display P3 (Apple's profile) and sRGB (IEC 61966-2-1, ICC's profile).
P3 = [[0.51512, 0.24120, -0.00105], [0.29198, 0.69225, 0.04189], [0.15710, 0.06657, 0.78407]]
SRGB = [[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]]
GAMMA = 2.19921875


def p3_to_srgb(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same conversion, by the definitions."""
    light = np.linalg.solve(np.array(SRGB).T, np.array(P3).T @ (levels / 255) ** GAMMA)
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("format", DECODER_FORMATS)
@pytest.mark.parametrize("colour", [(190, 130, 110), (120, 120, 120), (90, 140, 100)])
def test_a_wide_gamut_photograph_is_converted_to_srgb(format: str, colour: tuple[int, int, int]) -> None:
    options = {"lossless": True} if format == "WEBP" else {"quality": 95} if format == "JPEG" else {}
    data = encoded(Image.new("RGB", (64, 64), colour), format, icc_profile=icc_profile(*P3, GAMMA), **options)
    pixels = decode(data, SPEC).pixels[16, 16].astype(float)
    assert np.abs(pixels - p3_to_srgb(np.array(colour, dtype=float))).max() <= 2.5


def test_an_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = decode(encoded(photograph(60, 40)), SPEC)
    assert np.array_equal(decode(encoded(photograph(60, 40), icc_profile=profile), SPEC).pixels, plain.pixels)


@pytest.mark.parametrize(
    "profile",
    [
        b"\x00",
        b"no profile at all",
        bytes(200),
        icc_profile(*P3, GAMMA)[:200],
        icc_profile(*P3, GAMMA).replace(b"RGB ", b"CMYK"),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
    ],
    ids=["one byte", "text", "zeros", "cut off", "for other channels", "for Lab"],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_profile_that_cannot_be_used_is_ignored(profile: bytes, mode: str) -> None:
    image = photograph(60, 40).convert(mode)
    with no_warning():
        found = decode(encoded(image, icc_profile=profile), SPEC)
    assert np.array_equal(found.pixels, decode(encoded(image), SPEC).pixels)


# Refusals


def test_no_bytes_are_refused() -> None:
    assert refusal(b"").code == "image_empty"


def test_a_file_over_the_limit_is_refused_unread() -> None:
    assert refusal(b"\xff\xd8\xff" + bytes(SMALL.max_bytes), SMALL).code == "image_too_large"


@pytest.mark.parametrize(
    "data",
    [
        b"This is no picture.",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
        b"\x00\x00\x00\x18ftypheic",
        encoded(photograph(20, 20), "GIF"),
        encoded(photograph(20, 20), "BMP"),
        encoded(photograph(20, 20), "TIFF"),
    ],
    ids=["text", "svg", "wave", "heic", "gif", "bmp", "tiff"],
)
def test_other_formats_are_refused(data: bytes) -> None:
    error = refusal(data)
    assert error.code == "image_format_not_supported"
    assert "JPEG, PNG or WEBP" in str(error)


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_animations_are_refused(format: str) -> None:
    frames = [photograph(40, 40, seed) for seed in range(3)]
    assert (
        refusal(encoded(frames[0], format, save_all=True, append_images=frames[1:])).code == "image_animated"
    )


@pytest.mark.parametrize("frames", [0, 1, 0xFFFFFFFF])
def test_an_animation_that_breaks_the_rules_is_refused_without_a_warning(frames: int) -> None:
    chunk = (b"acTL", struct.pack(">II", frames, 0))
    data = png((8, 8, 8, 0), bytes(9) * 8, chunk, chunk)
    with pytest.warns(UserWarning, match="APNG"):
        Image.open(io.BytesIO(data))
    assert refusal(data).code == "image_animated"


def test_the_first_frame_of_a_phones_multi_picture_file_is_the_photograph() -> None:
    frames = [photograph(64, 48, seed) for seed in range(2)]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert np.array_equal(decode(data, SPEC).pixels, decode(encoded(frames[0], "JPEG"), SPEC).pixels)


def test_a_damaged_multi_picture_index_is_no_matter() -> None:
    plain = encoded(photograph(64, 48), "JPEG")
    index = b"MPF\x00" + b"II*\x00\xff\xff\xff\xff"
    data = plain[:2] + b"\xff\xe2" + struct.pack(">H", len(index) + 2) + index + plain[2:]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(data))
    assert caught, "Pillow alone warns, or this test shows nothing"
    with no_warning():
        assert np.array_equal(decode(data, SPEC).pixels, decode(plain, SPEC).pixels)


@pytest.mark.parametrize("format", DECODER_FORMATS)
def test_more_pixels_than_allowed_are_refused_by_the_header(format: str) -> None:
    assert decode(encoded(Image.new("RGB", (1000, 1000)), format), SMALL).width_px == 1000
    error = refusal(encoded(Image.new("RGB", (1000, 1001)), format), SMALL)
    assert error.code == "image_too_large"
    assert "1000 x 1001" in str(error)


@pytest.mark.parametrize("side", [10_000, 30_000, 2**31 - 1])
def test_a_hundred_megapixels_are_refused_at_once(side: int) -> None:
    with at_once():
        assert refusal(png((side, side, 8, 2))).code == "image_too_large"


def test_pillows_own_limit_does_not_interfere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for format in ("JPEG", "PNG"):
        with no_warning():
            assert decode(encoded(photograph(64, 48), format), SPEC).width_px == 64


@pytest.mark.parametrize("format", DECODER_FORMATS)
def test_a_truncated_file_is_refused(format: str) -> None:
    data = encoded(photograph(200, 150), format)
    for share in (0.02, 0.3, 0.6, 0.9):
        assert refusal(data[: int(len(data) * share)]).code == "image_not_decodable"


def cut_and_closed(data: bytes, share: float) -> list[bytes]:
    """With an end marker, and nothing or zeros where the rest of the picture was."""
    start = data.index(b"\xff\xda")
    cut = start + int((len(data) - start) * share)
    return [data[:cut] + b"\xff\xd9", data[:cut] + bytes(len(data) - cut - 2) + b"\xff\xd9"]


@pytest.mark.parametrize("size_px", [32, 224])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 5}])
def test_a_jpeg_that_was_cut_short_and_closed_is_refused(
    options: dict[str, int], mode: str, size_px: int
) -> None:
    """libjpeg fills what is missing with grey, and says nothing."""
    spec = PixelSpec(size_px=size_px)
    for orientation in (1, 6):
        data = encoded(photograph(600, 450).convert(mode), "JPEG", exif=exif(orientation), **options)
        decode(data, spec)
        for share in (0.05, 0.3, 0.6, 0.9):
            for damaged in cut_and_closed(data, share):
                error = refusal(damaged, spec)
                assert error.code == "image_not_decodable"
                assert "damaged or incomplete" in str(error)


@pytest.mark.parametrize("options", [{"optimize": True}, {"progressive": True}])
def test_a_jpeg_without_its_first_passage_is_refused(options: dict[str, bool]) -> None:
    data = encoded(photograph(600, 450), "JPEG", **options)
    damaged, _ = cut_and_closed(data, 0.05)
    assert refusal(damaged).code == "image_not_decodable"


def without_part_of_its_first_scan(data: bytes, share: float) -> bytes:
    """A progressive JPEG that lacks the end of the scan of all blocks' means; later scans are whole."""
    start = data.index(b"\xff\xda")
    end = data.index(b"\xff\xc4", start)
    return data[: start + int((end - start) * share)] + data[end:]


@pytest.mark.parametrize("size", [(600, 450), (1203, 901), (1607, 1205)])
@pytest.mark.parametrize("size_px", [32, 224])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_progressive_jpeg_without_the_end_of_its_first_scan_is_refused(
    mode: str, size_px: int, size: tuple[int, int]
) -> None:
    """What follows is whole, so the rest of the picture is grey with edges in it."""
    spec = PixelSpec(size_px=size_px)
    data = encoded(photograph(*size).convert(mode), "JPEG", quality=90, progressive=True)
    decode(data, spec)
    for share in (0.1, 0.3, 0.6, 0.9):
        assert refusal(without_part_of_its_first_scan(data, share), spec).code == "image_not_decodable"


def test_a_jpeg_whose_rest_was_never_written_is_refused() -> None:
    """To tables made for the picture zeros are data, so no pixel of it is missing."""
    data = encoded(photograph(600, 450), "JPEG", optimize=True)
    for share in (0.05, 0.3, 0.6, 0.9):
        cut = int(len(data) * share)
        assert refusal(data[:cut] + bytes(len(data) - cut)).code == "image_not_decodable"
    assert np.array_equal(decode(data + bytes(4096), SPEC).pixels, decode(data, SPEC).pixels)


@pytest.mark.parametrize(
    "options",
    [{}, {"optimize": True}, {"progressive": True}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 1}],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(600, 450), (64, 64), (9, 7)])
def test_a_picture_that_ends_in_grey_is_no_damaged_one(
    size: tuple[int, int], mode: str, options: dict[str, object]
) -> None:
    grey = (128, 128, 128, 128) if mode == "CMYK" else (128, 128, 128) if mode == "RGB" else 128
    corner = photograph(*size).convert(mode)
    corner.paste(grey, (size[0] // 2, size[1] // 2, *size))
    for image in (corner, Image.new(mode, size, grey)):
        assert decode(encoded(image, "JPEG", quality=95, **options), SPEC).width_px == size[0]


PALETTE = (b"PLTE", bytes(range(150, 0, -1)))


@pytest.mark.parametrize(
    ("bits", "colour", "row_bytes"),
    [(1, 0, 8), (8, 0, 60), (16, 0, 120), (8, 2, 180), (16, 2, 360), (8, 3, 60), (8, 4, 120), (8, 6, 240)],
)
def test_a_png_whose_compressed_data_end_early_is_refused(bits: int, colour: int, row_bytes: int) -> None:
    """Pillow leaves what is missing black or transparent, and says nothing."""
    extra = [PALETTE] if colour == 3 else []
    row = b"\0" + bytes([7]) * row_bytes
    decode(png((60, 45, bits, colour), row * 45, *extra), SPEC)
    for rows in (1, 20, 44):
        error = refusal(png((60, 45, bits, colour), row * rows, *extra))
        assert error.code == "image_not_decodable"
        assert "damaged or incomplete" in str(error)


def test_an_interlaced_png_whose_compressed_data_end_early_is_refused() -> None:
    """Its last pixel may be there although the last rows that were written are not."""
    header = (9, 9, 8, 0)
    whole = b"".join(
        (b"\0" + bytes([90]) * across) * down
        for across, down in ((2, 2), (1, 2), (3, 1), (2, 3), (5, 2), (4, 5), (9, 4))
    )
    assert decode(png(header, whole, interlaced=True), SPEC).pixels.min() == 90
    for rows in (1, 4):
        assert refusal(png(header, whole[: -10 * rows], interlaced=True)).code == "image_not_decodable"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P", "I;16"])
def test_a_picture_that_ends_in_black_is_no_damaged_one(mode: str) -> None:
    for size in ((1, 1), (61, 45), (3000, 400)):
        assert decode(encoded(Image.new(mode, size)), SPEC).width_px == size[0]


def test_a_jpeg_of_nothing_but_scans_is_refused_at_once() -> None:
    data = encoded(Image.new("L", (512, 512), 128), "JPEG", progressive=True)
    scan = data[data.rfind(b"\xff\xda") : -2]
    with at_once():
        assert refusal(data[:-2] + scan * 1000 + b"\xff\xd9").code == "image_not_decodable"


def test_a_film_behind_the_photograph_is_no_matter() -> None:
    data = encoded(photograph(64, 48), "JPEG", progressive=True)
    film = b"\x00\x00\x00\x18ftypmp42" + b"\xff\xda\x00\x08" * 1000
    assert np.array_equal(decode(data + film, SPEC).pixels, decode(data, SPEC).pixels)


def test_a_png_of_nothing_but_chunks_is_refused_at_once() -> None:
    data = png((8, 8, 8, 0), bytes(9) * 8, *[(b"teSt", b"")] * 100_001)
    with at_once():
        assert refusal(data).code == "image_not_decodable"


# Any bytes at all


def decodes_or_refuses(data: bytes) -> None:
    with no_warning():
        try:
            picture = decode(data, SMALL)
        except ImageError as error:
            assert error.code in CODES  # noqa: PT017 - a refusal is one of two good answers
        else:
            assert picture.pixels.shape == (32, 32, 3)


@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x24\x00\x00\x00WEBP"]), st.binary()
)
def test_any_bytes_are_decoded_or_refused(signature: bytes, rest: bytes) -> None:
    decodes_or_refuses(signature + rest)


ORIGINALS = [
    encoded(photograph(48, 32), "JPEG", exif=exif(6), icc_profile=icc_profile(*P3, GAMMA)),
    encoded(photograph(48, 32), "JPEG", progressive=True),
    encoded(photograph(48, 32).convert("CMYK"), "JPEG"),
    encoded(photograph(48, 32), "MPO", save_all=True, append_images=[photograph(48, 32, 1)]),
    encoded(photograph(48, 32), "PNG", exif=exif(6), icc_profile=icc_profile(*P3, GAMMA)),
    encoded(photograph(48, 32).quantize(16), "PNG", transparency=b"\x00\x80"),
    encoded(Image.fromarray(np.arange(32 * 32, dtype=np.uint16).reshape(32, 32)), "PNG"),
    encoded(photograph(48, 32), "WEBP", exif=exif(6), icc_profile=icc_profile(*P3, GAMMA)),
]


@settings(max_examples=400)
@given(st.sampled_from(ORIGINALS), st.data())
def test_a_damaged_picture_is_decoded_or_refused(original: bytes, data: st.DataObject) -> None:
    damaged = bytearray(original)
    spots = st.tuples(st.integers(0, len(original) - 1), st.integers(0, 255))
    for place, value in data.draw(st.lists(spots, min_size=1, max_size=8)):
        damaged[place] = value
    length = data.draw(st.integers(len(damaged) // 2, len(damaged)) | st.just(len(damaged)))
    decodes_or_refuses(bytes(damaged[:length]))


def test_the_same_file_gives_the_same_pixels(tmp_path: Path) -> None:
    data = picture_bytes("referred", "JPEG", (640, 480))
    (tmp_path / "a.jpg").write_bytes(data)
    assert np.array_equal(decode((tmp_path / "a.jpg").read_bytes(), SPEC).pixels, decode(data, SPEC).pixels)
