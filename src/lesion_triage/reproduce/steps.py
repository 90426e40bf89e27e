"""Runs each kind of step: training by the pipeline, others by their verbs. Imports those and this package."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lesion_triage import config_file, pipeline, robustness, strict_yaml, transfer
from lesion_triage.bundle.content_hash import content_sha256
from lesion_triage.bundle.document import canonical_json
from lesion_triage.bundle.store import open_bundle
from lesion_triage.calibrate import queue_report
from lesion_triage.clinic import queue
from lesion_triage.config import Config
from lesion_triage.console import echo
from lesion_triage.data import manifest, published_splits, split
from lesion_triage.errors import ConfigError, DataError, RunError, SplitError
from lesion_triage.proof.findings import prove
from lesion_triage.proof.pool import read as read_scores
from lesion_triage.reproduce import initial_weights
from lesion_triage.reproduce.definition import (
    Coverage,
    Queue,
    Robustness,
    Script,
    Step,
    Train,
    Transfer,
)
from lesion_triage.reproduce.records import StepResult
from lesion_triage.reproduce.workspace import Workspace, pictures_sha256
from lesion_triage.runs import Run, file_sha256

_AddArguments = Callable[[argparse.ArgumentParser], None]


def run_step(step: Step, workspace: Workspace) -> dict[str, StepResult]:
    """Run one step; returns its documents by name.

    Raises:
        RunError: pictures other than those of the record, or a script that fails.
        LesionTriageError: whatever the verb raises.
    """
    if isinstance(step, Train):
        return _run_training(step, workspace)
    if isinstance(step, Transfer):
        return {step.name: _run_transfer(step, workspace)}
    if isinstance(step, Robustness):
        return {step.name: _run_robustness(step, workspace)}
    if isinstance(step, Coverage):
        return {step.name: _run_coverage(step, workspace)}
    return {
        step.name: _run_queue(step, workspace) if isinstance(step, Queue) else _run_script(step, workspace)
    }


def _run_training(step: Train, workspace: Workspace) -> dict[str, StepResult]:
    results = {}
    for seed, name in zip(step.seeds, step.documents(), strict=True):
        loaded = _load_config(step, workspace, seed)
        if not pipeline.is_single_process(loaded):
            raise ConfigError(
                f"an experiment is repeated in one process, found train.devices {loaded.train.devices} and "
                f"WORLD_SIZE {os.environ.get('WORLD_SIZE', '1')}; set train.devices to 1, without torchrun."
            )
        parent = workspace.tracker.run_id
        for verb in ("manifest", "split"):
            run = pipeline.run_verb(verb, loaded, workspace.runs, parent=parent)
        dataset_manifest, digest = manifest.read(run.folder)
        splits, splits_digest = split.read(run.folder, digest)
        input_hashes = {"manifest_sha256": digest, "splits_sha256": splits_digest}
        _verify_splits(step, workspace, splits, name)
        workspace.check_inputs(name, input_hashes)
        echo(
            f"{name}: {len(dataset_manifest.records)} photographs, manifest {digest[:12]}, "
            f"splits {splits_digest[:12]}"
        )
        run = pipeline.run_verb(
            "run" if step.until == "evaluate" else "train", loaded, workspace.runs, parent=parent
        )
        workspace.finished_runs[name], workspace.hashes[name] = run, input_hashes
        if step.until == "evaluate":
            content = (run.folder / "report" / "results.json").read_bytes()
            facts = {"bundle_content": content_sha256(open_bundle(run.folder / "bundle"))}
            made_from = {**input_hashes, "recipe_sha256": recipe_sha256(step, workspace.experiment, seed)}
            results[name] = StepResult(json.loads(content), content, made_from, facts)
    return results


def recipe_sha256(step: Train, experiment: Path, seed: int) -> str:
    """Identity of the configuration in an experiment's own files, whatever is overridden here.

    A record made with another one cannot be compared with this one.
    """
    path = (experiment / step.config).resolve()
    return config_file.load(path, [*step.set, f"seed={seed}"]).identity_sha256()


def _load_config(step: Train, workspace: Workspace, seed: int) -> Config:
    root = None if step.data is None else workspace.data[step.data]
    second_look_reason = f"reproduction of {workspace.name} ({workspace.version_name}), seed {seed}"
    extra_overrides = (*step.set, *workspace.settings)
    overrides = [
        f"calibrate.second_look={strict_yaml.dump_line(second_look_reason)}",
        *extra_overrides,
        f"seed={seed}",
        *_tracking_overrides(workspace),
    ]
    loaded = config_file.load(workspace.resolve(step.config), overrides, root)
    if workspace.weights is not None:
        overrides += initial_weights.overrides(workspace.weights, loaded)
        loaded = config_file.load(workspace.resolve(step.config), overrides, root)
    return loaded


def _tracking_overrides(workspace: Workspace) -> list[str]:
    tracking = {"experiment": workspace.name, "enabled": workspace.tracked}
    return [f"tracking.{key}={strict_yaml.dump_line(value)}" for key, value in tracking.items()]


def _verify_splits(step: Train, workspace: Workspace, splits: split.Splits, name: str) -> None:
    """Check that the splits equal the published ones.

    With ``--other-data`` a difference becomes an obstacle to the comparison, except when recording.

    Raises:
        RunError: they differ otherwise.
    """
    if step.splits is None:
        return
    try:
        echo(f"  {published_splits.verify(splits, workspace.resolve(step.splits))}")
    except SplitError as error:
        if workspace.recording:
            raise RunError(
                f"{error} A record on other splits needs them published first: `lesion-triage splits RUN "
                f"--publish {workspace.resolve(step.splits)}`, with the run folder named above."
            ) from None
        if not workspace.other_data:
            raise RunError(
                f"{error} To run the experiment on other pictures, with nothing to compare: --other-data."
            ) from None
        workspace.obstacles[name] = f"other splits than {step.splits}"


def _run_transfer(step: Transfer, workspace: Workspace) -> StepResult:
    run = workspace.finished_runs[step.bundle]
    root = None if step.data is None else workspace.data[step.data]
    argv = [str(run.folder / "bundle"), str(workspace.resolve(step.config)), "--runs", str(workspace.runs)]
    argv += ["--split", step.split]
    argv += ["--data-root", str(root)] if root is not None else []
    for override in (*step.set, *_tracking_overrides(workspace)):
        argv += ["--set", override]
    pictures_hash = "drawn" if root is None else pictures_sha256(root)

    def make_document(folder: Path) -> bytes:
        _run_verb(transfer.add_arguments, transfer.main, [*argv, "--out", str(folder)])
        return (folder / "results.json").read_bytes()

    inputs = {
        **step.model_dump(mode="json"),
        "configuration": _file_sha256(workspace.resolve(step.config)),
        "bundle": open_bundle(run.folder / "bundle").sha256,
        "seen": pictures_hash,
    }
    content = workspace.cached_document(step.name, inputs, make_document)
    document = json.loads(content)
    own = {key: document[key] for key in ("manifest_sha256", "splits_sha256")}
    return StepResult(document, content, {**own, **_input_hashes(workspace, step.bundle)})


def _run_robustness(step: Robustness, workspace: Workspace) -> StepResult:
    run = workspace.finished_runs[step.run]
    shown = {name: workspace.data[name] for name in step.show if name in workspace.data}
    for name in step.show:
        if name not in shown:
            workspace.obstacles[f"{step.name}.{name}"] = "these pictures are not available"
    argv = [str(run.folder), "--others", str(step.others), "--severities", *map(str, step.severities)]
    if run.config.data.root is not None:
        argv += ["--data-root", str(run.config.data.root)]
    for name, folder in shown.items():
        argv += ["--show", f"{name}={folder}"]
    hashes = {f"{name} pictures": pictures_sha256(folder) for name, folder in shown.items()}

    def make_document(folder: Path) -> bytes:
        _run_verb(robustness.add_arguments, robustness.main, [*argv, "--out", str(folder)])
        return (folder / "results.json").read_bytes()

    bundle = open_bundle(run.folder / "bundle").sha256
    content = workspace.cached_document(
        step.name, {**step.model_dump(mode="json"), "bundle": bundle, **hashes}, make_document
    )
    return StepResult(json.loads(content), content, {**hashes, **_input_hashes(workspace, step.run)})


def _input_hashes(workspace: Workspace, run: str) -> dict[str, str]:
    """Hashes of the pictures behind the run that made a bundle."""
    return {f"{run} {what}": digest for what, digest in workspace.hashes[run].items()}


def _file_sha256(path: Path) -> str:
    """SHA-256 of a file that the definition names."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise DataError(
            f"{path}: the definition names this file, and it cannot be read ({error.strerror})."
        ) from None


