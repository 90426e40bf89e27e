"""Runs the stages of a verb: finished ones are left alone, interrupted ones are resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from lesion_triage import locks, runs
from lesion_triage.config import Config
from lesion_triage.console import echo
from lesion_triage.errors import RunError
from lesion_triage.pipeline import sealing, training
from lesion_triage.pipeline.auditing import refuse_failed_audit, write_picture_page
from lesion_triage.pipeline.pictures import require_data, require_runs_outside_dataset
from lesion_triage.pipeline.stages import STAGES, TABLES_AUDIT, VERBS, Stage
from lesion_triage.runs import Run
from lesion_triage.tracking import Tracker, environment, flat_params


def run_verb(
    verb: str,
    config: Config,
    root: Path,
    fresh: bool = False,
    resume: bool = False,
    show_pictures: bool = False,
    tables_only: bool = False,
    parent: str = "",
) -> Run:
    """Run the stages of a verb: leave finished ones alone, resume interrupted ones.

    Args:
        verb: a key of ``VERBS``.
        config: the resolved configuration.
        root: folder of all runs.
        fresh: start a new run folder and take nothing over.
        resume: refuse to start a training run from nothing.
        show_pictures: for ``audit``: write a page with photographs as well, which stays in the run folder.
        tables_only: for ``audit``: open no picture; the stage audit itself is not done.
        parent: MLflow run under which a new one is nested; empty: it is not nested.

    Raises:
        AuditError: the audit says fail, and the configuration does not accept it.
        RunError: a stage before the one asked for has not been done.
        LesionTriageError: whatever a stage raises; its incomplete outputs are removed, earlier stages stay.
    """
    asked = VERBS["split"] if tables_only else VERBS[verb]
    if "train" in asked:
        training.require_weights(config)
    run = open_run(config, root, fresh)
    with _tracking(run, parent) as tracker:
        for name in _with_prerequisites(asked):
            if name == "train" and name in asked and _must_be_executed(STAGES[name], run, fresh):
                sealing.warn_of_second_look(run)
            ensure_stage(STAGES[name], run, tracker, may_work=name in asked, fresh=fresh, resume=resume)
            if name == "train" and name in asked:
                training.release_other_ranks(config)
            if name == "audit" and verb == "run":
                refuse_failed_audit(run)  # before the hours of training, not after
        if tables_only:
            ensure_stage(TABLES_AUDIT, run, tracker, fresh=fresh)
            refuse_failed_audit(run, TABLES_AUDIT.name)
        elif verb == "audit":
            if all(
                _is_done_without_waiting(STAGES[name], run, tracker, fresh) for name in ("train", "predict")
            ):
                ensure_stage(STAGES["audit_model"], run, tracker, may_work=True, fresh=fresh, resume=False)
            if show_pictures:
                write_picture_page(run)
            refuse_failed_audit(run)
    return run


def open_run(config: Config, root: Path, fresh: bool = False) -> Run:
    """The folder in which this configuration has been or will be run.

    Args:
        config: the resolved configuration.
        root: folder of all runs.
        fresh: make a new folder in any case.

    Raises:
        RunError: the dataset's folder is not given or does not exist, or the runs would be in it.
    """
    require_data(config)
    require_runs_outside_dataset(config, root)
    run = _find_or_make_run(config, root, fresh)
    echo(f"{run.folder}")
    return run


def _find_or_make_run(config: Config, root: Path, fresh: bool) -> Run:
    if fresh:
        return runs.make(config, root)
    return runs.find_or_make(config, root, _report_outdated)


def _report_outdated(run: Run) -> bool:
    """Whether the data or the weights changed, say; then what was finished stays as it is."""
    for stage in STAGES.values():
        if _is_outdated(stage, run):
            echo(f"  what '{stage.name}' of {run.folder.name} was made from has changed since; a new folder:")
            return True
    return False


def open_tracker(run: Run, parent: str = "") -> Tracker:
    """The run's record in MLflow, with parameters and environment; a new one is nested under ``parent``."""
    tracker = Tracker(run.config, run.folder, echo, parent)
    tracker.params({**flat_params(run.config), "config_sha256": run.config.identity_sha256()})
    tracker.text(config_text(run.config), "config.yaml")
    tracker.text(environment(), "environment.txt")
    return tracker


