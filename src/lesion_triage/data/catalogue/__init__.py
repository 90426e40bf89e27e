"""The datasets this project can read: what they are, how to get them, how to check a copy.

Imports bundle, console and the exception tree; no reader, and no training library.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from lesion_triage.data.catalogue.entry import Dataset, read_entry
from lesion_triage.errors import DataError, hint

_ENTRIES = Path(__file__).parent / "entries"


@cache
def datasets() -> tuple[Dataset, ...]:
    """Every entry, by name."""
    return tuple(read_entry(path) for path in sorted(_ENTRIES.glob("*.yaml")))


def dataset(name: str) -> Dataset:
    """The entry with that name; underscores may be left out, as in ``isic2019``.

    Raises:
        DataError: there is no such entry.
    """
    known = {entry.name: entry for entry in datasets()}
    for known_name, entry in known.items():
        if name.replace("_", "") == known_name.replace("_", ""):
            return entry
    raise DataError(f"no dataset '{name}' in the catalogue; {hint(name, known)}")
