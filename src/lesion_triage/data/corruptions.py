"""What goes wrong when a photograph is taken or forwarded, at five severities. numpy and Pillow only.

Imports the exception tree. It produces files, which then go through the one pixel path like any other.

In the spirit of Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019: the severities were fixed before anything was measured with them. Lengths are
shares of the picture's short side, so that a small copy and its large original are corrupted alike.
Corruptions of light (blur, exposure, glare, colour) are applied to linear light, by the transfer curve of
IEC 61966-2-1.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lesion_triage.errors import DataError

SEVERITIES = (1, 2, 3, 4, 5)

Light = NDArray[np.float32]
"""(height, width, 3), linear light, 0 black to 1 white."""
Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class Corruption:
    """One way to corrupt a photograph."""

    meaning: str
    unit: str
    """Unit of ``values``."""
    values: tuple[float, float, float, float, float]
    """For severity 1 to 5."""
    apply: Callable[[Image.Image, float, Random], bytes]
    """From an upright RGB picture to a file's bytes."""


def corrupt(data: bytes, name: str, severity: int, seed: int = 0) -> bytes:
    """Corrupt one picture; equal arguments give equal bytes.

    Random choices (side, direction, hue, positions) depend on seed, picture and corruption but not on the
    severity, so a higher severity is more of the same.

    Args:
        data: the file, in any format that Pillow reads.
        name: one of ``CORRUPTIONS``.
        severity: 1 to 5.
        seed: of the random choices.

    Returns:
        A PNG file, so that nothing but the corruption is added; for ``recompressed`` a JPEG file.

    Raises:
        DataError: there is no such corruption or severity.
    """
    if name not in CORRUPTIONS or severity not in SEVERITIES:
        raise DataError(
            f"There is no corruption '{name}' of severity {severity}; expected one of "
            f"{', '.join(CORRUPTIONS)}, and 1 to {SEVERITIES[-1]}."
        )
    corruption = CORRUPTIONS[name]
    key = hashlib.sha256(f"{seed}:{name}:".encode() + data).digest()
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    return corruption.apply(
        image, corruption.values[severity - 1], np.random.default_rng(int.from_bytes(key[:8]))
    )


def _defocus_blur(image: Image.Image, radius: float, _: Random) -> bytes:
    """Convolve with a disc, the image of a point out of focus."""
    reach = radius * min(image.size)
    edge = int(np.ceil(reach))
    across = np.arange(-edge, edge + 1)
    # A pixel at the edge is weighted approximately by the share of it that the disc covers.
    kernel = np.clip(reach + 0.5 - np.hypot(across[:, None], across), 0, 1)
    return _linear_to_png(_convolve(_to_linear(image), kernel))


def _motion_blur(image: Image.Image, length: float, random: Random) -> bytes:
    """Convolve with a straight line, the trace of a steady hand movement during the exposure."""
    half, turn = length * min(image.size) / 2, random.uniform(0, np.pi)
    edge = int(np.ceil(half)) + 1
    kernel = np.zeros((2 * edge + 1, 2 * edge + 1))
    for step in np.linspace(-half, half, 8 * edge):
        x, y = step * np.cos(turn) + edge, step * np.sin(turn) + edge
        left, top = int(x), int(y)
        for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            kernel[row, column] += (1 - abs(x - column)) * (1 - abs(y - row))
    return _linear_to_png(_convolve(_to_linear(image), kernel))


def _change_exposure(image: Image.Image, stops: float, _: Random) -> bytes:
    return _linear_to_png(_to_linear(image) * np.float32(2.0**stops))


def _downscale(image: Image.Image, short_side_px: float, _: Random) -> bytes:
    factor = min(1.0, short_side_px / min(image.size))
    size = tuple(max(1, round(side * factor)) for side in image.size)
    return _encode(image.resize((size[0], size[1]), Image.Resampling.LANCZOS), "PNG")


def _recompress(image: Image.Image, quality: float, _: Random) -> bytes:
    return _encode(image, "JPEG", quality=int(quality))


def _crop(image: Image.Image, share: float, random: Random) -> bytes:
    """Crop both sides towards a random corner, so that a lesion in the middle is cut through."""
    width, height = image.size
    left, top = (int(side) for side in random.integers(2, size=2))
    x, y = round(share * width), round(share * height)
    box = (left * x, top * y, width - (1 - left) * x, height - (1 - top) * y)
    return _encode(image.crop(box), "PNG")


