"""Drawings of blobs in two kinds, regular and irregular, for demonstrations and tests. numpy and Pillow only.

Imports records, locks, console, the bundle's writer of files and the exception tree.

They do not resemble skin and are not meant to; a model that has seen nothing else says so in its bundle. The
two kinds borrow only one thing from dermatology: asymmetry, a notched border and several colours go together.
The kinds overlap on purpose, so that a threshold has something to trade off. Only the parameters of the
drawing tell the kind.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from lesion_triage.bundle.document import canonical_json
from lesion_triage.bundle.files import write_atomically
from lesion_triage.console import ProgressCallback, echo
from lesion_triage.data.records import HISTOPATHOLOGY
from lesion_triage.errors import DataError
from lesion_triage.locks import hold_lock

Kind = Literal["regular", "irregular"]

TABLE = "cases.csv"
PARAMETERS = "drawing.json"
PICTURES = "images"

_VERSION = 2
"""Raised whenever the same parameters would draw other pictures."""

_SEPARATION = 3.8
"""Distance of the two kinds' mean irregularity, in standard deviations of either."""

_CUE_NOISE = 0.4
"""How far border, outline and colour of one lesion deviate from its irregularity."""

_SKIN_TEXTURE = 0.02
"""Standard deviation of the brightness at each of three scales: without it the quality gate rightly takes a
drawing for an out-of-focus photograph."""

_ANGLES = 720
_TEXTURE = 96

Floats = NDArray[np.float32]
Random = np.random.Generator


class _Camera(NamedTuple):
    """One source of pictures."""

    source: str
    width_px: int
    height_px: int
    white_balance: tuple[float, float, float]
    vignette: float
    blur_px: float
    jpeg_quality: int


_CAMERAS = (
    _Camera("synthetic-camera-a", 160, 120, (1.00, 1.00, 1.00), 0.10, 0.6, 85),
    _Camera("synthetic-camera-b", 200, 150, (1.04, 1.00, 0.93), 0.25, 0.9, 90),
    _Camera("synthetic-camera-c", 240, 180, (0.95, 1.00, 1.06), 0.00, 1.3, 80),
)

_SKIN_TONES = {
    "I": (244, 213, 194),
    "II": (236, 196, 170),
    "III": (214, 166, 132),
    "IV": (184, 130, 98),
    "V": (142, 96, 70),
    "VI": (108, 74, 56),
}
_SKIN_SHARES = (0.16, 0.20, 0.20, 0.18, 0.14, 0.12)

_PIGMENTS = ((0.08, 0.06, 0.08), (0.36, 0.46, 0.66), (0.80, 0.22, 0.22), (0.92, 0.86, 0.88))
"""Patches inside a lesion: near black, slate blue, red, pale. RGB in [0, 1]."""

_SITES = ("head/neck", "anterior torso", "posterior torso", "upper extremity", "lower extremity")


class _Spot(NamedTuple):
    """A patch of another colour. Lengths are shares of the picture's short side."""

    x: float
    y: float
    width: float
    strength: float
    """In [0, 1]."""
    pigment: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class _Lesion:
    """What is constant across the pictures of a lesion. Lengths as in ``_Spot``."""

    skin_type: str
    radius: Floats
    """Distance of the border from the centre for each of 720 angles."""
    softness: float
    colour: Floats
    spots: tuple[_Spot, ...]
    texture: Floats
    """Brightness around 0 over the unit square around the centre."""


class _Row(NamedTuple):
    """One line of the table; the names are the folder reader's columns."""

    image: str
    needs_in_person: str
    lesion_id: str
    diagnosis: str
    diagnosis_confirm_type: str
    sex: str
    age_approx: int
    anatom_site_general: str
    image_type: str
    fitzpatrick_skin_type: str
    source: str
    copyright_license: str
    attribution: str