@contextmanager
def _tracking(run: Run, parent: str = "") -> Iterator[Tracker]:
    """The same, closed at the end with the outcome."""
    tracker = open_tracker(run, parent)
    status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        tracker.finish(status)


def join_training(verb: str, config: Config) -> None:
    """What every process of a training run except rank 0 does for a verb."""
    if "train" in VERBS[verb]:
        from lesion_triage.train import loop

        loop.join_training(config)


def config_text(config: Config) -> str:
    """The configuration without the locations of data and weights."""
    return json.dumps(flat_params(config), indent=2, sort_keys=True) + "\n"


def _with_prerequisites(asked: Sequence[str]) -> list[str]:
    wanted = set(asked)
    for name in reversed(STAGES):
        if name in wanted:
            wanted.update(STAGES[name].needs)
    return [name for name in STAGES if name in wanted]


def _inputs_sha256(stage: Stage, run: Run) -> str | None:
    """Hash of everything that decides a stage's result; None while a stage that it needs is not done."""
    needed = {}
    for name in stage.needs:
        record = run.record(name)
        if record is None:
            return None
        needed[name] = record.sha256()
    return runs.inputs_sha256(stage=stage.name, decides=stage.decides(run), needs=needed)


def _is_outdated(stage: Stage, run: Run) -> bool:
    record = run.record(stage.name)
    return record is not None and record.inputs_sha256 != _inputs_sha256(stage, run)


def _must_be_executed(stage: Stage, run: Run, fresh: bool) -> bool:
    inputs = _inputs_sha256(stage, run)
    assert inputs is not None, "the stages come in the order of their needs"
    return not run.is_up_to_date(stage.name, inputs) and _reusable_run(stage, run, inputs, fresh) is None


def _is_done_without_waiting(stage: Stage, run: Run, tracker: Tracker, fresh: bool) -> bool:
    """True if the stage is up to date or reused. One that another process works on is neither; no waiting."""
    inputs = _inputs_sha256(stage, run)
    if inputs is None:
        return False
    with _lock_errors(stage, run):
        lock = locks.try_lock(_lock_path(stage, run))
    if lock is None:
        return False
    with lock:
        return _reuse_result(stage, run, inputs, tracker, fresh)


def _reuse_result(stage: Stage, run: Run, inputs: str, tracker: Tracker, fresh: bool) -> bool:
    """True if the stage is up to date, here or reused from another run; the caller holds the stage's lock."""
    if run.is_up_to_date(stage.name, inputs):
        run.clear(stage.scratch)
        echo(f"{stage.name}: unchanged")
        return True
    if (other := _reusable_run(stage, run, inputs, fresh)) is not None:
        if stage.name == "evaluate":
            runs.copy_test_openings(other.folder, run.folder)
        run.reuse_stage(stage.name, other)
        stage.log_reused(run, tracker)
        echo(f"{stage.name}: reused from {other.folder.name}")
        return True
    return False


def _reusable_run(stage: Stage, run: Run, inputs: str, fresh: bool) -> Run | None:
    """The newest other run in which this stage was made from the same inputs."""
    others: Iterable[Run] = () if fresh else runs.other_runs(run)
    there = (o for o in others if o.is_up_to_date(stage.name, inputs) and _has_same_data(stage, run, o))
    return next(there, None)


def _has_same_data(stage: Stage, run: Run, other: Run) -> bool:
    """True if manifest and split before this stage are the same in both runs.

    The hash of the inputs does not always show it. An average of members that come out the same has the same
    inputs, although a label of calibration or test may have been corrected since.
    """
    before = _with_prerequisites(stage.needs)
    records = ((run.record(name), other.record(name)) for name in ("manifest", "split") if name in before)
    return all(ours and theirs and ours.sha256() == theirs.sha256() for ours, theirs in records)


