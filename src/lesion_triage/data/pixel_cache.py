"""Prepared pictures on disk, decoded once, so that later epochs and later runs decode no JPEG.

Imports numpy, the bundle's pixel path, config, console, manifest, records, synthetic and the exception tree.

One plain ``.npy`` file for each list of pictures, memory-mapped; docs/adr/0033 has the measurements. A file
gets its final name only when it is complete. Until then it is ``.npy.part`` beside ``.npy.blocks``, the
checksums of what was written: the next process keeps the intact blocks and decodes the rest.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle import pixels
from lesion_triage.bundle.parallel import available_cpus
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.config import Roots
from lesion_triage.console import ProgressCallback, echo
from lesion_triage.data import manifest as manifests
from lesion_triage.data.records import Record, place_of
from lesion_triage.data.synthetic import draw_picture
from lesion_triage.errors import DataError, ImageError

BLOCK = 256
"""Pictures per checksum: the most that is lost if the process is killed."""

_DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TURN_OFF_HINT = "or set train.pixel_cache to false, which decodes again in every epoch"


class Pixels(Protocol):
    """Pictures indexed like an array of shape (pictures, size_px, size_px, 3), uint8, RGB."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class UncachedPixels:
    """Decodes a picture on each access: no disk space, but the cost of decoding in every epoch."""

    records: Sequence[Record]
    root: Roots
    spec: PixelSpec

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> NDArray[np.uint8]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8]:
        if isinstance(index, slice):
            some = [_decode(self.root, record, self.spec) for record in self.records[index]]
            return (
                np.stack(some) if some else np.empty((0, self.spec.size_px, self.spec.size_px, 3), np.uint8)
            )
        return _decode(self.root, self.records[index], self.spec)


@dataclass(frozen=True)
class MappedPixels:
    """A complete file of the cache, memory-mapped; pickled as its path, so every process maps it itself."""

    path: Path
    array: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> NDArray[np.uint8]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8]:
        return self.array[index]

    def __reduce__(self) -> tuple[Any, ...]:
        return _map_again, (self.path, self.array.shape)


def _map_again(path: Path, shape: tuple[int, ...]) -> MappedPixels:
    found = _open_complete(path, shape)
    if found is None:
        raise DataError(
            f"{path}: not readable here; all machines of a training run need the folder of the first one."
        )
    return found


def load_pixels(
    records: Sequence[Record],
    root: Roots,
    spec: PixelSpec,
    cache: Path | None,
    progress: ProgressCallback | None = None,
) -> Pixels:
    """Pictures prepared by the bundle's pixel path, in the order of the records.

    Two processes that want the same pictures share one file: the second waits for the first.

    Args:
        records: of one manifest.
        root: of the dataset.
        spec: how the pictures are prepared.
        cache: folder; None: nothing is kept.
        progress: called with the number of pictures done and the total while the cache is filled.

    Raises:
        ManifestError: a picture changed since the manifest was made.
        DataError: a picture cannot be decoded, or the disk has no room.
    """
    if cache is None:
        return UncachedPixels(records, root, spec)
    path = cache / f"pixels-{cache_key(records, spec)[:32]}.npy"
    shape = (len(records), spec.size_px, spec.size_px, 3)
    ready = _open_complete(path, shape)
    if ready is not None:
        return ready
    part = path.with_name(f"{path.name}.part")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _exclusive_writer(part, path) as stream:
            if stream is not None:
                _write_remaining(stream, part, shape, records, root, spec, progress)
                part.replace(path)
                _checksum_path(path).unlink(missing_ok=True)
    except OSError as error:
        if (
            error.errno in _DISK_FULL_ERRNOS
        ):  # free what little there is: a full disk stops more than this run
            part.unlink(missing_ok=True)
            _checksum_path(path).unlink(missing_ok=True)
        raise DataError(
            f"{path}: the cache of prepared pictures takes {int(np.prod(shape)) / 1e9:.2f} GB and could not "
            f"be written ({error.strerror or error}); make room, {_TURN_OFF_HINT}."
        ) from None
    made = _open_complete(path, shape)
    if made is None:
        raise DataError(f"{path}: disappeared while it was being written; is something clearing the cache?")
    return made


