"""Requests that no honest platform sends: drawn pictures, spoilt in every way that is known, by a seed.

The same seed gives the same bytes. What each should become is not said here: ``decodable`` asks another
decoder.
"""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from PIL import Image, ImageCms

from tiny_bundle import picture_bytes

JPEG, PNG, WEBP = "image/jpeg", "image/png", "image/webp"
_TYPES = {"JPEG": JPEG, "PNG": PNG, "WEBP": WEBP}
CUT_AND_CLOSED = "cut and closed"


@dataclass(frozen=True, slots=True)
class Hostile:
    """One request to ``POST /v1/triage``."""

    kind: str
    body: bytes
    headers: dict[str, str]
    picture: bytes | None = field(default=None)
    """The one photograph in it; None: none, or several."""
    whole: bool = True
    """False: part of the photograph is missing, whatever a decoder says."""


def hostile(seed: int) -> Hostile:
    """The request of this number."""
    random_ = random.Random(seed)
    kind = random_.choices(list(_KINDS), [weight for weight, _ in _KINDS.values()])[0]
    made = _KINDS[kind][1](random_)
    if isinstance(made, Hostile):
        return replace(made, kind=kind)
    picture, media_type = made
    return replace(_sent(random_, kind, picture, media_type), whole=kind != CUT_AND_CLOSED)


