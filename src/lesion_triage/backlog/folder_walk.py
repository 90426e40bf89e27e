"""Pictures in and below a folder, in byte order of their names, however many there are.

Imports pyarrow, which packs the names, and the exception tree.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lesion_triage.errors import BacklogError

_NON_PICTURE_SUFFIXES = (".csv", ".db", ".html", ".ini", ".json", ".log", ".md", ".pdf", ".txt", ".xml")
"""File extensions that are left out of a folder, and counted. Everything else is taken for a photograph, and
gives its case an error if it is not one: a missing photograph could only lower the urgency."""
_BATCH_NAMES = 10_000
"""Names of a folder held as Python strings at once; the others are packed."""


def walk(folder: Path, prefix: str, left_out: Counter[str]) -> Iterator[str]:
    """Paths of pictures: those of a folder, then those of its sub-folders; hidden names are left out.

    Args:
        folder: where they are.
        prefix: prefix of their paths.
        left_out: counts, by description, what is not a photograph, and folders that hold none.

    Raises:
        BacklogError: a folder cannot be listed, or a name is not UTF-8.
    """
    files, folders = _list_names(folder, left_out)
    if not files and not folders:  # of a case, its photographs may not have arrived
        left_out["folder without a photograph; if it is a case, it gets no row"] += 1
    for name in _sorted_names(files):
        yield prefix + name
    for name in _sorted_names(folders):
        yield from walk(folder / name, f"{prefix}{name}/", left_out)


def _list_names(folder: Path, left_out: Counter[str]) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Names of pictures and of sub-folders, packed: about thirty bytes each for a million files."""
    packed: tuple[list[pa.Array], list[pa.Array]] = ([], [])
    unpacked: tuple[list[str], list[str]] = ([], [])

    def pack(minimum: int) -> None:
        for names, arrays in zip(unpacked, packed, strict=True):
            if len(names) > minimum:
                arrays.append(pa.array(names, pa.large_string()))
                names.clear()

    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    unpacked[1].append(entry.name)
                elif entry.is_symlink() and entry.is_dir():  # could form a cycle
                    left_out["link to a folder, not followed"] += 1
                elif (suffix := Path(entry.name).suffix.lower()) in _NON_PICTURE_SUFFIXES:
                    left_out[f"{suffix}, not taken for a photograph"] += 1
                else:
                    unpacked[0].append(entry.name)
                pack(_BATCH_NAMES)
        pack(0)
    except OSError as error:
        raise BacklogError(f"{folder}: cannot be listed ({error.strerror}).") from None
    except UnicodeEncodeError:
        raise BacklogError(f"{folder}: a name in it is not UTF-8; rename it.") from None
    files, folders = (pa.chunked_array(arrays, pa.large_string()) for arrays in packed)
    return files, folders


def _sorted_names(names: pa.ChunkedArray) -> Iterator[str]:
    ordered = names.take(pc.sort_indices(names))
    for chunk in ordered.chunks:
        for start in range(0, len(chunk), _BATCH_NAMES):
            yield from chunk.slice(start, _BATCH_NAMES).to_pylist()
