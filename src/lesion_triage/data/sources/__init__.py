"""One reader for each ``data.source`` of the configuration. Imports config and records, labels, synthetic.

A reader lists what a dataset's own table says. Whether the files exist and are intact is checked by the
manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from lesion_triage.config import Data, Roots
from lesion_triage.console import ProgressCallback
from lesion_triage.data import synthetic
from lesion_triage.data.records import SYNTHETIC, Listing
from lesion_triage.data.sources import (
    bcn20000,
    ddi,
    derm7pt,
    dermamnist,
    fitzpatrick17k,
    folder,
    ham10000,
    isic_2018,
    isic_2019,
    isic_2020,
    isic_2024,
    milk10k,
    mixture,
    pad_ufes_20,
    ph2,
    scin,
)
from lesion_triage.errors import ManifestError

READERS: Mapping[str, Callable[[Path], Listing]] = MappingProxyType(
    {
        "ham10000": ham10000.read,
        "isic_2018": isic_2018.read,
        "isic_2019": isic_2019.read,
        "isic_2020": isic_2020.read,
        "isic_2024": isic_2024.read,
        "bcn20000": bcn20000.read,
        "pad_ufes_20": pad_ufes_20.read,
        "milk10k": milk10k.read,
        "derm7pt": derm7pt.read,
        "ph2": ph2.read,
        "fitzpatrick17k": fitzpatrick17k.read,
        "ddi": ddi.read,
        "scin": scin.read,
        "dermamnist": dermamnist.read,
    }
)
"""Readers of public datasets, by the value of ``data.source``."""


def folders(config: Data, root: Roots) -> Roots:
    """The folders of the pictures, checked to exist.

    Args:
        config: which datasets.
        root: the folder of the dataset. For a mixture: the folder of each part by its name, or one folder, in
            which a part without a root of its own has a sub-folder of its name.

    Raises:
        ManifestError: a folder is missing.
    """
    if config.source == SYNTHETIC:
        return root
    if config.source == "mixture" and isinstance(root, Path):
        root = {part.label: part.root or root / part.label for part in config.mixture}
    for place in [root] if isinstance(root, Path) else root.values():
        if not place.is_dir():
            raise ManifestError(f"{place}: expected the folder of the dataset; give it with --data-root.")
    return root


def read(root: Roots, config: Data, progress: ProgressCallback | None = None) -> Listing:
    """List the records of the configured source, or of every part of the mixture.

    Raises:
        DataError: a table cannot be read, or a code is not in the label table.
    """
    if config.source == "mixture":
        assert not isinstance(root, Path)
        return mixture.merge_listings(
            (part, _dataset(part.source, root[part.label], part.table)) for part in config.mixture
        )
    assert isinstance(root, Path)
    if config.source == SYNTHETIC:
        wanted = config.synthetic
        # A complete drawing with the same parameters is left as it is.
        synthetic.draw(wanted.lesions, wanted.positive_share, wanted.seed, root, progress)
        return folder.read(root, synthetic.TABLE)
    return _dataset(config.source, root, config.table)


def _dataset(source: str, root: Path, table: str) -> Listing:
    return folder.read(root, table) if source == "folder" else READERS[source](root)
