"""What is kept of a photograph has the same pixels and tells nothing of people or places."""

from __future__ import annotations

import io
import itertools
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from lesion_triage.bundle.metadata_stripping import media_type, strip_metadata
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.errors import ImageError

SPEC = PixelSpec(size_px=32)
NAME, PLACE = "Mustermann", "Hintertupfing"


def photograph(format: str, orientation: int = 1, mode: str = "RGB", **options: object) -> bytes:
    """Not symmetric, with a name and a place wherever a file of this format has room for them."""
    levels = np.random.default_rng(3).integers(40, 220, (90, 140, 4), dtype=np.uint8)
    levels[:45, :70] //= 2
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x013B] = NAME
    exif[0x9286] = NAME.encode()
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 13.0), 28: PLACE})
    if format == "PNG":
        info = PngInfo()
        info.add_text("Comment", NAME)
        info.add_itxt("XML:com.adobe.xmp", f"<x>{PLACE}</x>")
        options["pnginfo"] = info
    elif format == "JPEG":
        options |= {"comment": NAME, "xmp": f"<x>{PLACE}</x>".encode()}
    else:
        options["xmp"] = f"<x>{PLACE}</x>".encode()
    stream = io.BytesIO()
    picture = Image.fromarray(levels, "RGBA") if mode == "RGBA" else Image.fromarray(levels[..., :3])
    if mode != "RGBA":
        picture = picture.convert(mode)
    picture.save(stream, format, exif=exif, **options)
    return stream.getvalue()


KINDS = {
    "jpeg": ("JPEG", {"quality": 90}),
    "progressive jpeg": ("JPEG", {"progressive": True}),
    "jpeg with restarts": ("JPEG", {"restart_marker_blocks": 2}),
    "grey jpeg": ("JPEG", {"mode": "L"}),
    "CMYK jpeg": ("JPEG", {"mode": "CMYK"}),
    "png": ("PNG", {}),
    "png with a palette": ("PNG", {"mode": "P"}),
    "see-through png": ("PNG", {"mode": "RGBA"}),
    "webp": ("WEBP", {"quality": 80}),
    "lossless webp": ("WEBP", {"lossless": True, "mode": "RGBA"}),
}


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_stay_and_names_and_places_go(kind: str, orientation: int) -> None:
    format, options = KINDS[kind]
    data = photograph(format, orientation, **options)
    assert NAME.encode() in data
    kept = strip_metadata(data, SPEC)
    before, after = decode(data, SPEC), decode(kept, SPEC)
    assert np.array_equal(before.pixels, after.pixels)
    assert (before.width_px, before.height_px) == (after.width_px, after.height_px)
    assert before.quantisation == after.quantisation
    for planted in (NAME, PLACE, "xmp", "GPS"):
        assert planted.encode() not in kept
    again = Image.open(io.BytesIO(kept)).getexif()
    assert set(again) <= {0x0112}
    assert not again.get_ifd(0x8825)
    assert media_type(kept) == f"image/{format.lower()}"
    assert strip_metadata(kept, SPEC) == kept


def test_colour_profile_that_changes_the_pixels_stays_and_one_that_does_not_goes() -> None:
    stream = io.BytesIO()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for format in ("JPEG", "PNG", "WEBP"):
        stream = io.BytesIO(photograph(format))
        picture = Image.open(stream)
        named, other = io.BytesIO(), io.BytesIO()
        picture.save(named, format, icc_profile=srgb)
        picture.save(other, format, icc_profile=_swapped(srgb))
        assert Image.open(io.BytesIO(strip_metadata(named.getvalue(), SPEC))).info.get("icc_profile") is None
        kept = strip_metadata(other.getvalue(), SPEC)
        assert Image.open(io.BytesIO(kept)).info["icc_profile"] == _swapped(srgb)
        plain = decode(strip_metadata(named.getvalue(), SPEC), SPEC).pixels
        assert (format == "PNG") <= (not np.array_equal(decode(kept, SPEC).pixels, plain))


def _swapped(srgb: bytes) -> bytes:
    """The same profile under another name, and with red for blue, so that it changes the pixels."""
    other = srgb.replace(b"sRGB", b"zRGB").replace("sRGB".encode("utf-16-be"), "zRGB".encode("utf-16-be"))
    return other.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ")


