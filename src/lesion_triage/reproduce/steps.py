"""Runs each kind of step: training by the pipeline, others by their verbs. Imports those and this room."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lesion_triage import config_file, pipeline, robustness, strict_yaml, transfer
from lesion_triage.bundle.content import content_sha256
from lesion_triage.bundle.document import canonical_json
from lesion_triage.bundle.store import open_bundle
from lesion_triage.calibrate import queue_report
from lesion_triage.clinic import queue
from lesion_triage.config import Config
from lesion_triage.console import say
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
from lesion_triage.reproduce.records import Found
from lesion_triage.reproduce.workspace import Workplace, pictures_sha256
from lesion_triage.runs import Run, file_sha256

_Describe = Callable[[argparse.ArgumentParser], None]


def do(step: Step, at: Workplace) -> dict[str, Found]:
    """Run one step; returns its documents by name.

    Raises:
        RunError: pictures other than those of the record, or a script that fails.
        LesionTriageError: whatever the verb raises.
    """
    if isinstance(step, Train):
        return _train(step, at)
    if isinstance(step, Transfer):
        return {step.name: _transfer(step, at)}
    if isinstance(step, Robustness):
        return {step.name: _robustness(step, at)}
    if isinstance(step, Coverage):
        return {step.name: _coverage(step, at)}
    return {step.name: _queue(step, at) if isinstance(step, Queue) else _script(step, at)}


def _train(step: Train, at: Workplace) -> dict[str, Found]:
    found = {}
    for seed, name in zip(step.seeds, step.documents(), strict=True):
        loaded = _loaded(step, at, seed)
        if not pipeline.is_single_process(loaded):
            raise ConfigError(
                f"an experiment is repeated in one process, found train.devices {loaded.train.devices} and "
                f"WORLD_SIZE {os.environ.get('WORLD_SIZE', '1')}; set train.devices to 1, without torchrun."
            )
        parent = at.tracker.run_id
        for verb in ("manifest", "split"):
            run = pipeline.run_verb(verb, loaded, at.runs, parent=parent)
        known, digest = manifest.read(run.folder)
        dealt, splits_digest = split.read(run.folder, digest)
        hashes = {"manifest_sha256": digest, "splits_sha256": splits_digest}
        _verify(step, at, dealt, name)
        at.check(name, hashes)
        say(f"{name}: {len(known.records)} photographs, manifest {digest[:12]}, splits {splits_digest[:12]}")
        run = pipeline.run_verb(
            "run" if step.until == "evaluate" else "train", loaded, at.runs, parent=parent
        )
        at.made[name], at.hashes[name] = run, hashes
        if step.until == "evaluate":
            content = (run.folder / "report" / "results.json").read_bytes()
            facts = {"bundle_content": content_sha256(open_bundle(run.folder / "bundle"))}
            made_from = {**hashes, "recipe_sha256": recipe_sha256(step, at.experiment, seed)}
            found[name] = Found(json.loads(content), content, made_from, facts)
    return found


def recipe_sha256(step: Train, experiment: Path, seed: int) -> str:
    """Identity of the configuration in an experiment's own files, whatever is overridden here.

    A record made with another one cannot be compared with this one.
    """
    path = (experiment / step.config).resolve()
    return config_file.load(path, [*step.set, f"seed={seed}"]).identity_sha256()


def _loaded(step: Train, at: Workplace, seed: int) -> Config:
    root = None if step.data is None else at.data[step.data]
    why = f"reproduction of {at.name} ({at.version_name}), seed {seed}"
    given = (*step.set, *at.settings)
    words = [f"calibrate.second_look={strict_yaml.written(why)}", *given, f"seed={seed}", *_tracking(at)]
    loaded = config_file.load(at.beside(step.config), words, root)
    if at.weights is not None:
        words += initial_weights.overrides(at.weights, loaded)
        loaded = config_file.load(at.beside(step.config), words, root)
    return loaded


def _tracking(at: Workplace) -> list[str]:
    said = {"experiment": at.name, "enabled": at.tracked}
    return [f"tracking.{key}={strict_yaml.written(value)}" for key, value in said.items()]


def _verify(step: Train, at: Workplace, dealt: split.Splits, name: str) -> None:
    """Check that the splits equal the published ones.

    With ``--other-data`` a difference becomes an obstacle to the comparison, except when recording.

    Raises:
        RunError: they differ otherwise.
    """
    if step.splits is None:
        return
    try:
        say(f"  {published_splits.verify(dealt, at.beside(step.splits))}")
    except SplitError as error:
        if at.recording:
            raise RunError(
                f"{error} A record on other splits needs them published first: `lesion-triage splits RUN "
                f"--publish {at.beside(step.splits)}`, with the run folder named above."
            ) from None
        if not at.other_data:
            raise RunError(
                f"{error} To run the experiment on other pictures, with nothing to compare: --other-data."
            ) from None
        at.obstacles[name] = f"other splits than {step.splits}"


def _transfer(step: Transfer, at: Workplace) -> Found:
    run = at.made[step.bundle]
    root = None if step.data is None else at.data[step.data]
    words = [str(run.folder / "bundle"), str(at.beside(step.config)), "--runs", str(at.runs)]
    words += ["--split", step.split]
    words += ["--data-root", str(root)] if root is not None else []
    for override in (*step.set, *_tracking(at)):
        words += ["--set", override]
    seen = "drawn" if root is None else pictures_sha256(root)

    def work(room: Path) -> bytes:
        _act(transfer.add_arguments, transfer.act, [*words, "--out", str(room)])
        return (room / "results.json").read_bytes()

    inputs = {
        **step.model_dump(mode="json"),
        "configuration": _digest(at.beside(step.config)),
        "bundle": open_bundle(run.folder / "bundle").sha256,
        "seen": seen,
    }
    content = at.once(step.name, inputs, work)
    document = json.loads(content)
    own = {key: document[key] for key in ("manifest_sha256", "splits_sha256")}
    return Found(document, content, {**own, **_behind(at, step.bundle)})


def _robustness(step: Robustness, at: Workplace) -> Found:
    run = at.made[step.run]
    shown = {name: at.data[name] for name in step.show if name in at.data}
    for name in step.show:
        if name not in shown:
            at.obstacles[f"{step.name}.{name}"] = "these pictures are not available"
    words = [str(run.folder), "--others", str(step.others), "--severities", *map(str, step.severities)]
    if run.config.data.root is not None:
        words += ["--data-root", str(run.config.data.root)]
    for name, folder in shown.items():
        words += ["--show", f"{name}={folder}"]
    hashes = {f"{name} pictures": pictures_sha256(folder) for name, folder in shown.items()}

    def work(room: Path) -> bytes:
        _act(robustness.add_arguments, robustness.act, [*words, "--out", str(room)])
        return (room / "results.json").read_bytes()

    bundle = open_bundle(run.folder / "bundle").sha256
    content = at.once(step.name, {**step.model_dump(mode="json"), "bundle": bundle, **hashes}, work)
    return Found(json.loads(content), content, {**hashes, **_behind(at, step.run)})


def _behind(at: Workplace, run: str) -> dict[str, str]:
    """Hashes of the pictures behind the run that made a bundle."""
    return {f"{run} {what}": digest for what, digest in at.hashes[run].items()}


def _digest(path: Path) -> str:
    """SHA-256 of a file that the definition names."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise DataError(
            f"{path}: the definition names this file, and it cannot be read ({error.strerror})."
        ) from None