def _run_coverage(step: Coverage, workspace: Workspace) -> StepResult:
    table = workspace.resolve(step.scores)
    hashes = {"scores_sha256": _file_sha256(table)}

    def make_document(folder: Path) -> bytes:
        found = prove(read_scores(table), step.draws, step.seed, step.mapie)
        for broken in found.broken:
            echo(f"  {broken}")
        return canonical_json(found.document()).encode()

    content = workspace.cached_document(step.name, {**step.model_dump(mode="json"), **hashes}, make_document)
    return StepResult(json.loads(content), content, hashes)


def _run_queue(step: Queue, workspace: Workspace) -> StepResult:
    hashes, argv = {}, list(step.arguments)
    if step.scores is not None:
        argv.insert(0, str(workspace.resolve(step.scores)))
        hashes["scores_sha256"] = _file_sha256(workspace.resolve(step.scores))

    def make_document(folder: Path) -> bytes:
        study = queue.run_study(_parse_arguments(queue.add_arguments, argv))
        echo("\n".join(queue_report.report_lines(study)))
        document = {**queue_report.document(study), **hashes}
        if step.scores is not None:
            document["source"] = step.scores  # not its location on this machine
        return canonical_json(document).encode()

    content = workspace.cached_document(step.name, {**step.model_dump(mode="json"), **hashes}, make_document)
    return StepResult(json.loads(content), content, hashes)