def draw(
    lesions: int,
    positive_share: float,
    seed: int,
    folder: Path,
    progress: ProgressCallback | None = None,
) -> Path:
    """Draw a dataset in the layout of ``source: folder``; returns the path of its table.

    The table is written last, so its existence means the drawing is complete. A complete drawing with the
    same parameters is kept; one with others is replaced. Two processes that want the same drawing share it:
    the second waits for the first.

    Args:
        lesions: how many; each is drawn in one to three pictures.
        positive_share: share of irregular lesions, rounded to whole lesions.
        seed: equal parameters give equal pixels.
        folder: created if absent.
        progress: called with the number of lesions done and the total.

    Raises:
        DataError: the folder holds files that are not a drawing's.
        OSError: the disk refuses a picture or the lock.
    """
    parameters = canonical_json(
        {"version": _VERSION, "lesions": lesions, "positive_share": positive_share, "seed": seed}
    ).encode()
    if not _is_complete(folder, parameters):
        with hold_lock(folder.with_name(f".{folder.name}.lock"), _say_waiting):
            if not _is_complete(folder, parameters):
                _clear_folder(folder, parameters)
                _draw_lesions(lesions, positive_share, seed, folder, progress)
    return folder / TABLE


def _say_waiting() -> None:
    echo("  another process is drawing the same pictures; waiting for it")


def _draw_lesions(
    lesions: int, positive_share: float, seed: int, folder: Path, progress: ProgressCallback | None
) -> None:
    """Draw into a cleared folder; the table is written last."""
    irregular = np.zeros(lesions, dtype=bool)
    irregular[: round(lesions * positive_share)] = True
    np.random.default_rng(seed).shuffle(irregular)
    rows: list[_Row] = []
    for number, positive in enumerate(irregular):
        rows.extend(_draw_lesion(number, "irregular" if positive else "regular", seed, folder))
        if progress is not None:
            progress(number + 1, lesions)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_Row._fields)
    writer.writerows(rows)
    write_atomically(folder / TABLE, buffer.getvalue().encode())


def draw_picture(kind: Kind, seed: int) -> Image.Image:
    """One drawing, in focus, 240 by 180 pixels, RGB; equal arguments give equal pixels."""
    random = np.random.default_rng([seed, 2])
    lesion = _sample_lesion(random, irregular=kind == "irregular")
    return _render(lesion, _CAMERAS[-1]._replace(blur_px=0.5), random)


def _is_complete(folder: Path, parameters: bytes) -> bool:
    try:
        if (folder / PARAMETERS).read_bytes() != parameters:
            return False
        with (folder / TABLE).open(encoding="utf-8", newline="") as stream:
            named = {row["image"] for row in csv.DictReader(stream)}
    except FileNotFoundError:
        return False
    return named == {f"{PICTURES}/{path.name}" for path in (folder / PICTURES).iterdir()}


def _clear_folder(folder: Path, parameters: bytes) -> None:
    """Leave an empty drawing: parameters and no table. Never deletes other files."""
    try:
        drawn = "version" in json.loads((folder / PARAMETERS).read_bytes())
    except (FileNotFoundError, ValueError):
        drawn = False
    if not drawn and folder.exists() and any(folder.iterdir()):
        raise DataError(
            f"{folder}: expected an empty folder or an earlier drawing, found other files; "
            "give source 'synthetic' a folder of its own."
        )
    (folder / TABLE).unlink(missing_ok=True)
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    for path in (folder / PICTURES).glob("S*.jpg"):
        path.unlink()
    write_atomically(folder / PARAMETERS, parameters)


def _draw_lesion(number: int, kind: Kind, seed: int, folder: Path) -> Iterator[_Row]:
    """Draw all pictures of one lesion with its own generator, independent of the number of others."""
    random = np.random.default_rng([seed, 1, number])
    lesion = _sample_lesion(random, irregular=kind == "irregular")
    camera = _CAMERAS[int(random.integers(len(_CAMERAS)))]
    confirmed = random.random() < (0.85 if kind == "irregular" else 0.45)
    age, sex = int(random.integers(20, 90)), ("female", "male")[int(random.integers(2))]
    site = _SITES[int(random.integers(len(_SITES)))]
    for view in range(int(random.choice(3, p=(0.45, 0.35, 0.20))) + 1):
        image = f"{PICTURES}/S{number:06d}-{view + 1}.jpg"
        _render(lesion, camera, random).save(folder / image, quality=camera.jpeg_quality)
        yield _Row(
            image=image,
            needs_in_person=str(kind == "irregular").lower(),
            lesion_id=f"S{number:06d}",
            diagnosis=kind,
            diagnosis_confirm_type=HISTOPATHOLOGY if confirmed else "follow_up",
            sex=sex,
            age_approx=age,
            anatom_site_general=site,
            image_type="drawing",
            fitzpatrick_skin_type=lesion.skin_type,
            source=camera.source,
            copyright_license="Apache-2.0",
            attribution="synthetic drawings of lesion-triage, of no one's skin",
        )


