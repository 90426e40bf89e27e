"""One trial: a training run for each seed, stopped if it falls behind. Imports the pipeline and Optuna."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean

from optuna.study import Study
from optuna.trial import Trial, TrialState

from lesion_triage import locks, pipeline
from lesion_triage.bundle.document import canonical_json
from lesion_triage.bundle.files import write_atomically
from lesion_triage.config import Config
from lesion_triage.console import echo
from lesion_triage.errors import (
    ConfigError,
    DivergedError,
    ExportError,
    RetryableTrainingError,
    TrainingError,
    TrainingStateError,
)
from lesion_triage.runs import Run, config_identity
from lesion_triage.sweep.space import Space
from lesion_triage.tracking import Tracker

NOTE_FILE = "sweep_trial.json"
SECONDS_ATTR, OUTCOME_ATTR, ERROR_ATTR = "seconds", "why", "reason"
DATA_STAGES = ("manifest", "split")

Line = Mapping[str, float]
"""One epoch of the learning curve; see ``train.loop.EpochMetrics``."""


class _Pruned(Exception):  # noqa: N818 - no error: the trial has ended as it should
    """Raised by the listener, through the training loop."""


def objective(curve: Sequence[Line], last_epochs: int) -> float:
    """The objective, to be maximised: mean validation AUROC over the last epochs, in [0, 1].

    AUROC and not log loss: the calibrator follows, and removes what smoothing, mixing and the kind of loss do
    to the scale of the logits. Not the best epoch: the result of a training run is that of its last one.
    """
    return fmean(line["validation_auroc"] for line in curve[-last_epochs:])


@dataclass(frozen=True)
class SweepContext:
    """Folders and records of a sweep."""

    space: Space
    study: Study
    runs: Path
    """Folder of all runs."""
    folder: Path
    """Of the study: results and the locks of its trials."""

    def lock_of(self, identity: str) -> Path:
        """Lock of one configuration's training run: two trials of any studies may draw the same values."""
        return self.folder.parent / "locks" / f"training-{identity[:32]}"

    @property
    def data_lock(self) -> Path:
        """Lock for taking over manifest and split from another run, and for removing one, of any study."""
        return self.folder.parent / "locks" / "data"

    def remove_ended_trials(self) -> None:
        """Remove the folders of pruned or failed trials that were killed before they could remove them."""
        states = (TrialState.PRUNED, TrialState.FAIL)
        ended = {trial.number for trial in self.study.get_trials(states=states)}
        for note in self.runs.glob(f"*/{NOTE_FILE}"):
            if lock := locks.try_lock(self.lock_of(config_identity(note.parent))):
                with lock:
                    self.remove(note.parent, *ended)

    def remove(self, folder: Path, *numbers: int) -> None:
        """Remove a folder if made for one of these trials, whose training will not go on; its lock is held.

        A folder from before the sweep, or whose training has been completed since, is kept.
        """
        note, ours = read_note(folder), [self.note_content(number) for number in numbers]
        if note in ours and not (folder / "stages" / "train.json").exists():
            with locks.hold_lock(self.data_lock):
                shutil.rmtree(folder)

    def note_content(self, number: int) -> dict[str, object]:
        """Content of the note in a trial's folder."""
        return {"study": self.study.study_name, "trial": number}


def read_note(folder: Path) -> object:
    """The trial that a run folder was made for; None: none, or it cannot be read."""
    try:
        return json.loads((folder / NOTE_FILE).read_bytes())
    except (OSError, ValueError):
        return None


