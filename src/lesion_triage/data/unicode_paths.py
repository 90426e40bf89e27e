"""A path as the disk spells it: one system stores é as one character, another as e plus an accent.

Imports nothing of ours.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from unicodedata import normalize


class UnicodePathResolver:
    """The names below a folder by their normal form; a folder is listed once, and only if needed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[Path, dict[str, list[str]]] = {}

    def resolve(self, path: str) -> str:
        """``path`` as spelt on the disk; unchanged if no name fits it, or several do.

        A name that is too long or a folder that cannot be listed fits nothing; opening it will report that.
        """
        try:
            return self.resolve_or_raise(path)
        except OSError:
            return path

    def resolve_or_raise(self, path: str) -> str:
        """The same, without catching errors.

        Raises:
            OSError: the disk, or this machine, refuses to look.
        """
        return path if path.isascii() or (self._root / path).exists() else self._match_normalized(path)

    def _match_normalized(self, path: str) -> str:
        found = PurePosixPath()
        for part in PurePosixPath(path).parts:
            fitting = self._names_in(self._root / found).get(normalize("NFC", part), [])
            if part not in fitting and len(fitting) != 1:
                return path
            found /= part if part in fitting else fitting[0]
        return found.as_posix()

    def _names_in(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._names:
            names: dict[str, list[str]] = {}
            for entry in folder.iterdir() if folder.is_dir() else ():
                names.setdefault(normalize("NFC", entry.name), []).append(entry.name)
            self._names[folder] = names
        return self._names[folder]
