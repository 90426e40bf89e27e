"""``lesion-triage reproduce``: repeat a recorded experiment and report, cell by cell, whether it agrees.

Imports config, tracking, console and this package; the steps are imported when they are run.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from lesion_triage.bundle.document import canonical_json
from lesion_triage.bundle.files import write_atomically
from lesion_triage.config import Config
from lesion_triage.console import echo
from lesion_triage.errors import RunError
from lesion_triage.reproduce import page, records
from lesion_triage.reproduce.cells import Cells, cells_of
from lesion_triage.reproduce.comparison import Row, compare, exit_status
from lesion_triage.reproduce.definition import Experiment, VersionName, load_experiment
from lesion_triage.reproduce.machine import describe_differences, machine_facts
from lesion_triage.reproduce.records import StepResult
from lesion_triage.reproduce.workspace import Workspace, find_datasets, missing_datasets
from lesion_triage.runs import RUNS
from lesion_triage.tracking import Tracker

_STATUS_TEXTS = {0: "all cells agree", 1: "some cells differ", 3: "some cells could not be compared"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.description = (
        "Repeat a recorded experiment and compare it cell by cell. Exit status: 0 all cells agree, 1 some "
        "differ, 3 none differs but some could not be compared, 2 it could not be run."
    )
    add = parser.add_argument
    add("experiment", type=Path, help="folder with experiment.yaml, such as experiments/ham10000-baseline")
    add("--quick", action="store_true", help="the small version; on drawn pictures if none are at hand")
    add(
        "--data-root",
        action="append",
        default=[],
        metavar="[NAME=]DIR",
        help="folder that holds a folder for each dataset, or one dataset's own; may be given again",
    )
    add("--runs", type=Path, default=RUNS, metavar="DIR", help="folder of all runs (%(default)s)")
    add(
        "--weights",
        type=Path,
        metavar="PATH",
        help="initial weights from this file instead of the model hub; or from a folder of files, each named "
        "BACKBONE.*safetensors",
    )
    add(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="override one key of every training run, such as --set train.precision=bf16-mixed",
    )
    add(
        "--other-data",
        action="store_true",
        help="continue even if pictures or splits are not the recorded ones",
    )
    add("--record", action="store_true", help="replace the record with the results")
    add("--no-tracking", action="store_true", help="do not write to MLflow")


def main(arguments: argparse.Namespace) -> int:
    """Repeat it, print and store the comparison. Returns the exit status that ``--help`` explains."""
    definition = load_experiment(arguments.experiment)
    version_name, data = _choose_version(definition, arguments)
    workspace = _make_workspace(arguments, definition, version_name, data)
    echo(f"{workspace.name}, {version_name}: {definition.asks}")
    echo(f"  {workspace.version.takes} {workspace.version.shows}")
    tracking_status = "FAILED"
    try:
        results = _run_steps(workspace)
        if workspace.recording:
            _record_results(workspace, definition, results)
        rows, text = _compare(workspace, definition, results)
        code = exit_status(rows)
        _write_reproduction(workspace, rows, text, code)
        _track_reproduction(workspace, rows, code)
        tracking_status = "FINISHED" if code != 1 else "FAILED"
    except KeyboardInterrupt:
        tracking_status = "KILLED"
        raise
    finally:
        workspace.tracker.finish(tracking_status)
    return code


def _make_workspace(
    arguments: argparse.Namespace, definition: Experiment, version: VersionName, data: dict[str, Path]
) -> Workspace:
    """Everything that the steps need, before any of them is run."""
    name = arguments.experiment.resolve().name
    folder = arguments.runs / f"{name}-{version}-reproduction"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be made ({error.strerror}); name another folder with --runs."
        ) from None
    return Workspace(
        experiment=arguments.experiment,
        name=name,
        version=definition.versions()[version],
        version_name=version,
        runs=arguments.runs,
        folder=folder,
        data=data,
        record=records.read(arguments.experiment, definition, version),
        tracker=_tracker(name, folder, enabled=not arguments.no_tracking),
        settings=tuple(arguments.overrides),
        weights=arguments.weights,
        other_data=arguments.other_data,
        recording=arguments.record,
        tracked=not arguments.no_tracking,
    )


def _choose_version(
    definition: Experiment, arguments: argparse.Namespace
) -> tuple[VersionName, dict[str, Path]]:
    """The version that can be run with the pictures at hand."""
    requested: VersionName = "quick" if arguments.quick else "full"
    datasets = find_datasets(definition, definition.versions()[requested], arguments.data_root)
    lacking = missing_datasets(definition, definition.versions()[requested], datasets)
    if not lacking:
        return requested, datasets
    if requested == "quick" and not arguments.data_root:
        names = ", ".join(one.name for one in lacking)
        echo(f"No --data-root, so no {names}: the quick version uses DRAWN pictures.")
        return "drawn", {}
    what = "; ".join(
        f"{one.name} ({one.what}"
        + (f"; `lesion-triage datasets show {one.catalogue}` says how to get it)" if one.catalogue else ")")
        for one in lacking
    )
    raise RunError(
        f"{arguments.experiment}: the {requested} version needs {what}; name the folder with --data-root DIR "
        f"or --data-root {lacking[0].name}=DIR, or try --quick without --data-root on drawn pictures."
    )


def _run_steps(workspace: Workspace) -> dict[str, StepResult]:
    """Run every step in order; returns the documents to compare."""
    from lesion_triage.reproduce import steps  # noqa: PLC0415 - torch, and the rest of the training environment

    results: dict[str, StepResult] = {}
    for step in workspace.version.steps:
        results |= steps.run_step(step, workspace)
    results = {name: results[name] for name in workspace.version.documents()}
    workspace.check_documents(results)
    return results


def _comparable_cells(workspace: Workspace, results: Mapping[str, StepResult]) -> Cells:
    facts: Cells = {
        f"{name}.{what}": value for name, one in results.items() for what, value in one.facts.items()
    }
    documents = {name: one.document for name, one in results.items()}
    return {**cells_of(documents, records.seeds_of(workspace.version)), **facts}


def _record_results(workspace: Workspace, definition: Experiment, results: Mapping[str, StepResult]) -> None:
    """Record the results, and read the record back."""
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    for path in records.write(
        workspace.experiment, workspace.version_name, results, machine_facts(), day, workspace.settings
    ):
        echo(f"  recorded {path}")
    workspace.obstacles.clear()
    workspace.record = records.read(workspace.experiment, definition, workspace.version_name)


def _compare(
    workspace: Workspace, definition: Experiment, results: Mapping[str, StepResult]
) -> tuple[list[Row], str]:
    this_machine = machine_facts()
    other_machine = describe_differences(workspace.record.machine, this_machine)
    if workspace.record.machine and workspace.record.settings != workspace.settings:
        recorded_options = " ".join(f"--set {one}" for one in workspace.record.settings) or "no --set"
        other_machine = f"{other_machine + ', ' if other_machine else ''}recorded with {recorded_options}"
    recorded = workspace.record.cells(workspace.version)
    rows = compare(
        workspace.version,
        recorded,
        _comparable_cells(workspace, results),
        obstacles=workspace.obstacles,
        other_machine=other_machine,
    )
    report_arguments = (
        workspace.name,
        workspace.version_name,
        definition,
        workspace.record,
        rows,
        this_machine,
        other_machine,
    )
    echo(page.report(*report_arguments, short=True))
    return rows, page.report(*report_arguments)


def _write_reproduction(workspace: Workspace, rows: Sequence[Row], text: str, code: int) -> None:
    """Write the record of this reproduction, for programs and for people."""
    document = {
        "format": 1,
        "experiment": workspace.name,
        "version": workspace.version_name,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": code,
        "machine": machine_facts(),
        "settings": list(workspace.settings),
        "runs": {name: run.folder.name for name, run in workspace.finished_runs.items()},
        "made_from": workspace.hashes,
        "rows": [{**asdict(row), "difference": row.difference} for row in rows],
    }
    write_atomically(workspace.folder / "reproduction.md", text.encode())
    write_atomically(workspace.folder / "reproduction.json", canonical_json(document).encode())
    echo(f"{workspace.folder / 'reproduction.md'}: {_STATUS_TEXTS[code]} (exit status {code})")


def _tracker(name: str, folder: Path, *, enabled: bool) -> Tracker:
    """The MLflow run under which the training runs are nested, named after the experiment."""
    content = {
        "name": "reproduction",
        "data": {"source": "synthetic"},
        "tracking": {"experiment": name, "enabled": enabled},
    }
    return Tracker(Config.model_validate(content), folder, echo)


def _track_reproduction(workspace: Workspace, rows: Sequence[Row], code: int) -> None:
    workspace.tracker.params({"version": workspace.version_name, "experiment": workspace.name})
    workspace.tracker.tags({"reproduction": _STATUS_TEXTS[code]})
    numbers = {
        re.sub(r"[^A-Za-z0-9_./ -]", "_", row.cell): float(row.found)
        for row in rows
        if isinstance(row.found, int | float) and math.isfinite(row.found)
    }
    workspace.tracker.metrics(numbers)
    for name in ("reproduction.json", "reproduction.md"):
        workspace.tracker.artifact(workspace.folder / name)
