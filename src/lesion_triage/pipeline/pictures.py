"""Where a run's pictures are, which they are, and which split each is in: the stages manifest and split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lesion_triage import runs
from lesion_triage.config import Config, Data, Part, Roots
from lesion_triage.config_file import DATA_ROOT_VARIABLE
from lesion_triage.console import echo, progress_bar
from lesion_triage.errors import RunError
from lesion_triage.runs import Run
from lesion_triage.tracking import Tracker

if TYPE_CHECKING:
    from lesion_triage.data.records import Record


def require_data(config: Config) -> None:
    """Raise RunError unless the dataset's folder is given and exists; synthetic data need none."""
    if config.data.source == "synthetic":
        return
    for name, root in config.data.folders.items():
        if root is None:
            which = f" of {name}" if config.data.mixture else ""
            raise RunError(
                f"the folder of the pictures{which} is not known; give --data-root DIR or set "
                f"{DATA_ROOT_VARIABLE}."
            )
        if not root.is_dir():
            raise RunError(
                f"{root}: no such folder; --data-root names the folder of the dataset, or of a mixture the "
                "folder in which each dataset has one of its name."
            )


def require_runs_outside_dataset(config: Config, root: Path) -> None:
    """Raise RunError if the runs would be in the dataset's folder, which each of them would then change.

    Args:
        config: the resolved configuration.
        root: folder of all runs.
    """
    for folder in config.data.folders.values():
        if folder is not None and root.resolve().is_relative_to(folder.resolve()):
            raise RunError(
                f"{root}: the runs would be in the folder of the pictures, {folder.resolve()}, and change "
                "it; move pictures and table to a folder of their own, or name one outside with --runs."
            )


def data_root(run: Run) -> Roots:
    """Folder of the dataset, or of each part of a mixture.

    Synthetic pictures are in the cache, which may be deleted at any time: once the run has a manifest of
    them, they are drawn again if they are not whole.
    """
    data = run.config.data
    if data.source == "synthetic":
        from lesion_triage.data import manifest, synthetic

        wanted = data.synthetic
        folder = run.cache / f"synthetic-{runs.inputs_sha256(synthetic=wanted.model_dump())[:16]}"
        if (run.folder / manifest.HEADER).is_file():
            synthetic.draw(wanted.lesions, wanted.positive_share, wanted.seed, folder)
        return folder
    folders = {name: folder for name, folder in data.folders.items() if folder is not None}
    assert len(folders) == len(data.folders)
    return folders if data.source == "mixture" else folders[data.source]


def dataset_folders(run: Run) -> Mapping[str, Path]:
    """The dataset folders by name; a single dataset has the name ''."""
    root = data_root(run)
    return {"": root} if isinstance(root, Path) else root


def records(run: Run, name: str) -> list[Record]:
    """Records of one split, in the order of its file."""
    from lesion_triage.data import manifest, split

    known, digest = manifest.read(run.folder)
    splits, _ = split.read(run.folder, digest)
    by_id = {record.image_id: record for record in known.records}
    return [by_id[image_id] for image_id in splits.image_ids(name)]


def table_sha256(run: Run, stage: str) -> str:
    """SHA-256 of the table written by 'manifest' or 'split', by which other files name it."""
    from lesion_triage.data import manifest, split

    digest = manifest.read(run.folder)[1]
    if stage == "manifest":
        return digest
    return split.read(run.folder, digest)[1]


def manifest_inputs(run: Run) -> object:
    """Everything that decides the manifest: dataset, files, limits on pixels, and the table's format."""
    from lesion_triage.data import manifest

    data = run.config.data
    seen = None
    if data.source != "synthetic":
        parts: Sequence[Data | Part] = data.mixture or (data,)
        folders = dataset_folders(run)
        seen = {
            name: (runs.tree_fingerprint(folder), _own_table_sha256(part, folder))
            for part, (name, folder) in zip(parts, folders.items(), strict=True)
        }
    limits = run.config.pixels.model_dump(exclude={"size_px"})
    return data.identity(), seen, limits, manifest.FORMAT


def _own_table_sha256(part: Data | Part, folder: Path) -> str:
    """Hash of the table of ``source: folder``; empty: it has none.

    People correct it by hand, it may be outside the folder, and a label may change while size and time stay.
    """
    table = folder / part.table
    return runs.file_sha256(table) if part.source == "folder" and table.is_file() else ""


def make_manifest(run: Run, tracker: Tracker) -> None:
    """Stage 'manifest'."""
    from lesion_triage.data import manifest

    drawn = run.config.data.source == "synthetic"
    with progress_bar("drawing synthetic lesions" if drawn else "reading pictures") as tick:
        made = manifest.build(run.config.data, data_root(run), tick, run.config.pixels)
    made.write(run.folder)
    for reason, names in made.dropped.items():
        echo(f"  dropped {len(names)}: {reason}")  # no names: what is printed ends in logs
    if made.dropped:
        echo(f"  the dropped pictures are listed in {run.folder / manifest.HEADER}")
    for remark, names in made.findings.items():
        echo(f"  kept {len(names)}: {remark}")
    photographs, cases, positives = _count(made.records)
    echo(f"  {photographs} photographs of {cases} cases, {positives} need in-person care")
    log_manifest(run, tracker)


def _count(photographs: Sequence[Record]) -> tuple[int, int, int]:
    """How many photographs, cases and positive cases."""
    cases = {record.case_id: bool(record.needs_in_person) for record in photographs}
    return len(photographs), len(cases), sum(cases.values())


def log_manifest(run: Run, tracker: Tracker) -> None:
    """The tracker keeps counts and hash."""
    from lesion_triage.data import manifest

    made, digest = manifest.read(run.folder)
    tracker.params({"manifest_sha256": digest})
    photographs, cases, _ = _count(made.records)
    tracker.metrics({"data.images": photographs, "data.cases": cases})


def make_split(run: Run, tracker: Tracker) -> None:
    """Stage 'split'."""
    from lesion_triage.data import manifest, split

    known, digest = manifest.read(run.folder)
    made = split.split(known, digest, run.config.split)
    split.check_disjoint(known, made)
    split.require_both_classes(known, made)
    made.write(run.folder)
    for name in split.SPLITS:
        photographs, cases, positives = _count(records(run, name))
        echo(f"  {name}: {photographs} photographs, {cases} cases, {positives} positive")
    if made.left_out:
        echo(f"  {made.left_out} photographs without a label are in no split")
    found = split.find_oversized_group(known, made)
    if found is not None:
        echo(
            f"  {found.cases} of {found.of} cases are in '{found.split}' as one group, which stays whole: "
            f"most of their pictures have one {found.kind}. So the splits do not have the shares that "
            "split.fractions asks for. If these are different people, correct the table, or look at the "
            "pairs in duplicates.csv."
        )
    log_split(run, tracker)


def log_split(run: Run, tracker: Tracker) -> None:
    """The tracker keeps counts and hash."""
    from lesion_triage.data import manifest, split

    source = manifest.read(run.folder)[0].source
    hashes = {"splits_sha256": table_sha256(run, "split"), "manifest_sha256": table_sha256(run, "manifest")}
    tracker.params({"splits_sha256": hashes["splits_sha256"]})
    for name in split.SPLITS:
        photographs, cases, positives = _count(records(run, name))
        tracker.metrics({f"data.{name}.cases": cases, f"data.{name}.positives": positives})
        counts = {"photographs": photographs, "cases": cases, "positives": positives}
        tracker.dataset(source, name, hashes, counts)
