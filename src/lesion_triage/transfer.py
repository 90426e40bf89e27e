"""``lesion-triage transfer``: a sealed bundle on another dataset, scored as the server scores.

Imports the pipeline, the run's folder, ``data`` and ``evaluate``.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from lesion_triage import config_file, pipeline
from lesion_triage.bundle import fingerprints
from lesion_triage.bundle.document import canonical_json, sha256_of
from lesion_triage.bundle.files import write_atomically
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import Bundle, open_bundle
from lesion_triage.console import echo, progress_bar
from lesion_triage.data import manifest
from lesion_triage.data.grouping import connected_groups
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.predict import predict
from lesion_triage.data.records import Record, unit_of_analysis
from lesion_triage.errors import BundleError, PredictionsError
from lesion_triage.evaluate.decided_cases import EXTERNAL
from lesion_triage.evaluate.transfer import Excluded, Transfer, markdown, measure_transfer
from lesion_triage.predictions import Predictions
from lesion_triage.runs import FROZEN_CONFIG, RUNS, Run, record_test_opening


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("bundle", type=Path, help="folder of a sealed bundle")
    parser.add_argument("config", type=Path, help="YAML file that names the other dataset")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder of that dataset")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="override one key of the configuration; may be given again",
    )
    parser.add_argument(
        "--split",
        choices=("all", "test"),
        default="all",
        help="all labelled pictures of the dataset, or its test split by this configuration (%(default)s)",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=RUNS,
        metavar="DIR",
        help="folder of all runs, where the dataset's manifest is kept (%(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="write results.json and transfer.md there"
    )


def main(arguments: argparse.Namespace) -> int:
    """Measure, print, and write the two files."""
    pipeline.make_output_folder(arguments.out)
    bundle = open_bundle(arguments.bundle)
    Scorer(bundle).self_test()
    loaded = config_file.load(arguments.config, arguments.overrides, arguments.data_root)
    verbs = ("manifest", "split") if arguments.split == "test" else ("manifest",)
    for verb in verbs:
        run = pipeline.run_verb(verb, loaded, arguments.runs)
    dataset, digest = manifest.read(run.folder)
    if digest == bundle.certificate.manifest_sha256:
        raise BundleError(
            f"{arguments.bundle}: was made from these pictures; `lesion-triage evaluate` measures it on "
            "its own test split."
        )
    requested = pipeline.records(run, "test") if arguments.split == "test" else dataset.records
    _note_opening(bundle)
    table, excluded = _score(bundle, dataset, digest, requested, run)
    measured = {row.image_id for row in table.rows}
    found = measure_transfer(
        table,
        bundle,
        loaded.evaluate,
        unit=unit_of_analysis(record for record in requested if record.image_id in measured),
        excluded=excluded,
        synthetic=dataset.synthetic,
    )
    text = markdown(
        found, f"{dataset.source}, {'its test split' if arguments.split == 'test' else 'all pictures'}"
    )
    echo(text)
    _write_results(arguments.out, found, text, dataset)
    return 0


def _score(
    bundle: Bundle, dataset: Manifest, digest: str, requested: Sequence[Record], run: Run
) -> tuple[Predictions, Excluded]:
    """The bundle's logits on labelled pictures that are new to it, and how many were left out."""
    labelled = [record for record in requested if record.needs_in_person is not None]
    seen = {*bundle.used_pictures.fitted.splitlines(), *bundle.used_pictures.certified.splitlines()}
    used = {
        record.image_id for record in dataset.records if fingerprints.file_fingerprint(record.sha256) in seen
    }
    new = _unrelated_records(used, labelled, dataset.records)
    with progress_bar("scoring photographs") as tick:
        table = predict(
            bundle.graph,
            bundle.header.pixels,
            bundle.policy.quality,
            new,
            pipeline.data_root(run),
            split=EXTERNAL,
            manifest_sha256=digest,
            splits_sha256="",
            progress=tick,
        )
    # A file that was rewritten, such as without its metadata, still has the same pixels.
    used |= {row.image_id for row in table.rows if row.pixel_fingerprint in seen}
    kept = {record.image_id for record in _unrelated_records(used, new, dataset.records)}
    if not kept:
        why = f"none of {len(labelled)} labelled pictures is new to this bundle"
        raise PredictionsError(
            f"{dataset.source}: {why if labelled else 'no picture has a label'}, so nothing can be measured."
        )
    rows = tuple(row for row in table.rows if row.image_id in kept)
    out = [record.image_id for record in labelled if record.image_id not in kept]
    excluded = Excluded(
        used=len(used.intersection(out)),
        related=len(out) - len(used.intersection(out)),
        unlabelled=len(requested) - len(labelled),
    )
    which = sha256_of(canonical_json(sorted(kept)).encode())
    return replace(table, rows=rows, splits_sha256=which), excluded


def _unrelated_records(
    used: Collection[str], requested: Sequence[Record], everything: Sequence[Record]
) -> list[Record]:
    """The requested pictures that share no patient, lesion, file or duplicate group with a used one."""
    touched = {
        record.image_id
        for group in connected_groups(everything)
        if any(record.image_id in used for record in group)
        for record in group
    }
    return [record for record in requested if record.image_id not in touched]


def _note_opening(bundle: Bundle) -> None:
    """If the bundle lies in a run's folder, add this use of it to the run's record of openings."""
    folder = bundle.folder.resolve().parent
    if (folder / FROZEN_CONFIG).is_file():
        record_test_opening(folder, bundle.sha256, "transfer")


def _write_results(out: Path, found: Transfer, text: str, dataset: Manifest) -> None:
    cited = "\n".join(f"- {line}" for line in dataset.citation)
    write_atomically(out / "transfer.md", f"{text}\n\nPictures:\n\n{cited}\n".encode())
    write_atomically(out / "results.json", found.to_json().encode())
