"""Does a folder hold a dataset as published, and what is missing? Imports bundle, data's files and walk.

It uses the layout in the catalogue and no reader, so it also explains what is wrong with a copy that a reader
refuses. A partial copy of a dataset is incomplete, but not a format error.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TextIO
from unicodedata import normalize

from lesion_triage.bundle import pixels
from lesion_triage.bundle.parallel import available_cpus
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.console import ProgressCallback
from lesion_triage.data import picture_files
from lesion_triage.data.catalogue import datasets
from lesion_triage.data.catalogue.checksums import describe_mismatch, sha256_and_md5
from lesion_triage.data.catalogue.entry import Arrays, Dataset, Layout, Pictures, Table
from lesion_triage.data.catalogue.unpack import is_archive
from lesion_triage.data.walk import walk_folders
from lesion_triage.errors import DataError, ImageError

_ALWAYS_HASHED_BYTES = 64 << 20
_HDF5 = b"\x89HDF\r\n\x1a\n"
_BLOCK = 1024


class State(StrEnum):
    """State of one item, from good to bad."""

    OK = "ok"
    NOTE = "note"
    INCOMPLETE = "incomplete"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """One row of the report."""

    what: str
    expected: str
    found: str
    state: State
    advice: str = ""


@dataclass(frozen=True)
class CheckResult:
    """A folder that was checked."""

    entry: Dataset
    layout: Layout
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """0: complete. 1: readable but incomplete. 2: a reader would refuse it."""
        states = {finding.state for finding in self.findings}
        return 2 if State.BROKEN in states else 1 if State.INCOMPLETE in states else 0


def check(
    folder: Path,
    entry: Dataset | None = None,
    *,
    deep: bool = False,
    progress: ProgressCallback | None = None,
) -> CheckResult:
    """Compare a folder with the official layout of a dataset.

    Args:
        folder: the folder that ``--data-root`` would name.
        entry: the dataset; None: recognise it by its tables.
        deep: also open every picture and hash every large file.
        progress: called with pictures opened and pictures in all, if ``deep``.

    Raises:
        DataError: there is no such folder, one in it cannot be listed, or the dataset cannot be recognised.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder.")
    files = _FileIndex.scan(folder)
    entry = entry or _recognise_dataset(files)
    layout = max(entry.layouts, key=lambda one: _layout_score(files, one))
    findings = [
        *_check_layout_supported(entry, layout),
        *_check_tables(files, layout),
        *_check_pictures(files, entry, layout),
    ]
    if layout.arrays is not None:
        findings += _check_arrays(files, layout, layout.arrays)
    findings += _check_checksums(files, entry, deep)
    if deep and layout.pictures is not None:
        findings.append(_check_decoding(files, _picture_paths(files, layout.pictures), progress))
    return CheckResult(entry, layout, tuple(findings))


@dataclass(frozen=True)
class _FileIndex:
    """Every file below a folder, by its relative path."""

    folder: Path
    paths: tuple[PurePosixPath, ...]
    by_name: dict[str, list[PurePosixPath]]
    """Index for lookups: every table of every entry is looked up, too slow among 400,000 paths."""

    @classmethod
    def scan(cls, folder: Path) -> _FileIndex:
        found: list[PurePosixPath] = []
        by_name: dict[str, list[PurePosixPath]] = {}
        for walked in walk_folders(folder):
            here = PurePosixPath(walked.prefix)
            for name in walked.names:
                found.append(here / name)
                by_name.setdefault(name, []).append(found[-1])
        return cls(folder, tuple(found), by_name)

    def find(self, names: Sequence[str]) -> PurePosixPath | None:
        """The first name that exists, in any sub-folder; of several files the one nearest to the top."""
        for name in names:
            parts = PurePosixPath(name).parts
            if "*" in name:
                matching = [path for path in self.paths if path.match(name)]
            else:
                matching = [
                    path for path in self.by_name.get(parts[-1], ()) if path.parts[-len(parts) :] == parts
                ]
            if matching:
                return min(matching, key=lambda path: (len(path.parts), path))
        return None


