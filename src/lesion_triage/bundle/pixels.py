"""From a file's bytes to the pixels that the network sees: the one pixel path of training and service.

Imports numpy, Pillow, the schema, JPEG and PNG files, the orientation and the exception tree.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, features
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from lesion_triage.bundle import jpeg, png
from lesion_triage.bundle.orientation import TRANSPOSITIONS, exif_orientation
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.errors import ImageError

_LIBRARIES = ("jpg", "libjpeg_turbo", "webp", "littlecms2")
"""As Pillow names the libraries it decodes with. PNG's is left out: zlib cannot change the pixels."""
DECODER_FORMATS = ("JPEG", "PNG", "WEBP")

_MAX_CHUNKS = 100_000
"""A PNG of 30 MB in the usual blocks of 8 KB has about four thousand."""
_LIBJPEG_FILL_LEVELS = frozenset((127, 128))
"""Levels that libjpeg leaves where data are missing: 128, or in CMYK what Pillow converts it to."""
_BLOCK = 8
"""Side of a block of a JPEG, in coded pixels: the mean of its levels is coded apart from the rest."""
_CLIPPED = 4
"""Levels by which clipping and rounding may move the mean of a decoded block."""
_COMPARED_PIXELS = 1_000_000
"""Pixels compared at once: a picture of 50 megapixels is in memory twice already."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, prepared for the network."""

    pixels: NDArray[np.uint8]
    """(size_px, size_px, 3), RGB, C-contiguous."""
    square: Image.Image
    """The same as a Pillow image."""
    width_px: int
    """Of the original, set upright."""
    height_px: int
    quantisation: tuple[int, ...] | None = None
    """For a JPEG file: the 64 steps of its first table, usually that of luma, row by row from the lowest
    frequency. None: not a JPEG, or a table that cannot be read."""


class _Jpeg(JpegImageFile):
    """A JPEG file whose EXIF block Pillow ignores.

    While opening a file, Pillow would look there for the resolution and warn of anything unusual.
    """

    def getexif(self) -> Image.Exif:
        return Image.Exif()


def decode(data: bytes, spec: PixelSpec) -> Picture:
    """Decode a JPEG, PNG or WebP file into the square that the network sees.

    Steps, in order:

    1. The header is checked.
    2. A large JPEG is decoded at the coarsest scale that keeps both sides at least twice the target. This
       moves the logit by a third of what decoding right down to the target does.
    3. The EXIF orientation is applied.
    4. The whole picture is resized to ``size_px`` x ``size_px`` by antialiased bicubic interpolation. It is
       stretched to the square on purpose: nothing at the edge may be cropped away.
    5. Transparency is laid over white.
    6. Colours are converted to sRGB. An embedded profile is applied if it can be read, and otherwise ignored.

    16-bit samples keep their high byte. The same bytes give the same pixels. No warning is issued, whatever
    the bytes.

    Args:
        data: the file.
        spec: target size and the limits on bytes and pixels.

    Raises:
        ImageError: with code ``image_empty``, ``image_too_large``, ``image_format_not_supported``,
            ``image_animated`` or ``image_not_decodable``.
    """
    if not data:
        raise ImageError("image_empty", "The picture has no bytes; send the file again.")
    if len(data) > spec.max_bytes:
        raise ImageError(
            "image_too_large",
            f"The picture has more than {spec.max_bytes:,} bytes; send a smaller file.",
        )
    with _decoder_errors_as_image_errors():
        image = _open_image(data)
        width_px, height_px = image.size
        if width_px * height_px > spec.max_pixels:
            raise ImageError(
                "image_too_large",
                f"The picture has {width_px} x {height_px} pixels, expected at most {spec.max_pixels:,} "
                "in all; send a smaller copy.",
            )
        if getattr(image, "is_animated", False):
            raise _animated_error()
        coded_px = image.size  # until it is loaded at a coarser scale
        draft_extent = _load(image, spec.size_px)
        orientation = exif_orientation(image.info.get("exif", b""))  # in a PNG it may follow the pixels
        if isinstance(image, JpegImageFile):
            _refuse_truncated_jpeg(image, data, coded_px, spec.size_px)
        if isinstance(image, PngImageFile):
            _refuse_truncated_png(image, data)
        square = _upright_square(image, draft_extent, orientation, spec.size_px)
        square = _to_srgb(square, image.info.get("icc_profile"))
    if orientation >= 5:
        width_px, height_px = height_px, width_px
    return Picture(
        pixels=np.array(square),
        square=square,
        width_px=width_px,
        height_px=height_px,
        quantisation=_quantisation_steps(image),
    )