@dataclass
class TrialRun:
    """A trial that this process is running."""

    context: SweepContext
    trial: Trial
    parent: str
    """MLflow id of the sweep's own run; may be empty."""
    seconds: dict[tuple[int, int], float] = field(default_factory=dict)
    """By seed and epoch."""

    def execute(self) -> None:
        """Train with each seed and report the outcome to the storage.

        Raises:
            LesionTriageError: an error that may not recur; the next command continues the trial.
        """
        space = self.context.space
        found = []
        for seed in range(space.settings.seeds):
            try:
                config = space.config(self.trial.params, seed)
            except ConfigError as error:
                self._fail(error)
                return
            with locks.hold_lock(self.context.lock_of(config.identity_sha256())):
                value = self._train(config, seed)
            if value is None:
                return
            found.append(value)
        self._end(TrialState.COMPLETE, "complete", fmean(found))

    def _train(self, config: Config, seed: int) -> float | None:
        """The value of one training run; None: the trial has ended here."""
        run = pipeline.open_run(config, self.context.runs)
        self._mark_folder(run)
        tracker = pipeline.open_tracker(run, self.parent)
        tracker.tags({"sweep.study": self.context.study.study_name, "sweep.trial": self.trial.number})
        state, status = "failed", "FAILED"
        watch = partial(self._on_epoch, config.train.epochs, seed)
        try:
            with locks.hold_lock(self.context.data_lock):
                for name in DATA_STAGES:
                    pipeline.ensure_stage(pipeline.STAGES[name], run, tracker)
            self._ensure_trained(
                replace(pipeline.STAGES["train"], work=partial(pipeline.train, watch=watch)), run, tracker
            )
            curve: list[Line] = json.loads((run.folder / pipeline.CURVE).read_text(encoding="utf-8"))
            for line in curve:  # a run that existed already has reported nothing
                self._report(line, seed)
            value = objective(curve, self.context.space.settings.last_epochs)
            tracker.metrics({"sweep.value": value})
            state, status = "complete", "FINISHED"
            return value
        except (_Pruned, DivergedError) as ended:
            echo(f"  {ended}")
            state, status = ("pruned" if isinstance(ended, _Pruned) else "diverged"), "KILLED"
            self._end(TrialState.PRUNED, state)
            self.context.remove(run.folder, self.trial.number)
            return None
        except RetryableTrainingError:
            raise
        except (TrainingError, ExportError) as error:  # with these values it would recur every time
            self._fail(error)
            self.context.remove(run.folder, self.trial.number)
            return None
        except KeyboardInterrupt:
            state, status = "interrupted", "KILLED"
            raise
        finally:
            tracker.tags({"sweep.state": state})
            tracker.finish(status)

    def _ensure_trained(self, stage: pipeline.Stage, run: Run, tracker: Tracker) -> None:
        """Train; if an interrupted run's state is unusable, start over, as --fresh would."""
        try:
            pipeline.ensure_stage(stage, run, tracker)
        except TrainingStateError as error:
            echo(f"  {error} Training starts over.")
            pipeline.ensure_stage(stage, run, tracker, fresh=True)

    def _on_epoch(self, epochs: int, seed: int, line: Line) -> None:
        """Report an epoch, and stop the run if the pruner says so.

        Only the first seed is pruned, so that at each epoch every trial is compared by one training run.
        """
        newest = max(self._reported(), default=0)
        self._report(line, seed)
        epoch = int(line["epoch"])
        if seed == 0 and newest <= epoch < epochs and self.trial.should_prune():
            raise _Pruned(f"pruned after epoch {epoch}: other trials were better by then")

    def _report(self, line: Line, seed: int) -> None:
        epoch = int(line["epoch"])
        if seed == 0 and epoch not in self._reported():
            self.trial.report(line["validation_auroc"], epoch)
        self.seconds[seed, epoch] = line["seconds"]

    def _reported(self) -> Mapping[int, float]:
        return self.trial.storage.get_trial(self.trial._trial_id).intermediate_values

    def _mark_folder(self, run: Run) -> None:
        """Mark a folder that is new, or left by another trial, as this trial's."""
        there = {path.name for path in run.folder.iterdir()}
        if there <= {"config.yaml", "config.sha256"} or NOTE_FILE in there:
            note = canonical_json(self.context.note_content(self.trial.number))
            write_atomically(run.folder / NOTE_FILE, note.encode())

    def _fail(self, error: ConfigError | TrainingError | ExportError) -> None:
        echo(f"  failed: {error}")
        self.trial.set_user_attr(ERROR_ATTR, " ".join(str(error).split())[:1000])
        self._end(TrialState.FAIL, "failed")

    def _end(self, state: TrialState, why: str, value: float | None = None) -> None:
        self.trial.set_user_attr(SECONDS_ATTR, round(sum(self.seconds.values()), 1))
        self.trial.set_user_attr(OUTCOME_ATTR, why)
        self.context.study.tell(self.trial, value, state)
