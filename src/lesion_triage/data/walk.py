"""Every file below a folder, including behind linked folders: what readers find and a run's record tracks.

Imports the exception tree.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from lesion_triage.errors import DataError


class WalkedFolder(NamedTuple):
    """One folder and its files."""

    folder: str
    """Path to open it by."""
    prefix: str
    """What precedes its file names in a path relative to the root: nothing, or folders and a slash."""
    names: list[str]
    """Its files, sorted. A broken link counts as a file."""
    link_target: str | None = None
    """Set if this is a link. To a folder below the root: the prefix of that place, which lists its files. To
    a folder that contains the root: the way there, such as ``../..``; nothing lists its files."""


def _refuse(error: OSError) -> None:
    raise DataError(
        f"{error.filename}: this folder cannot be listed ({error.strerror}), so pictures may be missing; "
        "make it readable, or keep the dataset apart from it."
    )


def walk_folders(root: Path, on_error: Callable[[OSError], None] = _refuse) -> Iterator[WalkedFolder]:
    """All folders below ``root``, including itself, in an order independent of the file system.

    A folder of pictures is often a link to another disk, so links are followed. Each folder is visited once,
    preferably under its own name rather than that of a link, so a link to a folder above it causes no
    endless loop. A link to a folder that contains the root is not followed: what else is there, such as
    this project's own runs, is not part of the data.

    Args:
        root: an existing folder.
        on_error: called for each folder that cannot be listed, which is left out if this returns.

    Raises:
        DataError: a folder cannot be listed, unless ``on_error`` says otherwise.
    """
    here = Path(os.path.realpath(root))
    seen: dict[str, str] = {}
    links: list[tuple[str, str]] = []
    yield from _walk_without_links(os.fspath(root), "", seen, links, on_error)
    while links:
        folder, prefix = links.pop(0)
        real = os.path.realpath(folder)
        known = os.path.relpath(real, here) if Path(real) in here.parents else seen.get(real)
        if known is None:
            yield from _walk_without_links(folder, prefix, seen, links, on_error)
        else:
            yield WalkedFolder(folder, prefix, [], known)


def _walk_without_links(
    top: str,
    above: str,
    seen: dict[str, str],
    links: list[tuple[str, str]],
    on_error: Callable[[OSError], None],
) -> Iterator[WalkedFolder]:
    """The folders below ``top`` that are not links; links are collected for later."""
    for folder, subfolders, names in os.walk(top, onerror=on_error):
        here = os.path.relpath(folder, top).replace(os.sep, "/")
        prefix = above if here == "." else f"{above}{here}/"
        real = os.path.realpath(folder)
        if real in seen:  # an earlier link led to the root's own folder
            subfolders.clear()
            continue
        seen[real] = prefix
        # Where a disk is mounted, its own folder of recovered blocks, which its owner alone can list.
        subfolders[:] = sorted(name for name in subfolders if name != "lost+found")
        linked = ((Path(folder, name), f"{prefix}{name}/") for name in subfolders)
        links += [(os.fspath(path), below) for path, below in linked if path.is_symlink()]
        yield WalkedFolder(folder, prefix, sorted(names))