def _coverage(step: Coverage, at: Workplace) -> Found:
    table = at.beside(step.scores)
    hashes = {"scores_sha256": _digest(table)}

    def work(room: Path) -> bytes:
        found = prove(read_scores(table), step.draws, step.seed, step.mapie)
        for broken in found.broken:
            say(f"  {broken}")
        return canonical_json(found.document()).encode()

    content = at.once(step.name, {**step.model_dump(mode="json"), **hashes}, work)
    return Found(json.loads(content), content, hashes)


def _queue(step: Queue, at: Workplace) -> Found:
    hashes, words = {}, list(step.arguments)
    if step.scores is not None:
        words.insert(0, str(at.beside(step.scores)))
        hashes["scores_sha256"] = _digest(at.beside(step.scores))

    def work(room: Path) -> bytes:
        study = queue.study_of(_parsed(queue.add_arguments, words))
        say("\n".join(queue_report.lines(study)))
        document = {**queue_report.document(study), **hashes}
        if step.scores is not None:
            document["source"] = step.scores  # not its location on this machine
        return canonical_json(document).encode()

    content = at.once(step.name, {**step.model_dump(mode="json"), **hashes}, work)
    return Found(json.loads(content), content, hashes)


def _script(step: Script, at: Workplace) -> Found:
    program = at.beside(step.script)
    runs = [at.made[name] for name in step.runs]
    folders = {f"{{data:{name}}}": at.data[name] for name in step.data if name in at.data}

    def work(room: Path) -> bytes:
        out = room / "out.json"
        words = [_filled(word, {"{out}": out, **folders, **_named_runs(at)}) for word in step.arguments]
        command = [sys.executable, str(program), *words, *(str(run.folder) for run in runs)]
        done = subprocess.run(command, check=False)  # noqa: S603 - a program in the experiment's own folder
        if done.returncode or not out.is_file():
            raise RunError(
                f"{program}: ended with status {done.returncode}, expected 0 and the file {out.name}; its "
                "output is above."
            )
        return out.read_bytes()

    inputs = {
        **step.model_dump(mode="json"),
        "program": _digest(program),
        "made": {name: _outputs(at.made[name]) for name in step.reads()},
        "data": {name: pictures_sha256(folder) for name, folder in folders.items()},
    }
    content = at.once(step.name, inputs, work)
    hashes: dict[str, str] = {}
    for name in step.reads():
        hashes |= _behind(at, name)
    return Found(json.loads(content), content, hashes)


def _outputs(run: Run) -> dict[str, str]:
    """Of every finished stage: a script may read anything in the folder."""
    records = ((stage, run.record(stage)) for stage in pipeline.STAGES)
    return {stage: record.sha256() for stage, record in records if record is not None}


def _named_runs(at: Workplace) -> dict[str, Path]:
    return {f"{{run:{name}}}": run.folder for name, run in at.made.items()}


def _filled(word: str, values: dict[str, Path]) -> str:
    for name, value in values.items():
        word = word.replace(name, str(value))
    return word


def _parsed(describe: _Describe, words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="the verb", exit_on_error=False)
    describe(parser)
    try:
        return parser.parse_args(words)
    except (argparse.ArgumentError, SystemExit) as error:
        raise ConfigError(f"the step's arguments are refused ({' '.join(words)}): {error}.") from None


def _act(describe: _Describe, act: Callable[[argparse.Namespace], int], words: Sequence[str]) -> None:
    """Run a verb as the command line does."""
    act(_parsed(describe, words))