def _run_script(step: Script, workspace: Workspace) -> StepResult:
    program = workspace.resolve(step.script)
    runs = [workspace.finished_runs[name] for name in step.runs]
    folders = {f"{{data:{name}}}": workspace.data[name] for name in step.data if name in workspace.data}

    def make_document(folder: Path) -> bytes:
        out = folder / "out.json"
        arguments = [
            _substitute(word, {"{out}": out, **folders, **_run_placeholders(workspace)})
            for word in step.arguments
        ]
        command = [sys.executable, str(program), *arguments, *(str(run.folder) for run in runs)]
        done = subprocess.run(command, check=False)  # noqa: S603 - a program in the experiment's own folder
        if done.returncode or not out.is_file():
            raise RunError(
                f"{program}: ended with status {done.returncode}, expected 0 and the file {out.name}; its "
                "output is above."
            )
        return out.read_bytes()

    inputs = {
        **step.model_dump(mode="json"),
        "program": _file_sha256(program),
        "made": {name: _stage_hashes(workspace.finished_runs[name]) for name in step.input_runs()},
        "data": {name: pictures_sha256(folder) for name, folder in folders.items()},
    }
    content = workspace.cached_document(step.name, inputs, make_document)
    hashes: dict[str, str] = {}
    for name in step.input_runs():
        hashes |= _input_hashes(workspace, name)
    return StepResult(json.loads(content), content, hashes)


def _stage_hashes(run: Run) -> dict[str, str]:
    """Of every finished stage: a script may read anything in the folder."""
    records = ((stage, run.record(stage)) for stage in pipeline.STAGES)
    return {stage: record.sha256() for stage, record in records if record is not None}


def _run_placeholders(workspace: Workspace) -> dict[str, Path]:
    return {f"{{run:{name}}}": run.folder for name, run in workspace.finished_runs.items()}


def _substitute(word: str, values: dict[str, Path]) -> str:
    for name, value in values.items():
        word = word.replace(name, str(value))
    return word


def _parse_arguments(add_arguments: _AddArguments, argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="the verb", exit_on_error=False)
    add_arguments(parser)
    try:
        return parser.parse_args(argv)
    except (argparse.ArgumentError, SystemExit) as error:
        raise ConfigError(f"the step's arguments are refused ({' '.join(argv)}): {error}.") from None


def _run_verb(
    add_arguments: _AddArguments, main: Callable[[argparse.Namespace], int], argv: Sequence[str]
) -> None:
    """Run a verb as the command line does."""
    main(_parse_arguments(add_arguments, argv))
