"""Splits published beside a result: hashes of image ids, so that anyone with the data can check their own.

Imports console, manifest, split and the exception tree.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from lesion_triage.bundle.document import canonical_json, sha256_of
from lesion_triage.bundle.files import write_atomically
from lesion_triage.console import echo
from lesion_triage.data import manifest as manifests
from lesion_triage.data import split as splitting
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.split import SPLITS, Splits
from lesion_triage.errors import SplitError

FORMAT = 1
DIGITS = 16
"""Of the SHA-256 of an image id: with 400,000 pictures, two agree by chance once in 200 million files."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb ``splits``."""
    parser.add_argument("run", type=Path, help="run folder in which `lesion-triage split` was done")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--publish", type=Path, metavar="FILE", help="write the splits as hashes of image ids")
    what.add_argument("--verify", type=Path, metavar="FILE", help="compare with splits that were published")


def main(arguments: argparse.Namespace) -> int:
    """Publish or verify; returns 0 if the splits are the published ones."""
    manifest, digest = manifests.read(arguments.run)
    splits, _ = splitting.read(arguments.run, digest)
    if arguments.publish:
        own = arguments.run / splitting.FILE
        if arguments.publish.exists() and arguments.publish.samefile(own):
            raise SplitError(f"{own}: the run's own file, which names pictures; publish under another name.")
        publish(manifest, splits, arguments.publish)
        echo(f"{arguments.publish}: {len(splits.assignment)} pictures, no name among them")
    else:
        echo(verify(splits, arguments.verify))
    return 0


def hash_image_id(image_id: str) -> str:
    """The hash that stands for a picture in a published file."""
    return hashlib.sha256(image_id.encode()).hexdigest()[:DIGITS]


def publish(manifest: Manifest, splits: Splits, path: Path) -> None:
    """Write each picture's split, without its name.

    A hash hides a name only from those who do not know it. The ids of a public archive can be tried one by
    one, and so can a clinic's if they are short numbers: publish only what may become known.

    Raises:
        SplitError: the file cannot be written.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "source": manifest.source,
        "citation": list(manifest.citation),
        "manifest_sha256": splits.manifest_sha256,
        "seed": splits.seed,
        "fractions": dict(splits.fractions),
        "left_out": splits.left_out,
        "hash": f"first {DIGITS} hexadecimal digits of the SHA-256 of the image id",
        "pictures": {name: sorted(map(hash_image_id, splits.image_ids(name))) for name in SPLITS},
    }
    content["seal"] = sha256_of(canonical_json(content).encode())
    try:
        write_atomically(path, canonical_json(content).encode())
    except OSError as error:
        raise SplitError(f"{path}: cannot be written ({error.strerror}); choose another file.") from None


def verify(splits: Splits, path: Path) -> str:
    """Compare splits with published ones; returns what agrees.

    Raises:
        SplitError: the file is not a published split, was altered, or differs; the sentence counts the
            pictures that are missing, additional or elsewhere.
    """
    content = _read(path)
    theirs = {name: split for split in SPLITS for name in content["pictures"][split]}
    ours = {hash_image_id(image_id): split for image_id, split in splits.assignment.items()}
    missing, added = theirs.keys() - ours.keys(), ours.keys() - theirs.keys()
    moved = Counter(
        f"{split} to {ours[name]}" for name, split in theirs.items() if ours.get(name, split) != split
    )
    if missing or added or moved:
        moves = f" ({', '.join(f'{count} {what}' for what, count in sorted(moved.items()))})" if moved else ""
        raise SplitError(
            f"{path}: not these splits: {len(missing)} of its {len(theirs)} pictures are not here, "
            f"{len(added)} here are not in it, {sum(moved.values())} are in another split{moves}; use the "
            f"same version of the data and of the code, split.seed {content['seed']} and its fractions."
        )
    counts = ", ".join(f"{len(content['pictures'][name])} {name}" for name in SPLITS)
    same_files = content["manifest_sha256"] == splits.manifest_sha256
    return f"{path}: the same splits ({counts}); " + (
        "manifest and files are the same too"
        if same_files
        else "the manifest differs, in files, labels or history"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        seal = content.pop("seal")
        content["pictures"]  # a run's own file has the same seal, but names pictures
        is_unaltered = seal == sha256_of(canonical_json(content).encode()) and content["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SplitError(f"{path}: no published file of splits ({error}).") from None
    if not is_unaltered:
        raise SplitError(f"{path}: altered since it was published, or of another format.")
    found: dict[str, Any] = content
    return found