def _sample_lesion(random: Random, *, irregular: bool) -> _Lesion:
    skin_type = str(random.choice(list(_SKIN_TONES), p=_SKIN_SHARES))
    irregularity = random.normal(_SEPARATION / 2 if irregular else -_SEPARATION / 2)
    outline, border, colours = 1 / (1 + np.exp(-(irregularity + random.normal(0, _CUE_NOISE, 3))))
    skin = np.array(_SKIN_TONES[skin_type], np.float32) / 255
    size = random.uniform(0.22, 0.32)
    count = int(random.poisson(0.1 + 6 * colours**1.5))
    spots = tuple(
        _Spot(
            x=random.normal(0, 0.45 * size),
            y=random.normal(0, 0.45 * size),
            width=size * random.uniform(0.3, 0.6),
            strength=random.uniform(0.6, 1.0),
            pigment=_PIGMENTS[random.integers(len(_PIGMENTS))],
        )
        for _ in range(count)
    )
    tint = np.array((0.72, 0.56, 0.50)) * random.uniform(0.68, 1.08) * random.normal(1, 0.05, 3)
    colour: Floats = (skin * tint).astype(np.float32)
    return _Lesion(
        skin_type=skin_type,
        radius=size * _border_radius(random, float(outline), float(border)),
        softness=random.uniform(0.04, 0.14),
        colour=colour,
        spots=spots,
        texture=_upscale(random.normal(0, 0.05 + 0.05 * colours, (12, 12)), (_TEXTURE, _TEXTURE)),
    )


def _border_radius(random: Random, asymmetry: float, notching: float) -> Floats:
    """Distance of the border from the centre by angle, about 1: a stretched circle, lobes, notches."""
    angle = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
    radius = 1 + random.uniform(0.0, 0.14) * np.cos(2 * angle + random.uniform(0, 2 * np.pi))
    for harmonic, share in ((1, 0.22), (3, 0.16), (4, 0.10), (5, 0.09)):
        strength = share * asymmetry * random.uniform(0.3, 1.0)
        radius += strength * np.cos(harmonic * angle + random.uniform(0, 2 * np.pi))
    for _ in range(int(random.poisson(0.3 + 5 * notching))):
        away = np.angle(np.exp(1j * (angle - random.uniform(0, 2 * np.pi))))
        depth = random.uniform(0.10, 0.34) * (0.3 + 0.7 * notching)
        radius -= depth * np.exp(-((away / random.uniform(0.08, 0.22)) ** 2))
    return np.clip(radius, 0.3, 1.8).astype(np.float32)


