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

_NO_PICTURES = (".csv", ".db", ".html", ".ini", ".json", ".log", ".md", ".pdf", ".txt", ".xml")
"""File extensions that are left out of a folder, and counted. Everything else is taken for a photograph, and
gives its case an error if it is not one: a missing photograph could only lower the urgency."""
LINK = "link to a folder"
_NAMES = 10_000
"""Names of a folder held as Python strings at once; the others are packed."""


def walk(folder: Path, below: str, left_out: Counter[str]) -> Iterator[str]:
    """Paths of pictures: those of a folder, then those of its sub-folders; hidden names are left out.

    Args:
        folder: where they are.
        below: prefix of their paths.
        left_out: counts, by extension, the files that are not photographs.

    Raises:
        BacklogError: a folder cannot be listed, or a name is not UTF-8.
    """
    files, folders = _names(folder, left_out)
    for name in _sorted(files):
        yield below + name
    for name in _sorted(folders):
        yield from walk(folder / name, f"{below}{name}/", left_out)


def _names(folder: Path, left_out: Counter[str]) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Names of pictures and of sub-folders, packed: about thirty bytes each for a million files."""
    packed: tuple[list[pa.Array], list[pa.Array]] = ([], [])
    loose: tuple[list[str], list[str]] = ([], [])

    def pack(least: int) -> None:
        for names, arrays in zip(loose, packed, strict=True):
            if len(names) > least:
                arrays.append(pa.array(names, pa.large_string()))
                names.clear()

    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    loose[1].append(entry.name)
                elif entry.is_symlink() and entry.is_dir():  # could form a cycle
                    left_out[LINK] += 1
                elif (ending := Path(entry.name).suffix.lower()) in _NO_PICTURES:
                    left_out[ending] += 1
                else:
                    loose[0].append(entry.name)
                pack(_NAMES)
        pack(0)
    except OSError as error:
        raise BacklogError(f"{folder}: cannot be listed ({error.strerror}).") from None
    except UnicodeEncodeError:
        raise BacklogError(f"{folder}: a name in it is not UTF-8; rename it.") from None
    files, folders = (pa.chunked_array(arrays, pa.large_string()) for arrays in packed)
    return files, folders


def _sorted(names: pa.ChunkedArray) -> Iterator[str]:
    ordered = names.take(pc.sort_indices(names))
    for chunk in ordered.chunks:
        for start in range(0, len(chunk), _NAMES):
            yield from chunk.slice(start, _NAMES).to_pylist()