def cache_key(records: Sequence[Record], spec: PixelSpec) -> str:
    """Hash of everything that decides the pixels: the files' hashes in order, the specification, the decoder.

    The decoder enters by its version and by its output for drawn pictures, so a change of the pixel path
    changes the key without anyone having to remember it.
    """
    key = hashlib.sha256(spec.to_json().encode())
    key.update(f"\n{pixels.decoder_versions()}\n".encode())
    for seed, (kind, quality) in enumerate((("JPEG", 60), ("PNG", 0), ("WEBP", 60))):
        buffer = io.BytesIO()
        large = draw_picture("irregular", seed).resize((900, 700))
        large.save(buffer, kind, **({"quality": quality} if quality else {"compress_level": 1}))
        key.update(pixels.decode(buffer.getvalue(), spec.model_copy(update=_NO_LIMITS)).pixels.tobytes())
    for record in records:
        key.update(record.sha256.encode())
    return key.hexdigest()


_NO_LIMITS = {"max_bytes": 10**9, "max_pixels": 10**9}


def _decode(root: Roots, record: Record, spec: PixelSpec) -> NDArray[np.uint8]:
    try:
        return pixels.decode(manifests.read_picture(root, record), spec).pixels
    except ImageError as error:
        raise DataError(f"{place_of(record)}: {error}") from None


def _open_complete(path: Path, shape: tuple[int, ...]) -> MappedPixels | None:
    """The complete file, or None if it is absent, truncated or of another shape."""
    try:
        array: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return MappedPixels(path, array) if array.shape == shape and array.dtype == np.uint8 else None


def _checksum_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.blocks")


@contextmanager
def _exclusive_writer(part: Path, path: Path) -> Iterator[BinaryIO | None]:
    """The unfinished file, locked against other writers; None if another process finished it.

    The lock ends with the process, however it ends.
    """
    while True:
        with part.open("a+b") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                echo("  another process is decoding the same pictures; waiting for it")
                fcntl.flock(stream, fcntl.LOCK_EX)
            try:
                ours = os.path.samestat(os.fstat(stream.fileno()), part.stat())
            except FileNotFoundError:
                ours = False
            if ours:
                yield stream
                return
        # While we waited, the file was finished, or abandoned and removed.
        if path.exists():
            yield None
            return


def _write_remaining(
    stream: BinaryIO,
    part: Path,
    shape: tuple[int, ...],
    records: Sequence[Record],
    root: Roots,
    spec: PixelSpec,
    progress: ProgressCallback | None,
) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    row_bytes = int(np.prod(shape[1:]))
    with _checksum_path(part.with_suffix("")).open("a+") as checksum_file:
        done = _keep_intact_blocks(stream, checksum_file, header.getvalue(), row_bytes, len(records))
        lacking = (len(records) - done) * row_bytes
        if shutil.disk_usage(part.parent).free < lacking:
            raise OSError(
                errno.ENOSPC, f"{lacking / 1e9:.2f} GB are still to be written, more than the disk has free"
            )
        with ThreadPoolExecutor(available_cpus()) as pool:
            while done < len(records):
                block = records[done : done + BLOCK]
                checksum = 0
                for picture in pool.map(lambda record: _decode(root, record, spec), block):
                    row = picture.tobytes()
                    stream.write(row)
                    checksum = zlib.crc32(row, checksum)
                    done += 1
                    if progress is not None:
                        progress(done, len(records))
                stream.flush()
                checksum_file.write(f"{checksum:08x}\n")
                checksum_file.flush()
    os.fsync(stream.fileno())


def _keep_intact_blocks(
    stream: BinaryIO, checksum_file: io.TextIOWrapper, header: bytes, row_bytes: int, count: int
) -> int:
    """How many pictures an earlier attempt left intact; whatever follows them is cut off."""
    stream.seek(0)
    checksum_file.seek(0)
    checksums = checksum_file.read().split("\n")[:-1]  # the last line may be incomplete
    done, good = 0, 0
    if stream.read(len(header)) == header:
        for checksum in checksums:
            rows = min(BLOCK, count - done)
            block = stream.read(rows * row_bytes)
            if not rows or len(block) < rows * row_bytes or f"{zlib.crc32(block):08x}" != checksum:
                break
            done, good = done + rows, good + 1
    checksum_file.truncate(good * len("01234567\n"))
    if done:
        stream.truncate(len(header) + done * row_bytes)
    else:
        stream.truncate(0)
        stream.write(header)
    return done