def _render(lesion: _Lesion, camera: _Camera, random: Random) -> Image.Image:
    """One picture of a lesion, with its own position and lighting."""
    x, y = _pixel_coordinates(camera, random)
    light = _illumination(x, y, camera, random)
    light *= 1 + _upscale(random.normal(0, 0.03, (18, 24)), (camera.width_px, camera.height_px))
    for cells in (24, 48, 96):
        grid = random.normal(0, _SKIN_TEXTURE, (cells, cells * 4 // 3))
        light *= 1 + _upscale(grid, (camera.width_px, camera.height_px))
    noise = random.standard_normal(x.shape, np.float32)
    noise *= np.float32(random.uniform(0.005, 0.02))
    cover, body = _lesion_layer(lesion, x, y)
    skin = np.array(_SKIN_TONES[lesion.skin_type], np.float32) / 255
    pixels = np.empty((*x.shape, 3), np.uint8)
    # Plane by plane: three times as fast as interleaved channels.
    for channel, gain in enumerate(np.array(camera.white_balance, np.float32)):
        plane = body[channel]
        plane -= skin[channel]
        plane *= cover
        plane += skin[channel]
        plane *= light
        plane *= gain
        plane += noise
        plane *= 255
        pixels[..., channel] = np.clip(plane, 0, 255, out=plane)
    picture = Image.fromarray(pixels)
    if random.random() < 0.25:
        _draw_hairs(picture, random)
    return picture.filter(ImageFilter.GaussianBlur(camera.blur_px * random.uniform(0.3, 1.2)))


def _pixel_coordinates(camera: _Camera, random: Random) -> tuple[Floats, Floats]:
    """Coordinates of each pixel in the lesion's own frame, in short sides; shape (height, width) each."""
    height, width = camera.height_px, camera.width_px
    scale = np.float32(random.uniform(0.85, 1.2) * height)
    x = (np.arange(width, dtype=np.float32) - width / 2) / scale - np.float32(random.uniform(-0.12, 0.12))
    y = (np.arange(height, dtype=np.float32) - height / 2) / scale - np.float32(random.uniform(-0.08, 0.08))
    turn = random.uniform(0, 2 * np.pi)
    cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return x * cosine - y[:, None] * sine, x * sine + y[:, None] * cosine


def _lesion_layer(lesion: _Lesion, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """How much of the skin the lesion covers, in [0, 1], and its colour, shape (3, height, width)."""
    angle = (np.arctan2(y, x) * np.float32(_ANGLES / (2 * np.pi))).astype(np.int32)
    reach = np.take(lesion.radius, angle, mode="wrap")
    cover = (np.hypot(x, y) / reach - 1) * np.float32(4 / lesion.softness)
    np.exp(np.clip(cover, -30, 30, out=cover), out=cover)
    np.reciprocal(cover + 1, out=cover)
    body = np.empty((3, *x.shape), np.float32)
    body[:] = lesion.colour[:, None, None]
    for spot in lesion.spots:
        share = np.square(x - np.float32(spot.x)) + np.square(y - np.float32(spot.y))
        np.exp(np.multiply(share, np.float32(-1 / spot.width**2), out=share), out=share)
        share *= np.float32(spot.strength)
        # A patch on dark skin is darker than one on light skin.
        tint = np.array(spot.pigment, np.float32) * (np.float32(0.5) + lesion.colour.mean())
        body += share * (tint[:, None, None] - body)
    cell = ((y + 0.5) * _TEXTURE).astype(np.int32) * _TEXTURE + ((x + 0.5) * _TEXTURE).astype(np.int32)
    body *= 1 + np.take(lesion.texture, cell, mode="clip")
    return np.asarray(cover, np.float32), body


def _illumination(x: Floats, y: Floats, camera: _Camera, random: Random) -> Floats:
    """Brightness of the light at each pixel, about 1: level, gradient, darker corners."""
    slope_x, slope_y = random.uniform(-0.25, 0.25, 2).astype(np.float32)
    light = np.float32(random.uniform(0.78, 1.1)) * (1 + slope_x * x + slope_y * y)
    return np.asarray(light * (1 - np.float32(camera.vignette) * (x * x + y * y)), np.float32)


def _draw_hairs(picture: Image.Image, random: Random) -> None:
    """A few thin curved dark lines across the picture, in place."""
    pen = ImageDraw.Draw(picture)
    steps = np.linspace(0, 1, 12)[:, None]
    for _ in range(int(random.integers(1, 6))):
        start, bend, end = random.uniform(-0.1, 1.1, (3, 2)) * picture.size
        curve = (1 - steps) ** 2 * start + 2 * steps * (1 - steps) * (start + end + bend) / 3 + steps**2 * end
        shade = int(random.integers(15, 70))
        pen.line([tuple(point) for point in curve.tolist()], fill=(shade, shade - 5, shade - 10), width=1)


def _upscale(grid: NDArray[np.float64], size: tuple[int, int]) -> Floats:
    """Smooth upscaling; ``size`` is width and height."""
    picture = Image.fromarray(grid.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(picture, np.float32)
