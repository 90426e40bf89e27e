"""Unpacking an archive that somebody else made, without trusting it. Imports the exception tree.

A member that would leave the folder, a link, a device and a decompression bomb are refused. The sizes stated
for members can be trusted: the standard library never extracts more, and a zip that lies fails its checksum.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from lesion_triage.console import ProgressCallback
from lesion_triage.errors import DownloadError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")

_MAX_MEMBERS = 2_000_000
_MAX_RATIO = 100
"""Pictures hardly compress and tables compress tenfold; a bomb compresses a thousandfold."""
_ALWAYS_ALLOWED_BYTES = 64 << 20
_CHUNK = 1 << 20
_ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    UnicodeDecodeError,
    NotImplementedError,
)
"""What the standard library raises for a damaged archive, beside OSError; of a name, its codec."""


@dataclass(frozen=True)
class _Member:
    name: str
    size_bytes: int
    open: Callable[[], IO[bytes]]


def is_archive(path: Path) -> bool:
    """Whether its name is that of an archive this module can unpack."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def unpack(archive: Path, folder: Path, progress: ProgressCallback | None = None) -> int:
    """Unpack below ``folder``, nested archives too. Members already there with the right size are kept.

    Returns:
        Number of files, including those that were already there.

    Raises:
        DownloadError: not an archive, damaged, or with content that an archive of pictures does not need.
            Nothing is ever written outside ``folder``.
    """
    # One budget for all: many small archives inside one would each be allowed as much as a whole dataset.
    budget = max(_ALWAYS_ALLOWED_BYTES, _MAX_RATIO * archive.stat().st_size)
    count, waiting = 0, [(archive, folder)]
    while waiting:
        written, used_bytes = _unpack_one(*waiting.pop(), budget, progress)
        budget, progress = budget - used_bytes, None
        inner = [path for path in written if is_archive(path)]
        count += len(written) - len(inner)
        waiting += [(path, path.with_suffix("")) for path in inner]
    return count


def _unpack_one(
    archive: Path, folder: Path, budget: int, progress: ProgressCallback | None
) -> tuple[list[Path], int]:
    """The files of one archive, written, and their bytes in all."""
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _members(archive) as members:
            _refuse_bomb(archive, members, budget, folder)
            paths = _strip_top_folder(
                [_safe_member_path(archive, member.name) for member in members], folder.name
            )
            for number, (member, path) in enumerate(zip(members, paths, strict=True), 1):
                target = folder / path
                _extract(archive, member, target, folder)
                written.append(target)
                if progress is not None:
                    progress(number, len(members))
    except _ARCHIVE_ERRORS as error:
        raise DownloadError(f"{archive}: cannot be unpacked ({error}); fetch it again.") from None
    except OSError as error:
        raise DownloadError(
            f"{archive}: cannot be unpacked to {folder} ({error.strerror or error})."
        ) from None
    return written, sum(member.size_bytes for member in members)


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    """The files of an archive, in order; anything that is not a plain file is refused."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as packed:
            yield [_zip_member(archive, packed, info) for info in packed.infolist() if not info.is_dir()]
    else:
        with tarfile.open(archive) as archive_file:
            yield [_tar_member(archive, archive_file, info) for info in archive_file if not info.isdir()]


def _zip_member(archive: Path, packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise DownloadError(
            f"{archive}: '{info.filename}' is a link or a device; the archive is not trusted."
        )
    if info.flag_bits & 0x1:
        raise DownloadError(f"{archive}: '{info.filename}' is encrypted; unpack it by hand.")
    return _Member(info.filename, info.file_size, lambda: packed.open(info))


def _tar_member(archive: Path, archive_file: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    if not info.isfile():
        raise DownloadError(f"{archive}: '{info.name}' is a link or a device; the archive is not trusted.")

    def opened() -> IO[bytes]:
        stream = archive_file.extractfile(info)
        assert stream is not None, "a plain file has content"
        return stream

    return _Member(info.name, info.size, opened)


def _safe_member_path(archive: Path, name: str) -> PurePosixPath:
    """The member's path, provided that it stays below the folder on any system."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[0]:
        raise DownloadError(f"{archive}: '{name}' would land outside its folder; the archive is not trusted.")
    return path


def _strip_top_folder(paths: list[PurePosixPath], name: str) -> list[PurePosixPath]:
    """The paths without a first folder that they all share and that only repeats the target's name."""
    if all(len(path.parts) > 1 and path.parts[0] == name for path in paths):
        return [path.relative_to(name) for path in paths]
    return paths


def _refuse_bomb(archive: Path, members: list[_Member], budget: int, folder: Path) -> None:
    total = sum(member.size_bytes for member in members)
    if len(members) > _MAX_MEMBERS or total > budget:
        raise DownloadError(
            f"{archive}: {len(members):,} files of {total:,} bytes out of {archive.stat().st_size:,} packed "
            "ones; that is no dataset, and it is not unpacked."
        )
    free = shutil.disk_usage(folder).free
    if total > free:
        raise DownloadError(
            f"{archive}: {total:,} bytes are needed to unpack it, the disk has {free:,} free. Make room."
        )


def _extract(archive: Path, member: _Member, target: Path, folder: Path) -> None:
    """Write one member under a temporary name, then rename."""
    if target.is_file() and target.stat().st_size == member.size_bytes:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # A link already in the folder could still lead out of it.
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise DownloadError(f"{archive}: '{member.name}' would land outside {folder} through a link there.")
    temporary = target.with_name(f"{target.name}.unpacking")
    try:
        with member.open() as source, temporary.open("wb") as stream:
            shutil.copyfileobj(source, stream, _CHUNK)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
