"""``lesion-triage reproduce``: repeat a recorded experiment and report, cell by cell, whether it agrees.

Imports config, tracking, console and this room; the steps are imported when they are run.
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
from lesion_triage.console import say
from lesion_triage.errors import RunError
from lesion_triage.reproduce import page, records
from lesion_triage.reproduce.cells import Cells, cells_of
from lesion_triage.reproduce.comparison import Row, compare, status
from lesion_triage.reproduce.definition import Experiment, VersionName, load
from lesion_triage.reproduce.machine import differences, machine
from lesion_triage.reproduce.records import Found
from lesion_triage.reproduce.workspace import Workplace, at_hand, missing
from lesion_triage.tracking import Tracker

RUNS = Path("experiments/runs")
_STATUS = {0: "all cells agree", 1: "some cells differ", 3: "some cells could not be compared"}


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


def act(arguments: argparse.Namespace) -> int:
    """Repeat it, print and store the comparison. Returns the exit status that ``--help`` explains."""
    definition = load(arguments.experiment)
    version_name, data = _choose(definition, arguments)
    at = _workplace(arguments, definition, version_name, data)
    say(f"{at.name}, {version_name}: {definition.asks}")
    say(f"  {at.version.takes} {at.version.shows}")
    ended = "FAILED"
    try:
        found = _do(at)
        if at.recording:
            _keep(at, definition, found)
        rows, text = _compared(at, definition, found)
        code = status(rows)
        _write(at, rows, text, code)
        _track(at, rows, code)
        ended = "FINISHED" if code != 1 else "FAILED"
    except KeyboardInterrupt:
        ended = "KILLED"
        raise
    finally:
        at.tracker.finish(ended)
    return code


def _workplace(
    arguments: argparse.Namespace, definition: Experiment, version: VersionName, data: dict[str, Path]
) -> Workplace:
    """Everything that the steps need, before any of them is run."""
    name = arguments.experiment.resolve().name
    folder = arguments.runs / f"{name}-{version}-reproduction"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be made ({error.strerror}); name another folder with --runs."
        ) from None
    return Workplace(
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


def _choose(definition: Experiment, arguments: argparse.Namespace) -> tuple[VersionName, dict[str, Path]]:
    """The version that can be run with the pictures at hand."""
    asked: VersionName = "quick" if arguments.quick else "full"
    data = at_hand(definition, definition.versions()[asked], arguments.data_root)
    lacking = missing(definition, definition.versions()[asked], data)
    if not lacking:
        return asked, data
    if asked == "quick" and not arguments.data_root:
        names = ", ".join(one.name for one in lacking)
        say(f"No --data-root, so no {names}: the quick version uses DRAWN pictures.")
        return "drawn", {}
    what = "; ".join(
        f"{one.name} ({one.what}"
        + (f"; `lesion-triage datasets show {one.catalogue}` says how to get it)" if one.catalogue else ")")
        for one in lacking
    )
    raise RunError(
        f"{arguments.experiment}: the {asked} version needs {what}; name the folder with --data-root DIR or "
        f"--data-root {lacking[0].name}=DIR, or try --quick without --data-root on drawn pictures."
    )


def _do(at: Workplace) -> dict[str, Found]:
    """Run every step in order; returns the documents to compare."""
    from lesion_triage.reproduce import steps  # noqa: PLC0415 - torch, and the rest of the training environment

    found: dict[str, Found] = {}
    for step in at.version.steps:
        found |= steps.do(step, at)
    found = {name: found[name] for name in at.version.documents()}
    at.finish(found)
    return found


def _cells(at: Workplace, found: Mapping[str, Found]) -> Cells:
    facts: Cells = {
        f"{name}.{what}": value for name, one in found.items() for what, value in one.facts.items()
    }
    documents = {name: one.document for name, one in found.items()}
    return {**cells_of(documents, records.seeds_of(at.version)), **facts}


def _keep(at: Workplace, definition: Experiment, found: Mapping[str, Found]) -> None:
    """Record the results, and read the record back."""
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    for path in records.write(at.experiment, at.version_name, found, machine(), day, at.settings):
        say(f"  recorded {path}")
    at.obstacles.clear()
    at.record = records.read(at.experiment, definition, at.version_name)


def _compared(at: Workplace, definition: Experiment, found: Mapping[str, Found]) -> tuple[list[Row], str]:
    here = machine()
    other = differences(at.record.machine, here)
    if at.record.machine and at.record.settings != at.settings:
        said = " ".join(f"--set {one}" for one in at.record.settings) or "no --set"
        other = f"{other + ', ' if other else ''}recorded with {said}"
    recorded = at.record.cells(at.version)
    rows = compare(at.version, recorded, _cells(at, found), obstacles=at.obstacles, other_machine=other)
    about = (at.name, at.version_name, definition, at.record, rows, here, other)
    say(page.report(*about, short=True))
    return rows, page.report(*about)


def _write(at: Workplace, rows: Sequence[Row], text: str, code: int) -> None:
    """Write the record of this reproduction, for programs and for people."""
    document = {
        "format": 1,
        "experiment": at.name,
        "version": at.version_name,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": code,
        "machine": machine(),
        "settings": list(at.settings),
        "runs": {name: run.folder.name for name, run in at.made.items()},
        "made_from": at.hashes,
        "rows": [{**asdict(row), "difference": row.difference} for row in rows],
    }
    write_atomically(at.folder / "reproduction.md", text.encode())
    write_atomically(at.folder / "reproduction.json", canonical_json(document).encode())
    say(f"{at.folder / 'reproduction.md'}: {_STATUS[code]} (exit status {code})")


def _tracker(name: str, folder: Path, *, enabled: bool) -> Tracker:
    """The MLflow run under which the training runs are nested, named after the experiment."""
    content = {
        "name": "reproduction",
        "data": {"source": "synthetic"},
        "tracking": {"experiment": name, "enabled": enabled},
    }
    return Tracker(Config.model_validate(content), folder, say)


def _track(at: Workplace, rows: Sequence[Row], code: int) -> None:
    at.tracker.params({"version": at.version_name, "experiment": at.name})
    at.tracker.tags({"reproduction": _STATUS[code]})
    numbers = {
        re.sub(r"[^A-Za-z0-9_./ -]", "_", row.cell): float(row.found)
        for row in rows
        if isinstance(row.found, int | float) and math.isfinite(row.found)
    }
    at.tracker.metrics(numbers)
    for name in ("reproduction.json", "reproduction.md"):
        at.tracker.artifact(at.folder / name)