def decoder_versions() -> dict[str, str]:
    """Versions, by name, of all the libraries that decide which pixels a file becomes."""
    libraries = {name: str(features.version(name)) for name in _LIBRARIES}
    return {"pillow": PIL.__version__, **libraries}


def orientation_and_profile(data: bytes) -> tuple[int, bytes | None]:
    """All of a file's metadata that its pixels depend on.

    Returns:
        EXIF orientation, 1 to 8, and the embedded colour profile; None if it is absent or ignored.

    Raises:
        ImageError: as ``decode``, as far as the header shows; for a PNG, the whole file is read.
    """
    with _decoder_errors_as_image_errors():
        image = _open_image(data)
        if isinstance(image, PngImageFile):
            image.load()  # metadata that follow the pixels count too
        icc_profile = image.info.get("icc_profile")
        try:
            applies = _effective_profile(icc_profile) is not None
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            applies = False
        return exif_orientation(image.info.get("exif", b"")), icc_profile if applies else None


@contextmanager
def _decoder_errors_as_image_errors() -> Iterator[None]:
    """Turn any error that a broken file causes in Pillow into one sentence.

    Its plugins raise OSError, SyntaxError, ValueError, struct.error, zlib.error and more, and the list
    grows with each release, so only Exception catches them all. MemoryError is let through: it is not the
    file's fault.
    """
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("image_too_large", f"The picture is too large: {error}") from None
    except Exception as error:
        raise ImageError(
            "image_not_decodable",
            f"The picture cannot be decoded ({type(error).__name__}: {error}); "
            "it is damaged or incomplete, send the file again.",
        ) from None


def _open_image(data: bytes) -> ImageFile.ImageFile:
    """Read the header.

    The plugins are called by name: ``Image.open`` would add a process-wide limit on pixels, warnings, and an
    attempt to find the frames of a phone's multi-picture JPEG, of which the first is the photograph.
    """
    stream = io.BytesIO(data)
    if data.startswith(b"\xff\xd8\xff"):
        jpeg.refuse_too_many_scans(data)
        jpeg.refuse_zero_filled(data)
        return _Jpeg(stream)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        _refuse_animated_png(data)
        return PngImageFile(stream)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WebPImageFile(stream)
    raise ImageError(
        "image_format_not_supported",
        f"The file is not a {', '.join(DECODER_FORMATS[:-1])} or {DECODER_FORMATS[-1]} picture (it starts "
        f"with {data[:8]!r}); convert it and send it again.",
    )


def _animated_error() -> ImageError:
    return ImageError("image_animated", "The picture is animated, expected a single still photograph.")


def _refuse_animated_png(data: bytes) -> None:
    """Refuse a PNG with any animation chunk, at any position: Pillow warns of malformed ones."""
    offset = 8
    for _ in range(_MAX_CHUNKS):
        if offset + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, offset)
        if kind == b"acTL":
            raise _animated_error()
        offset += length + 12
    raise ImageError(
        "image_not_decodable",
        f"The PNG has more than {_MAX_CHUNKS:,} chunks; save it again and send the new file.",
    )


def _quantisation_steps(image: ImageFile.ImageFile) -> tuple[int, ...] | None:
    """Since version 8.3 Pillow gives the steps in row order, not in zigzag order."""
    steps = getattr(image, "quantization", {}).get(0, ())
    return tuple(steps) if len(steps) == 64 else None


def _load(image: ImageFile.ImageFile, size_px: int) -> tuple[float, float] | None:
    """Decode; a JPEG at the coarsest sufficient scale.

    Returns:
        Width and height of the part that is picture, as stored; None: all of it.
    """
    draft = image.draft(None, (2 * size_px, 2 * size_px))
    image.load()
    return None if draft is None else draft[1][2:]


