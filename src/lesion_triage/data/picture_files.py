"""Where a picture's bytes are: a file, an entry of an HDF5 file, or an index into an npz array.

Imports config and the exception tree; h5py only when an HDF5 file is opened.
"""

from __future__ import annotations

import io
import os
import struct
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion_triage.config import Roots
from lesion_triage.errors import DataError

T = TypeVar("T")

HDF5 = (".hdf5", ".h5")
NPZ = (".npz",)
_NPZ_ERRORS = (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile raise for one that was cut short or altered, beside OSError."""

_CACHE_SIZE = 4
"""Open containers and unpacked arrays that a process caches; an array can be a gigabyte."""
_cache: OrderedDict[tuple[object, ...], Any] = OrderedDict()
_lock = threading.Lock()


def read_bytes(roots: Roots, path: str) -> bytes:
    """The bytes of one picture as the pixel path takes them.

    A file is returned as it is. BMP files and arrays, which the pixel path does not read, become lossless
    PNG, with the same bytes on every machine.

    Args:
        roots: the folder that ``path`` is relative to; for a mixture the folder of each part by name.
        path: as in a record.

    Raises:
        DataError: the path leaves its root, or names no part of the mixture.
        OSError: there is no such file or entry, or it cannot be read.
    """
    file, inner = split_container_path(path)
    found = resolve_path(roots, file)
    if not inner:
        data = found.read_bytes()
        return _from_bmp(data) if found.suffix.lower() == ".bmp" else data
    if found.suffix.lower() in HDF5:
        return _from_hdf5(found, inner)
    return encode_png(_from_npz(found, inner))


def split_container_path(path: str) -> tuple[str, str]:
    """The file, and the location inside it; the latter is empty unless the file is a container."""
    file, _, inner = path.partition("#")
    if inner and file.lower().endswith((*HDF5, *NPZ)):
        return file, inner
    return path, ""


def resolve_path(roots: Roots, path: str) -> Path:
    """Location of the file of ``path``, checked to be below its root.

    Raises:
        DataError: it leaves its root, or names no part of the mixture.
    """
    relative = PurePosixPath(split_container_path(path)[0])
    if relative.is_absolute() or ".." in relative.parts:
        raise DataError("the path leaves the data root")
    if isinstance(roots, Path):
        return roots / relative
    part, *rest = relative.parts
    if part not in roots:
        raise DataError(f"the path names no part of the mixture; known: {', '.join(roots)}")
    return roots[part].joinpath(*rest)


def describe_roots(roots: Roots) -> str:
    """The folders, for use in a sentence."""
    return str(roots) if isinstance(roots, Path) else ", ".join(map(str, roots.values()))


def hdf5_keys(path: Path) -> frozenset[str]:
    """Names of the entries of an HDF5 file; their content is not read.

    Raises:
        OSError: not an HDF5 file.
    """
    with _open_hdf5(path) as file:
        return frozenset(file.keys())


def npz_shape(path: Path, array: str) -> tuple[int, ...]:
    """Shape of one array of an npz file, from its header alone.

    Raises:
        OSError: not an npz file, or no such array.
    """
    with _npz(path) as archive:
        try:
            return _shape_in_header(archive, array)
        except (KeyError, *_NPZ_ERRORS) as error:
            raise OSError(f"{path}: no readable array '{array}' ({error})") from None


def npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every array of an npz file by name, from the headers: the largest unpacks to gigabytes.

    Raises:
        OSError: not an npz file, or an array whose header cannot be read.
    """
    with _npz(path) as archive:
        try:
            return {array: _shape_in_header(archive, array) for array in archive.files}
        except (KeyError, *_NPZ_ERRORS) as error:
            raise OSError(f"{path}: an array that cannot be read ({error})") from None


def _shape_in_header(archive: Any, array: str) -> tuple[int, ...]:
    with archive.zip.open(f"{array}.npy") as stream:
        first = np.lib.format.read_magic(stream) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        return tuple(read(stream)[0])


def npz_array(path: Path, array: str) -> NDArray[Any]:
    """One array of an npz file, such as its labels.

    Raises:
        OSError: not an npz file, no such array, or one of Python objects.
    """
    with _npz(path) as archive:
        try:
            found: NDArray[Any] = archive[array]
        except (KeyError, *_NPZ_ERRORS) as error:
            raise OSError(f"{path}: no readable array '{array}' ({error})") from None
    return found


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A lossless, uncompressed PNG of (height, width, 3) uint8 RGB.

    Written by hand: a compressor's output depends on its version, and a picture's hash must not.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise OSError(f"expected a picture of shape (height, width, 3), uint8; found {pixels.shape}")
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)  # each row begins with filter type 0: none
    rows[:, 1:] = pixels.reshape(height, 3 * width)
    raw = rows.tobytes()
    blocks = [raw[start : start + 65535] for start in range(0, len(raw), 65535)]
    stored = b"".join(
        struct.pack("<BHH", number == len(blocks), len(block), len(block) ^ 0xFFFF) + block
        for number, block in enumerate(blocks, start=1)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(raw))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _from_bmp(data: bytes) -> bytes:
    try:
        with Image.open(io.BytesIO(data), formats=["BMP"]) as picture:
            return encode_png(np.asarray(picture.convert("RGB")))
    except (ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise OSError(f"not a readable BMP file ({error})") from None


def _from_hdf5(path: Path, name: str) -> bytes:
    try:
        value = _hdf5(path)[name][()]
    except (KeyError, TypeError):
        raise FileNotFoundError(f"{path}: no such picture in it") from None
    return bytes(value) if isinstance(value, bytes) else np.asarray(value).tobytes()


def _from_npz(path: Path, inner: str) -> NDArray[np.uint8]:
    array, _, number = inner.rpartition("/")
    pictures = _cached(path, array, lambda: npz_array(path, array))
    try:
        found: NDArray[np.uint8] = pictures[int(number)]
    except (ValueError, IndexError):
        raise FileNotFoundError(f"{path}: no such picture in it") from None
    return np.stack([found] * 3, axis=2) if found.ndim == 2 else found


def _hdf5(path: Path) -> Any:
    return _cached(path, "", lambda: _open_hdf5(path))


def _open_hdf5(path: Path) -> Any:
    import h5py  # noqa: PLC0415 - most datasets are files, and a certifying site has no h5py

    # Read-only, and locking fails on some network disks.
    return h5py.File(path, "r", locking=False)


@contextmanager
def _npz(path: Path) -> Iterator[Any]:
    with path.open("rb") as stream:
        try:
            archive = np.load(stream, allow_pickle=False)
        except _NPZ_ERRORS as error:  # numpy takes a non-archive for a pickle, which is refused
            raise OSError(f"{path}: not an npz file ({error})") from None
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise OSError(f"{path}: not an npz file")
        yield archive


def _cached(path: Path, inner: str, make: Callable[[], T]) -> T:
    """A cached open file, unless the file changed or the process forked, which HDF5 does not survive."""
    facts = path.stat()
    key = (os.getpid(), str(path), inner, facts.st_mtime_ns, facts.st_size)
    with _lock:
        if key not in _cache:
            _cache[key] = make()
            while len(_cache) > _CACHE_SIZE:
                _cache.popitem(last=False)
        _cache.move_to_end(key)
        kept: T = _cache[key]
        return kept


def _renew_lock() -> None:
    """A forked child must not wait for a thread that it does not have."""
    global _lock  # noqa: PLW0603 - the one thing in this module that a fork breaks
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
