"""One reader for each ``data.source`` of the configuration. Imports config and records, labels, synthetic.

A reader lists what a dataset's own table says; whether the files are there and whole is the manifest's
business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from lesion_triage.config import Data
from lesion_triage.data import synthetic
from lesion_triage.data.records import Listing
from lesion_triage.data.sources import folder, ham10000

Progress = Callable[[int, int], None]
"""Called with the number done and the total."""


def _ham10000(root: Path, config: Data, progress: Progress | None) -> Listing:
    return ham10000.read(root)


def _folder(root: Path, config: Data, progress: Progress | None) -> Listing:
    return folder.read(root, config.table)


def _synthetic(root: Path, config: Data, progress: Progress | None) -> Listing:
    """Draw first: a complete drawing with the same parameters is left as it is."""
    wanted = config.synthetic
    synthetic.draw(wanted.lesions, wanted.positive_share, wanted.seed, root, progress)
    return folder.read(root, synthetic.TABLE)


READERS: Mapping[str, Callable[[Path, Data, Progress | None], Listing]] = MappingProxyType(
    {"ham10000": _ham10000, "folder": _folder, "synthetic": _synthetic}
)