def _train_members(run: Run, tracker: Tracker, fresh: bool, resume: bool) -> list[Path]:
    """Train the members of an ensemble, each in the run that its seed has on its own; returns their folders.

    So a member is never trained twice, whether it was trained for this ensemble, for another or on its own.
    """
    folders = []
    members = run.config.members()
    for config in {member.model.backbone: member for member in members}.values():
        training.preflight_check(config)  # all of them, before the first one is trained for hours
    several = len({member.model.backbone for member in members}) > 1
    for number, config in enumerate(members, 1):
        member = _find_or_make_run(config, run.folder.parent, fresh)
        which = f"{config.model.backbone}, seed {config.seed}" if several else f"seed {config.seed}"
        echo(f"member {number} of {len(members)}: {which}, {member.folder.name}")
        with _tracking(member, tracker.run_id) as member_tracker:
            for name in STAGES["train"].needs:
                record = run.record(name)
                assert record is not None
                if not member.is_up_to_date(name, record.inputs_sha256):
                    with _stage_locked(STAGES[name], member):
                        member.reuse_stage(name, run)
                    STAGES[name].log_reused(member, member_tracker)
            ensure_stage(STAGES["train"], member, member_tracker, fresh=fresh, resume=resume)
        folders.append(member.folder)
        resume = False  # after the first member, resuming is no longer required
    return folders


def ensure_stage(
    stage: Stage,
    run: Run,
    tracker: Tracker,
    *,
    may_work: bool = True,
    fresh: bool = False,
    resume: bool = False,
) -> None:
    """Run a stage unless it is done. If another process is running it, wait until that one has finished.

    Raises:
        RunError: the stage has not been done, and may not be done here; or its inputs changed while another
            process was running it.
        LesionTriageError: whatever the stage raises.
    """
    inputs = _inputs_sha256(stage, run)
    assert inputs is not None, "the stages come in the order of their needs"
    if run.is_up_to_date(stage.name, inputs) and not any(
        (run.folder / name).exists() for name in stage.scratch
    ):
        echo(f"{stage.name}: unchanged")  # nothing to write, so no lock is needed
        return
    with _stage_locked(stage, run):
        if _inputs_sha256(stage, run) != inputs:
            raise RunError(
                f"{stage.name}: what it is made from (data, weights or a stage before) changed while this "
                f"command waited for another in {run.folder}; run the command again."
            )
        if _reuse_result(stage, run, inputs, tracker, fresh):
            return
        if not may_work:
            verb = next(verb for verb, stages in VERBS.items() if stage.name in stages)
            raise RunError(
                f"'{stage.name}' has not been done for this configuration; run `lesion-triage {verb}` first."
            )
        if stage.name == "train" and run.config.members():
            members = _train_members(run, tracker, fresh, resume)
            stage = replace(stage, work=partial(stage.work, members=members))
            resume = False  # with its members trained, it does not start from nothing
        _execute(stage, run, tracker, inputs, fresh, resume)


@contextmanager
def _stage_locked(stage: Stage, run: Run) -> Iterator[None]:
    """Hold the lock of this stage in this run; it ends with the process, however that ends.

    There is one lock for each stage, so an audit need not wait for a training run.

    Raises:
        RunError: the disk refuses the lock.
    """
    waiting = f"{stage.name}: another process is running it in {run.folder}; waiting for it to finish"
    with ExitStack() as stack:
        with _lock_errors(stage, run):
            stack.enter_context(locks.hold_lock(_lock_path(stage, run), lambda: echo(waiting)))
        yield


def _lock_path(stage: Stage, run: Run) -> Path:
    return run.folder / "stages" / f"{stage.name}.lock"


@contextmanager
def _lock_errors(stage: Stage, run: Run) -> Iterator[None]:
    """Turn an operating-system error about the lock into one sentence."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{_lock_path(stage, run)}: the lock cannot be taken ({error}); the runs must be on a disk that "
            "is writable and supports file locks."
        ) from None


def _execute(stage: Stage, run: Run, tracker: Tracker, inputs: str, fresh: bool, resume: bool) -> None:
    """Run a stage and record it. A failed attempt leaves nothing but the state it can resume from."""
    echo(f"{stage.name}")
    run.clear(stage.outputs)
    if fresh:
        run.clear(stage.scratch)
    else:
        stage.prepare_resume(run, resume)
    began = time.monotonic()
    try:
        stage.work(run, tracker)
    except BaseException:
        if not run.is_up_to_date(stage.name, inputs):  # what a record names is finished, whoever did it
            run.clear(stage.outputs)
        raise
    record = run.record_stage(stage.name, inputs, stage.outputs, time.monotonic() - began)
    tracker.metrics({f"seconds.{stage.name}": record.seconds})
    run.clear(stage.scratch)