def _layout_score(files: _FileIndex, layout: Layout) -> tuple[int, int]:
    """How well a layout fits: required parts present minus those absent, then all parts present."""
    parts = [(table.names, table.required) for table in layout.tables]
    parts += [(layout.arrays.names, True)] if layout.arrays is not None else []
    there = [(files.find(names) is not None, required) for names, required in parts]
    return (
        sum(1 if found else -1 for found, required in there if required),
        sum(found for found, _ in there),
    )


def _recognise_dataset(files: _FileIndex) -> Dataset:
    matching = [entry for entry in datasets() if any(_is_readable(files, layout) for layout in entry.layouts)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        names = ", ".join(entry.name for entry in matching)
        raise DataError(f"{files.folder}: could be {names}; say which with --as NAME.")
    raise DataError(
        f"{files.folder}: expected the tables of a known dataset, found none; name the dataset with --as "
        "NAME to list what is missing."
    )


def _is_readable(files: _FileIndex, layout: Layout) -> bool:
    """Whether every required part is present, with its columns."""
    for table in layout.tables:
        path = files.find(table.names)
        if path is None:
            if table.required:
                return False
        elif table.columns and not set(table.columns) <= set(_header(files.folder / path)):
            return False
    return layout.arrays is None or files.find(layout.arrays.names) is not None


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return next(csv.reader(stream, delimiter=_delimiter(stream)), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        for row in csv.DictReader(stream, delimiter=_delimiter(stream), strict=True):
            yield {name: value or "" for name, value in row.items() if name is not None}


def _delimiter(stream: TextIO) -> str:
    """Tab or comma, by the readers' rule."""
    tabs = "\t" in stream.readline()
    stream.seek(0)
    return "\t" if tabs else ","


def _check_layout_supported(entry: Dataset, layout: Layout) -> Iterator[Finding]:
    if not layout.read:
        taken = " or ".join(f"'{other.name}'" for other in entry.layouts if other.read)
        yield Finding("layout", taken, f"'{layout.name}', which no reader supports", State.BROKEN)


def _check_tables(files: _FileIndex, layout: Layout) -> Iterator[Finding]:
    for table in layout.tables:
        what = f"table {table.names[0]}"
        path = files.find(table.names)
        if path is None:
            state = State.BROKEN if table.required else State.NOTE
            yield Finding(what, " or ".join(table.names), "not there", state)
        elif table.columns:
            yield _check_table(files.folder / path, table, f"table {path}")
        else:
            yield Finding(f"table {path}", "there", "there", State.OK)


def _check_table(path: Path, table: Table, what: str) -> Finding:
    header = _header(path)
    lacking = [name for name in table.columns if name not in header]
    if lacking:
        found = f"no {', '.join(lacking)}" if header else "no header that can be read"
        return Finding(what, f"columns {', '.join(table.columns)}", found, State.BROKEN)
    try:
        rows = sum(1 for _ in _rows(path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return Finding(what, "a table", f"damaged ({error})", State.BROKEN)
    if table.rows is None or rows == table.rows:
        return Finding(what, _count_text(table.rows, "rows"), f"{rows:,} rows", State.OK)
    return Finding(
        what, f"{table.rows:,} rows", f"{rows:,} rows: {_difference(rows, table.rows)}", State.INCOMPLETE
    )


def _difference(found: int, expected: int) -> str:
    return (
        f"{expected - found:,} missing" if found < expected else f"{found - expected:,} more than published"
    )


def _count_text(number: int | None, what: str) -> str:
    return f"{number:,} {what}" if number is not None else f"{what}, number not published"


def _check_pictures(files: _FileIndex, entry: Dataset, layout: Layout) -> Iterator[Finding]:
    pictures = layout.pictures
    if pictures is None:
        return
    if pictures.pattern:
        found = len(_picture_paths(files, pictures))
        whole = layout.count is None or found >= layout.count
        missing = "" if whole else f": {_difference(found, layout.count or 0)}"
        expected = _count_text(layout.count, f"files {pictures.pattern}")
        yield Finding("pictures", expected, f"{found:,}{missing}", State.OK if whole else State.INCOMPLETE)
        return
    listed = list(_listed_pictures(files, layout))
    if not listed:
        return
    present = {_picture_key(path, pictures) for path in _picture_paths(files, pictures)}
    lacking = [
        names[0] for names in listed if not any(_picture_key(name, pictures) in present for name in names)
    ]
    found = len(listed) - len(lacking)
    if lacking:
        packed = [path.name for path in files.paths if is_archive(Path(path))]
        advice = f"unpack {', '.join(packed)}" if packed else f"get them: datasets show {entry.name}"
        text = f"{found:,}: {len(lacking):,} missing, such as {lacking[0]}"
        yield Finding("pictures named by the tables", f"{len(listed):,}", text, State.INCOMPLETE, advice)
    else:
        yield Finding("pictures named by the tables", f"{len(listed):,}", f"{found:,}", State.OK)
    extra = len(present - {_picture_key(name, pictures) for names in listed for name in names})
    if extra:
        yield Finding("other pictures", "0", f"{extra:,}, which no table names", State.NOTE)
    if layout.count is not None and len(listed) < layout.count:
        text = f"{len(listed):,}: {layout.count - len(listed):,} missing"
        yield Finding("the dataset as published", f"{layout.count:,} pictures", text, State.INCOMPLETE)


def _listed_pictures(files: _FileIndex, layout: Layout) -> Iterator[tuple[str, ...]]:
    """Every picture that the tables name, once, in order, with all its names (most have one)."""
    seen: set[str] = set()
    for table in layout.tables:
        path = files.find(table.names)
        columns = set(table.picture_columns)
        if path is None or not columns <= set(_header(files.folder / path)):
            continue
        try:
            for row in _rows(files.folder / path):
                names_in_row = [row[column] for column in table.picture_columns if row[column]]
                for names in (
                    [tuple(names_in_row)] if table.one_picture else [(name,) for name in names_in_row]
                ):
                    if names and names[0] not in seen:
                        seen.add(names[0])
                        yield names
        except (OSError, UnicodeDecodeError, csv.Error):
            continue


def _picture_key(name: str | PurePosixPath, pictures: Pictures) -> str:
    """What a picture is recognised by: its name without folder and extension, or else its path.

    Published tables give names with or without folder and extension.
    """
    if pictures.by_path:  # as the reader spells it; one disk spells é as one character, another as two
        return normalize("NFC", PurePosixPath(str(name).strip().replace("\\", "/")).as_posix())
    last = PurePosixPath(name).name
    stem, dot, ending = last.rpartition(".")
    return stem if dot and f".{ending}".lower() in _ENDINGS | set(pictures.endings) else last


_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def _picture_paths(files: _FileIndex, pictures: Pictures) -> list[PurePosixPath]:
    if pictures.pattern:
        return [path for path in files.paths if path.match(pictures.pattern)]
    return [path for path in files.paths if path.suffix.lower() in pictures.endings]


def _check_arrays(files: _FileIndex, layout: Layout, arrays: Arrays) -> Iterator[Finding]:
    path = files.find(arrays.names)
    if path is None:
        yield Finding("arrays", " or ".join(arrays.names), "not there", State.BROKEN)
    elif arrays.kind == "npz":
        yield from _check_npz(files.folder / path, arrays)
    else:
        yield _check_hdf5(files, path, layout)


def _check_npz(path: Path, arrays: Arrays) -> Iterator[Finding]:
    try:
        shapes = picture_files.npz_shapes(path)
    except OSError as error:
        yield Finding(path.name, "an npz file", f"cannot be read ({error})", State.BROKEN)
        return
    for name, expected in arrays.lengths.items():
        what = f"{path.name}: {name}"
        if name not in shapes:
            yield Finding(what, f"{expected:,}", "not there", State.BROKEN)
        else:
            found = shapes[name][0] if shapes[name] else 0
            text = f"{found:,}" + ("" if found == expected else f": {_difference(found, expected)}")
            yield Finding(what, f"{expected:,}", text, State.OK if found == expected else State.INCOMPLETE)


def _check_hdf5(files: _FileIndex, path: PurePosixPath, layout: Layout) -> Finding:
    full = files.folder / path
    with full.open("rb") as stream:
        signature = stream.read(len(_HDF5))
    if signature != _HDF5:
        return Finding(str(path), "an HDF5 file", "another kind of file", State.BROKEN)
    try:
        stored = picture_files.hdf5_keys(full)
    except ModuleNotFoundError:
        return Finding(str(path), "pictures by id", "not checked: h5py is not installed", State.NOTE)
    except (OSError, RuntimeError, KeyError) as error:  # h5py has no exception class of its own
        return Finding(str(path), "an HDF5 file", f"cannot be read ({error})", State.BROKEN)
    listed = list(_listed_pictures(files, layout))
    lacking = [names[0] for names in listed if not stored.intersection(names)]
    text = f"{len(listed) - len(lacking):,}"
    if lacking:
        text += f": {len(lacking):,} missing, such as {lacking[0]}"
    state = State.INCOMPLETE if lacking else State.OK
    return Finding(f"{path}: pictures named by the tables", f"{len(listed):,}", text, state)


def _check_checksums(files: _FileIndex, entry: Dataset, deep: bool) -> Iterator[Finding]:
    """Files with a published checksum.

    A mismatch means that an archive is incomplete. For other files it is only noted: partial copies differ.
    """
    for wanted in entry.files:
        path = files.find([wanted.name])
        if path is None or not (wanted.sha256 or wanted.md5):
            continue
        full = files.folder / path
        size = full.stat().st_size
        if size > _ALWAYS_HASHED_BYTES and not deep:
            yield Finding(str(path), wanted.checksum_from, "not hashed: give --deep", State.NOTE)
            continue
        wrong = describe_mismatch(wanted, size, *sha256_and_md5(full))
        kind = "SHA-256" if wanted.sha256 else "MD5"
        if not wrong:
            yield Finding(str(path), f"{kind} of {wanted.checksum_from}", "the same", State.OK)
        else:
            state = State.INCOMPLETE if is_archive(full) else State.NOTE
            yield Finding(str(path), f"{kind} of {wanted.checksum_from}", "another content", state)


def _check_decoding(
    files: _FileIndex, paths: Sequence[PurePosixPath], progress: ProgressCallback | None
) -> Finding:
    """Open every picture as ingest does; no other check finds a truncated file."""
    spec = PixelSpec(size_px=32)
    bad: list[str] = []
    with ThreadPoolExecutor(max_workers=min(8, available_cpus())) as pool:
        rest, done = iter(paths), 0
        while block := list(islice(rest, _BLOCK)):
            codes = pool.map(lambda path: _decode_error(files.folder / path, spec), block)
            for path, code in zip(block, codes, strict=True):
                bad += [f"{path} ({code})"] if code else []
                done += 1
                if progress is not None:
                    progress(done, len(paths))
    if bad:
        text = f"{len(bad):,} of {len(paths):,} cannot, such as {bad[0]}"
        return Finding("pictures that can be decoded", f"{len(paths):,}", text, State.INCOMPLETE)
    return Finding("pictures that can be decoded", f"{len(paths):,}", f"{len(paths):,}", State.OK)


def _decode_error(path: Path, spec: PixelSpec) -> str:
    try:
        pixels.decode(picture_files.read_bytes(path.parent, path.name), spec)
    except OSError:
        return "image_not_readable"
    except ImageError as error:
        return error.code
    return ""