def decodable(picture: bytes) -> bool:
    """Whether Pillow alone, told to be strict, decodes every pixel of it as one JPEG, PNG or WebP frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(picture), formats=("JPEG", "PNG", "WEBP")) as image:
                frames = getattr(image, "n_frames", 1)
                image.load()
                image.convert("RGB")
        except Exception:  # of whatever kind: it is not decodable
            return False
    return frames == 1


Made = tuple[bytes, str]


def _sent(random_: random.Random, kind: str, picture: bytes, media_type: str) -> Hostile:
    """Mostly as a raw body, now and then in a form or in JSON, and with a lie about its type."""
    way = random_.random()
    if way < 0.8:
        named = media_type if way < 0.7 else random_.choice((*_TYPES.values(), "application/octet-stream"))
        return Hostile(kind, picture, {"Content-Type": named}, picture)
    if way < 0.9:
        part = b'--b0\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        body = part + picture + b"\r\n--b0--\r\n"
        return Hostile(kind, body, {"Content-Type": "multipart/form-data; boundary=b0"}, picture)
    text = json.dumps({"images": [base64.b64encode(picture).decode()]})
    return Hostile(kind, text.encode(), {"Content-Type": "application/json"}, picture)


@cache
def _good() -> list[Made]:
    """A few honest pictures."""
    noise = np.random.default_rng(0).integers(60, 200, (96, 128, 3), dtype=np.uint8)
    found = [(_saved(Image.fromarray(noise), format), kind) for format, kind in _TYPES.items()]
    for drawn in ("referred", "below", "unfamiliar"):
        found += [(picture_bytes(drawn, format), kind) for format, kind in _TYPES.items()]  # type: ignore[arg-type]
    return found


def _one(random_: random.Random, *types: str) -> Made:
    return random_.choice([one for one in _good() if not types or one[1] in types])


def _image(random_: random.Random) -> Image.Image:
    return Image.open(io.BytesIO(_one(random_)[0])).convert("RGB")


def _saved(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def _truncated(random_: random.Random) -> Made:
    data, kind = _one(random_)
    return data[: random_.randrange(len(data))], kind


def _cut_and_closed(random_: random.Random) -> Made:
    """A JPEG of which a part is missing, or zeros, before its end marker. Decoders fill it with grey."""
    data, kind = _one(random_, JPEG)
    start = data.index(b"\xff\xda")
    cut = random_.randrange(start + 14, start + (len(data) - start) * 9 // 10)
    return data[:cut] + bytes(random_.choice((0, len(data) - cut - 2))) + b"\xff\xd9", kind


def _flipped(random_: random.Random) -> Made:
    data, kind = _one(random_)
    spoilt = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 5, 50))):
        spoilt[random_.randrange(len(spoilt))] = random_.randrange(256)
    return bytes(spoilt), kind


def _head_flipped(random_: random.Random) -> Made:
    data, kind = _one(random_)
    spoilt = bytearray(data)
    for _ in range(random_.choice((1, 2, 8))):
        spoilt[random_.randrange(min(700, len(spoilt)))] ^= 1 << random_.randrange(8)
    return bytes(spoilt), kind


def _shuffled(random_: random.Random) -> Made:
    data, kind = _one(random_)
    first, second = sorted(random_.randrange(len(data)) for _ in range(2))
    piece = data[first:second]
    middle = random_.choice((b"", piece * 2, piece[::-1], bytes(len(piece)), random_.randbytes(len(piece))))
    return data[:first] + middle + data[second:], kind


def _polyglot(random_: random.Random) -> Made:
    data, kind = _one(random_)
    other = random_.choice(
        (
            b"<html><script>alert(1)</script></html>",
            b"PK\x03\x04" + bytes(200),
            b"%PDF-1.7\n%%EOF",
            b"MZ" + bytes(126) + b"PE\0\0",
            _one(random_)[0],
            b"GIF89a/*" + bytes(40),
        )
    )
    return (data + other, kind) if random_.random() < 0.5 else (other + data, kind)


def _modes(random_: random.Random) -> Made:
    image = _image(random_)
    mode = random_.choice(("1", "L", "P", "RGBA", "LA", "PA", "I;16", "CMYK", "YCbCr-L"))
    if mode == "CMYK":
        return _saved(image.convert("CMYK"), "JPEG"), JPEG
    if mode == "YCbCr-L":
        return _saved(image.convert("L"), random_.choice(("JPEG", "WEBP"))), JPEG
    if mode == "I;16":
        levels = np.asarray(image.convert("L")).astype(np.uint16) * random_.choice((1, 257))
        return _saved(Image.fromarray(levels), "PNG"), PNG
    if mode == "PA":
        return _saved(image.quantize(16), "PNG", transparency=3), PNG
    return _saved(image.convert(mode), "PNG"), PNG


def _animated(random_: random.Random) -> Made:
    frames = [_image(random_).resize((64, 48)) for _ in range(random_.choice((2, 3, 9)))]
    format = random_.choice(("GIF", "PNG", "WEBP"))
    return _saved(frames[0], format, save_all=True, append_images=frames[1:], duration=40), _TYPES.get(
        format, "image/jpeg"
    )


def _other_format(random_: random.Random) -> Made:
    image = _image(random_)
    format = random_.choice(("GIF", "BMP", "TIFF", "ICO", "PPM", "TGA", "PCX", "JPEG2000", "AVIF", "DDS"))
    return _saved(image, format), random_.choice(tuple(_TYPES.values()))


def _no_picture(random_: random.Random) -> Made:
    found = random_.choice(
        (
            b"",
            b"\0" * random_.choice((1, 64, 4096)),
            random_.randbytes(random_.choice((1, 3, 100, 5000))),
            b"\xff\xd8\xff",
            b"\xff\xd8\xff\xd9",
            b"\x89PNG\r\n\x1a\n",
            b"RIFF\x24\0\0\0WEBPVP8 ",
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + random_.randbytes(500),
            b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B" + random_.randbytes(500),
            b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1/"/></svg>',
            b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aa">]><svg>&a;</svg>',
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            bytes(128) + b"DICM" + random_.randbytes(300),
            bytes(128) + b"DICM\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0" + random_.randbytes(200),
        )
    )
    return found, random_.choice(tuple(_TYPES.values()))


def _chunk(name: bytes, body: bytes, *, right: bool = True) -> bytes:
    checksum = zlib.crc32(name + body) ^ (0 if right else 1)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)


_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@cache
def _swelling() -> bytes:
    """Twenty kilobytes that become twenty megabytes."""
    return zlib.compress(bytes(20_000_000), 9)


@cache
def _rows(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def _png_made(random_: random.Random) -> Made:
    """A PNG from its chunks up: sizes that are lies, checksums that are wrong, text that swells."""
    width, height = random_.choice(
        (
            (10, 10),
            (1, 1),
            (0, 5),
            (2**31 - 1, 1),
            (65_535, 65_535),
            (10_000, 10_000),
            (7000, 7200),
            (300, 200),
        )
    )
    depth, colour = random_.choice(((8, 2), (8, 2), (16, 2), (16, 6), (1, 0), (4, 3), (3, 2), (8, 7)))
    header = _chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, random_.choice((0, 0, 1, 9)))
    )
    rows = _rows(min(200_000, (width * 3 + 1) * height))
    extra = random_.choice(
        (
            b"",
            _chunk(b"tEXt", b"Comment\0" + b"x" * 5000) * random_.choice((1, 40)),
            _chunk(b"zTXt", b"Comment\0\0" + _swelling()),
            _chunk(b"iCCP", b"p\0\0" + _swelling()),
            _chunk(b"iCCP", b"p\0\0" + random_.randbytes(300)),
            _chunk(b"eXIf", random_.randbytes(200)),
            _chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)),
            _chunk(b"PLTE", random_.randbytes(3 * random_.choice((1, 16, 257)))),
            _chunk(b"\xff\xff\xff\xff", b"?"),
        )
    )
    data = _chunk(b"IDAT", rows, right=random_.random() < 0.8)
    return _SIGNATURE + header + extra + data + _chunk(b"IEND", b""), PNG


def _bomb(random_: random.Random) -> Made:
    """A few kilobytes that are many megapixels, within the limit and beyond it."""
    side = random_.choice((2000, 3000, 7000, 7300, 16_000))
    format = random_.choice(("PNG", "JPEG", "WEBP")) if side < 4000 else "PNG"
    return _flat(side, format), _TYPES[format]


@cache
def _flat(side: int, format: str) -> bytes:
    if side < 10_000:
        return _saved(Image.new("RGB", (side, side), "rgb(205, 185, 175)"), format)
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    return _SIGNATURE + header + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _jpeg_made(random_: random.Random) -> Made:
    """A JPEG with its segments altered: sizes, Huffman tables, scans without end, restart marks."""
    data = bytearray(_saved(_image(random_), "JPEG", progressive=random_.random() < 0.5, quality=80))
    how = random_.choice(
        ("size", "huffman", "scans", "quantization", "components", "restart", "comment", "length")
    )
    start = _segment(data, {"huffman": 0xC4, "quantization": 0xDB}.get(how, 0))
    if how == "size":
        place = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        size = random_.choice(((0, 10), (65_535, 65_535), (8000, 8000), (1, 65_535)))
        data[place + 5 : place + 9] = struct.pack(">HH", *size)
    elif how == "scans":
        scan = data.rfind(b"\xff\xda")
        data = data[:-2] + data[scan:-2] * random_.choice((3, 60, 600)) + b"\xff\xd9"
    elif how == "components":
        place = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        data[place + 9] = random_.choice((0, 1, 2, 4, 255))
    elif how == "restart":
        place = random_.randrange(len(data) // 2, len(data))
        data[place:place] = bytes((0xFF, random_.choice((0xD0, 0xD7, 0xD9, 0xDC, 0x01))))
    elif how == "comment":
        data[2:2] = (b"\xff\xfe" + struct.pack(">H", 60_000) + b"c" * 59_998) * random_.choice((1, 30))
    elif how == "length":
        data[4:6] = struct.pack(">H", random_.choice((0, 1, 2, 65_535)))
    else:
        for _ in range(3):
            data[start + 4 + random_.randrange(20)] = random_.randrange(256)
    return bytes(data), JPEG


def _segment(data: bytearray, marker: int) -> int:
    return max(0, data.find(bytes((0xFF, marker))))


def _marked(random_: random.Random) -> Made:
    """Orientation, positions and colour profiles, whole and broken."""
    image = _image(random_)
    exif = Image.Exif()
    exif[0x0112] = random_.choice((*range(1, 9), 0, 9, 255, 65_535))
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 13.0)})
    marks = exif.tobytes()
    if random_.random() < 0.3:
        marks = marks[: random_.randrange(6, len(marks))] + random_.randbytes(20)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = random_.choice((None, srgb, srgb[:200], b"\xff\xff\xff\xff" + srgb[4:], random_.randbytes(400)))
    format = random_.choice(("JPEG", "PNG", "WEBP"))
    return _saved(image, format, exif=marks, icc_profile=profile), _TYPES[format]


def _typed_wrongly(random_: random.Random) -> Hostile:
    data, _ = _one(random_)
    named = random_.choice(
        (
            "text/plain",
            "",
            "image/jpeg; charset=x" * 20,
            "IMAGE/JPEG",
            "image/gif",
            "application/json",
            "a/b;;;=",
        )
    )
    return Hostile("", data, {"Content-Type": named}, data)


def _form(random_: random.Random) -> Hostile:
    """Forms that are cut off, nested, mislabelled, or hold what nobody asked for."""
    data, _ = _one(random_)
    head = b'--b0\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    part, end = head + data + b"\r\n", b"--b0--\r\n"
    history = b'--b0\r\nContent-Disposition: form-data; name="history"\r\n\r\n'
    bodies = (
        part,
        part + b"--b0-",
        part + end[:-2],
        b"\r\n\r\n" + part + end,
        end,
        b"",
        part * 16 + end,
        part * 17 + end,
        part + history + b'{"sex": "female"}\r\n' + end,
        part + history + b'{"sex": "female"}\r\n' + history + b"{}\r\n" + end,
        part + history + b"\xff\xfe\r\n" + end,
        part + history + b"[" * 9000 + b"\r\n" + end,
        part + history + b'{"age_years": 1e999}\r\n' + end,
        part.replace(b'name="image"', b'name="Image"') + end,
        part.replace(b'name="image"', b"name=image") + end,
        part.replace(b'name="image"', b'name="image\\"; name="history"') + end,
        part.replace(b"filename", b"filename*=UTF-8''%00%ff; x=\"" + b"y" * 3000 + b'"; filename') + end,
        part.replace(b"\r\n\r\n", b"\r\n" + b"X: y\r\n" * 300 + b"\r\n", 1) + end,
        part.replace(b"\r\n", b"\n") + end,
        b"--b0\r\n\r\n" + data + b"\r\n" + end,
        part + end + part + end,
    )
    boundary = random_.choice(
        ("; boundary=b0",) * 8
        + ("", "; boundary=", "; boundary=b1", '; boundary="b0', "; boundary=" + "b" * 300)
    )
    body = random_.choice(bodies)
    return Hostile("", body, {"Content-Type": f"multipart/form-data{boundary}"})


def _json(random_: random.Random) -> Hostile:
    data, _ = _one(random_)
    text = base64.b64encode(data).decode()
    bodies: tuple[object, ...] = (
        {"images": [text[:-3]]},
        {"images": [text.replace("A", "\n", 1)]},
        {"images": [text, None]},
        {"images": text},
        {"images": [text] * 17},
        {"images": []},
        {"images": [text], "history": {"sex": "x" * 90}},
        {"images": [text], "History": {}},
        {"images": [["x"]]},
        [text],
    )
    body = json.dumps(random_.choice(bodies)).encode()
    if random_.random() < 0.3:
        body = random_.choice(
            (
                body[:-5],
                b"\xef\xbb\xbf" + body,
                b"[" * 20_000,
                b'{"images":NaN}',
                b"{" * 9,
                body + b"}",
                body.decode().encode("utf-16"),
            )
        )
    return Hostile("", body, {"Content-Type": "application/json"})


def _honest(random_: random.Random) -> Made:
    """So that an honest case among them is answered all the while."""
    return _one(random_)


_KINDS: dict[str, tuple[float, Callable[[random.Random], Made | Hostile]]] = {
    "honest": (6, _honest),
    "truncated": (10, _truncated),
    CUT_AND_CLOSED: (4, _cut_and_closed),
    "bytes changed": (16, _flipped),
    "head changed": (12, _head_flipped),
    "pieces moved": (8, _shuffled),
    "two files in one": (6, _polyglot),
    "colour modes": (6, _modes),
    "animated": (3, _animated),
    "another format": (4, _other_format),
    "no picture": (8, _no_picture),
    "PNG from chunks": (5, _png_made),
    "bomb": (0.15, _bomb),
    "JPEG segments": (8, _jpeg_made),
    "EXIF and profiles": (6, _marked),
    "another type": (3, _typed_wrongly),
    "forms": (4, _form),
    "JSON": (4, _json),
}