def _refuse_truncated_jpeg(
    image: JpegImageFile, data: bytes, coded_px: tuple[int, int], size_px: int
) -> None:
    """Refuse a decoded JPEG in which picture data are missing, although there is an end marker.

    libjpeg silently leaves the rest grey. A good picture may end in grey too: it is complete if inserting
    more data changes nothing in it.
    """
    if not _ends_in_grey(image, coded_px):
        return
    again = _Jpeg(io.BytesIO(jpeg.with_extra_scan_data(data)))
    _load(again, size_px)
    width, height = image.size
    rows = max(1, _COMPARED_PIXELS // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        if image.crop(box).tobytes() != again.crop(box).tobytes():
            raise jpeg.truncated_error()


def _ends_in_grey(image: JpegImageFile, coded_px: tuple[int, int]) -> bool:
    """Whether a JPEG of these coded sides may be what libjpeg makes of missing data.

    With the data of a sequential JPEG its last pixel is missing. A progressive one sends the means of all
    blocks first: if they are cut short and the later scans are whole, what is left of a block has grey as its
    mean.
    """
    width, height = image.size
    if _LIBJPEG_FILL_LEVELS.issuperset(image.crop((width - 1, height - 1, width, height)).tobytes()):
        return True
    if "progressive" not in image.info or min(coded_px) < _BLOCK:
        return False
    side = _BLOCK * width // coded_px[0]
    left, top = ((coded // _BLOCK - 1) * side for coded in coded_px)
    block = image.crop((left, top, left + side, top + side))
    levels = np.asarray(block.convert("L") if image.mode == "RGB" else block)
    return bool((abs(levels.mean(axis=(0, 1)) - np.mean(list(_LIBJPEG_FILL_LEVELS))) <= _CLIPPED).all())


def _refuse_truncated_png(image: PngImageFile, data: bytes) -> None:
    """Refuse a decoded PNG whose compressed data end before the picture does, although they end properly.

    Pillow silently leaves the rest zero: black or transparent, including the last pixel, except in an
    interlaced picture.
    """
    width, height = image.size
    ends_in_zero = not any(image.crop((width - 1, height - 1, width, height)).tobytes())
    if (ends_in_zero or image.info.get("interlace")) and png.is_truncated(data):
        raise jpeg.truncated_error()


def _upright_square(
    image: ImageFile.ImageFile, draft_extent: tuple[float, float] | None, orientation: int, size_px: int
) -> Image.Image:
    """Set upright and resize; the result has mode L, RGB or CMYK."""
    upright = _with_interpolable_mode(image)
    if orientation in TRANSPOSITIONS:
        upright = upright.transpose(TRANSPOSITIONS[orientation])
    box = None if draft_extent is None else _upright_box(draft_extent, upright.size, orientation)
    # While resizing LA and RGBA, Pillow weights colours by their opacity.
    square = upright.resize((size_px, size_px), Image.Resampling.BICUBIC, box)
    if square.mode in ("LA", "RGBA"):
        white = Image.new("RGBA", square.size, "white")
        square = Image.alpha_composite(white, square.convert("RGBA")).convert("RGB")
    return square


def _upright_box(
    extent: tuple[float, float], size: tuple[int, int], orientation: int
) -> tuple[float, float, float, float]:
    """The part of an upright picture that holds the scene: left, top, right, bottom.

    When decoded at a coarser scale that does not divide a side, the last pixel of that side is only partly
    picture. ``extent`` is the part as stored, beginning at the top left.
    """
    width, height = extent if orientation < 5 else (extent[1], extent[0])
    left = size[0] - width if orientation in (2, 3, 6, 7) else 0.0
    top = size[1] - height if orientation in (3, 4, 7, 8) else 0.0
    return left, top, left + width, top + height


def _with_interpolable_mode(image: Image.Image) -> Image.Image:
    """Convert to 8-bit greyscale or colour, with or without opacity: L, LA, RGB, RGBA or CMYK."""
    if image.mode.startswith("I"):
        # convert() would clip at 255. Take the high byte, as Pillow does with 16-bit colour.
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    key = image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:
        key = None  # transparency given as a 16-bit colour, and the 16-bit samples are gone
    if key is not None and image.mode in ("1", "L", "P", "RGB"):
        return image.convert("RGBA")
    if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _to_srgb(square: Image.Image, icc_profile: bytes | None) -> Image.Image:
    """Convert to sRGB, mode RGB. Done last: at this size it costs almost nothing."""
    try:
        if (profile := _effective_profile(icc_profile)) is not None:
            srgb = ImageCms.createProfile("sRGB")
            return ImageCms.buildTransform(profile, srgb, square.mode, "RGB").apply(square)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        pass  # unreadable, or for another colour space than the pixels'
    return square.convert("RGB")


def _effective_profile(icc_profile: bytes | None) -> ImageCms.ImageCmsProfile | None:
    """The profile; None if there is none, or if it equals what is assumed without one."""
    if not icc_profile:
        return None
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
    return None if (profile.profile.profile_description or "").startswith("sRGB") else profile