def _behind_the_pixels(png: bytes) -> bytes:
    """With the orientation and the colour profile after the picture data."""
    chunks, place = [], 8
    while place < len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        chunks.append((kind, png[place : place + 12 + length]))
        place += 12 + length
    late = [chunk for kind, chunk in chunks if kind in (b"eXIf", b"iCCP")]
    others = [chunk for kind, chunk in chunks if kind not in (b"eXIf", b"iCCP")]
    assert len(late) == 2
    return b"".join((png[:8], *others[:-1], *late, others[-1]))


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_what_stands_behind_the_pixels_of_a_png_is_kept_as_far_as_its_look_needs(orientation: int) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    before = photograph("PNG", orientation, icc_profile=_swapped(srgb))
    kept = strip_metadata(_behind_the_pixels(before), SPEC)
    assert np.array_equal(decode(kept, SPEC).pixels, decode(before, SPEC).pixels)
    assert NAME.encode() not in kept
    assert kept == strip_metadata(before, SPEC)


def _png_with(pixels: bytes, before: bytes, **bodies: bytes) -> bytes:
    """The PNG with other picture data, and other chunks where their names are given."""
    made, place, done = [before[:8]], 8, False
    while place < len(before):
        length, kind = struct.unpack_from(">I4s", before, place)
        body = before[place + 8 : place + 8 + length]
        place += 12 + length
        if kind == b"IDAT":
            body, done, repeated = pixels, True, done
            if repeated:
                continue
        body = bodies.get(kind.decode(), body)
        made.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(made)


def _pixels_of(png: bytes) -> bytes:
    found, place = b"", 8
    while place < len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        found += png[place + 8 : place + 8 + length] if kind == b"IDAT" else b""
        place += 12 + length
    return found


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_name_behind_or_within_the_picture_data_of_a_png_goes(mode: str) -> None:
    before = photograph("PNG", mode=mode)
    data, name = _pixels_of(before), NAME.encode() * 100
    whole = zlib.decompress(data)
    assert zlib.decompress(_pixels_of(strip_metadata(before, SPEC))) == whole
    for other in (
        _png_with(data + name, before),
        _png_with(zlib.compress(whole + name, 0), before),
        _png_with(data, before, IEND=name),
    ):
        kept = strip_metadata(other, SPEC)
        assert np.array_equal(decode(kept, SPEC).pixels, decode(before, SPEC).pixels)
        assert NAME.encode() not in kept
        assert zlib.decompress(_pixels_of(kept)) == whole


def test_what_a_telephone_appends_or_previews_goes() -> None:
    data = photograph("JPEG")
    film = data + b"ftypmp42" + NAME.encode() * 100
    assert NAME.encode() not in strip_metadata(film, SPEC)
    preview = data[:2] + b"\xff\xe0\x00\x20JFXX\0\x10" + NAME.encode() + bytes(14) + data[2:]
    assert NAME.encode() not in strip_metadata(preview, SPEC)


def test_picture_that_would_look_otherwise_without_what_stands_beside_it_is_refused() -> None:
    """Its JFIF segment is too short to count, so another says that these are no YCbCr; ours would count."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(photograph("JPEG"))).save(stream, "JPEG", quality=90)
    plain = stream.getvalue()
    assert plain[2:11] == b"\xff\xe0\0\x10JFIF\0"
    short = b"\xff\xe0\0\x09JFIF\0\1\1"
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"  # transform 0: RGB
    odd = plain[:2] + short + adobe + plain[20:]
    assert not np.array_equal(decode(odd, SPEC).pixels, decode(plain, SPEC).pixels)
    with pytest.raises(ImageError) as refused:
        strip_metadata(odd, SPEC)
    assert refused.value.code == "image_not_storable"


@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=8))
def test_damage_is_refused_or_leaves_the_pixels_as_they_were(place: int, damage: bytes) -> None:
    data = bytearray(photograph("JPEG", quality=60))
    place %= len(data)
    data[place : place + len(damage)] = damage
    try:
        kept = strip_metadata(bytes(data), SPEC)
    except ImageError:
        return
    assert np.array_equal(decode(kept, SPEC).pixels, decode(bytes(data), SPEC).pixels)


@pytest.mark.data
def test_real_photographs_can_all_be_stored() -> None:
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    root = Path(os.environ.get("LESION_TRIAGE_TEST_DATA") or beside)
    sample: list[Path] = []
    for folder in sorted(root.glob("*/")):
        for suffix in ("jpg", "png"):
            sample += itertools.islice(folder.rglob(f"*.{suffix}"), 10)
    if not sample:
        pytest.skip(f"NO REAL PICTURES at {root}: set LESION_TRIAGE_TEST_DATA; this promise was not tested")
    for path in sample:
        strip_metadata(path.read_bytes(), SPEC)
