"""Every file below a folder, also behind links to folders: what readers find and a run's record watches.

Imports nothing of ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """One folder."""

    folder: str
    """As it is opened."""
    prefix: str
    """What a path relative to the root has before its files' names: nothing, or folders and a slash."""
    names: list[str]
    """Its files, in order. A link that leads nowhere counts as one."""
    same_as: str | None = None
    """Prefix of the place that this link leads to, where that is below the root too; its files are there. Of
    a link to a folder around the root the way there, such as ``../..``; its files are nowhere."""


def places(root: Path) -> Iterator[Place]:
    """All folders below ``root``, itself among them, in an order that no file system decides.

    A folder of pictures is often a link to another disk, and is followed. Each folder is looked through
    once, under its own name before that of a link, so a link to a folder above it is no endless road. A link
    to a folder that the root lies in is not followed: what else is there, such as this project's own runs, is
    no part of the data.
    """
    here = Path(os.path.realpath(root))
    seen: dict[str, str] = {}
    links: list[tuple[str, str]] = []
    yield from _own(os.fspath(root), "", seen, links)
    while links:
        folder, prefix = links.pop(0)
        real = os.path.realpath(folder)
        known = os.path.relpath(real, here) if Path(real) in here.parents else seen.get(real)
        if known is None:
            yield from _own(folder, prefix, seen, links)
        else:
            yield Place(folder, prefix, [], known)


def _own(top: str, above: str, seen: dict[str, str], links: list[tuple[str, str]]) -> Iterator[Place]:
    """The folders below ``top`` that are no links; the links are put down for later."""
    for folder, subfolders, names in os.walk(top):
        here = os.path.relpath(folder, top).replace(os.sep, "/")
        prefix = above if here == "." else f"{above}{here}/"
        real = os.path.realpath(folder)
        if real in seen:  # a link above led to the folder of the root itself
            subfolders.clear()
            continue
        seen[real] = prefix
        subfolders.sort()
        linked = ((Path(folder, name), f"{prefix}{name}/") for name in subfolders)
        links += [(os.fspath(path), below) for path, below in linked if path.is_symlink()]
        yield Place(folder, prefix, sorted(names))