def _colour_cast(image: Image.Image, stops: float, random: Random) -> bytes:
    """Shift the channels' balance towards a random hue; the brightness stays."""
    turn = random.uniform(0, 2 * np.pi)
    gains = 2.0 ** (stops * np.cos(turn - np.array([0, 2, 4]) * np.pi / 3))
    light = _to_linear(image)
    tinted = light * gains.astype(np.float32)
    return _linear_to_png(tinted * (_luminance(light) / max(_luminance(tinted), 1e-6)))


def _add_glare(image: Image.Image, share: float, random: Random) -> bytes:
    """Add the light of three reflections with burnt-out cores that cover ``share`` of the picture in all."""
    light = _to_linear(image)
    height, width = light.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    places, stretch = random.uniform(0.2, 0.8, (3, 2)), random.uniform(0.6, 1 / 0.6, 3)
    shares = share * random.dirichlet((4, 4, 4))
    for (across, down), longer, part in zip(places, stretch, shares, strict=True):
        area = part * width * height / np.pi
        distance = ((x - across * width) ** 2 / longer + (y - down * height) ** 2 * longer) / area
        light += np.exp(-(distance**2))[..., None].astype(np.float32) * 2
    return _linear_to_png(light)


CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        "defocused": Corruption(
            "out of focus: convolved with a disc",
            "radius, share of the short side",
            (3 / 224, 4 / 224, 6 / 224, 8 / 224, 10 / 224),
            _defocus_blur,
        ),
        "moved": Corruption(
            "hand not still: convolved with a line",
            "length, share of the short side",
            (0.02, 0.04, 0.06, 0.08, 0.12),
            _motion_blur,
        ),
        "dark": Corruption("too little light", "stops", (-1, -2, -3, -4, -5), _change_exposure),
        "over_exposed": Corruption("too much light", "stops", (0.5, 1, 1.5, 2, 3), _change_exposure),
        "tiny": Corruption("shrunk to a thumbnail", "short side, pixels", (128, 96, 64, 48, 32), _downscale),
        "recompressed": Corruption(
            "saved by a messenger", "JPEG quality of libjpeg", (25, 18, 15, 10, 7), _recompress
        ),
        "cropped": Corruption(
            "lesion cut through: both sides cut towards a corner",
            "share of each side that is cut off",
            (0.2, 0.3, 0.4, 0.5, 0.6),
            _crop,
        ),
        "colour_cast": Corruption(
            "channels weighed towards a hue", "stops", (0.2, 0.4, 0.6, 0.9, 1.2), _colour_cast
        ),
        "glare": Corruption(
            "reflections with burnt-out cores",
            "share of the picture",
            (0.02, 0.05, 0.1, 0.2, 0.35),
            _add_glare,
        ),
    }
)
"""By name. The severities of ``defocused`` and ``recompressed`` are those of ImageNet-C."""


def _to_linear(image: Image.Image) -> Light:
    levels = np.arange(256) / 255
    curve = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    light: Light = curve.astype(np.float32)[np.asarray(image)]
    return light


def _linear_to_png(light: Light) -> bytes:
    light = np.clip(light, 0, 1)
    levels = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return _encode(Image.fromarray(np.round(levels * 255).astype(np.uint8)), "PNG")


def _encode(image: Image.Image, form: str, **options: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _luminance(light: Light) -> float:
    return float(light.mean(axis=(0, 1)) @ np.array([0.2126, 0.7152, 0.0722], np.float32))


def _convolve(light: Light, kernel: NDArray[np.float64]) -> Light:
    """Mirror padding, by Fourier transform: a line across a large photograph is long."""
    edge = kernel.shape[0] // 2
    padded = np.pad(light, ((edge, edge), (edge, edge), (0, 0)), mode="symmetric")
    size = padded.shape[:2]
    spectrum = np.fft.rfft2(kernel / kernel.sum(), size)[..., None]
    result = np.fft.irfft2(np.fft.rfft2(padded, axes=(0, 1)) * spectrum, size, axes=(0, 1))
    return result[2 * edge :, 2 * edge :].astype(np.float32)
