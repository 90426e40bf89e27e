"""The search: what is checked first, trials until enough have ended, and what is reported at the end.

Imports the pipeline, and of the training library only what builds a network.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lesion_triage import config_file, locks, pipeline, runs
from lesion_triage.bundle.document import canonical_json
from lesion_triage.config import Config
from lesion_triage.console import echo
from lesion_triage.errors import ConfigError, TrainingError
from lesion_triage.runs import Run
from lesion_triage.sweep import report, space, study, trial
from lesion_triage.sweep.space import Space
from lesion_triage.tracking import Tracker

_NETWORK_KEYS = (
    "model.backbone",
    "model.weights",
    "model.drop_path_rate",
    "pixels.size_px",
    "train.frozen_stages",
    "train.small_first",
    "train.probe",
)


def search(arguments: argparse.Namespace) -> None:
    """Work on the study until enough trials have ended, and print the outcome."""
    base = config_file.load(arguments.config, arguments.overrides, arguments.data_root)
    searched = space.read(arguments.space, base, arguments.seeds)
    _require_one_process(searched)
    _require_curves(base, arguments.config)
    _require_networks(searched, arguments.space)
    run = _prepare_data(base, arguments.runs)
    _require_batches(searched, arguments.space, run)
    cases = _count_cases(run)
    name = f"{base.name}-{_study_key(run, searched)[:12]}"
    folder = arguments.runs.parent / "sweeps" / name
    folder.mkdir(parents=True, exist_ok=True)
    url = arguments.storage or f"sqlite:///{folder.parent.resolve() / 'studies.db'}"
    epochs = max(made.train.epochs for made in _corner_configs(searched, ("train.epochs",)))
    echo(f"study {name}: {folder}")
    with locks.hold_lock(folder / study.LOCK):  # one process creates the tables, and one the run in MLflow
        tracker = Tracker(base, folder, echo)
        with study.open_study(url, name, searched.settings, epochs) as made:
            made.set_user_attr("space", searched.document())
    tracker.tags({"sweep.study": name})
    tracker.text(canonical_json(searched.document(shareable=True)), "space.json")
    status = "KILLED"
    try:
        with study.open_study(url, name, searched.settings, epochs) as made:
            context = trial.SweepContext(searched, made, arguments.runs, folder)
            context.remove_ended_trials()
            coordinator = study.TrialCoordinator(made, folder, searched.domains, arguments.take_over)
            while claimed := coordinator.claim(arguments.trials):
                taken, lock = claimed
                with lock:
                    said = ", ".join(f"{key} {value}" for key, value in taken.params.items())
                    echo(f"trial {taken.number}: {said}")
                    trial.TrialRun(context, taken, tracker.run_id).execute()
            with locks.hold_lock(folder / study.LOCK):  # the last to write has counted all trials
                best = report.write(made, searched, folder, cases)
        if best is not None and best.value is not None:
            tracker.metrics({"sweep.best": best.value})
            tracker.text(pipeline.config_text(report.best_config(searched, best)), "best.json")
            tracker.artifact(folder / report.TABLE)
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        tracker.finish(status)


def _require_one_process(searched: Space) -> None:
    if not pipeline.is_single_process(searched.base):
        raise ConfigError(
            "a sweep trains each trial in one process; set train.devices to 1, and for several GPUs give the "
            "same command once for each, with CUDA_VISIBLE_DEVICES."
        )


def _require_curves(base: Config, path: Path) -> None:
    if base.ensemble.size > 1 and base.ensemble.combine == "average":
        raise ConfigError(
            f"{path}: a sweep compares learning curves, and an average of {base.ensemble.size} networks has "
            "none; give --set ensemble.members=1 --set 'ensemble.backbones=[]' and search for one network."
        )


def _corner_configs(searched: Space, keys: tuple[str, ...]) -> list[Config]:
    firsts = {key: domain.corners()[0] for key, domain in searched.domains.items()}
    return [searched.config({**firsts, **values}) for values in space.corners(searched.domains, keys)]


def _require_networks(searched: Space, path: Path) -> None:
    """Build every shape of network in the space, without weights, rather than fail hours later.

    Raises:
        ConfigError: a backbone that timm does not know, that lacks pretrained weights although they are
            asked for or that does not take pictures of one of the sides, or too many frozen stages.
    """
    from lesion_triage.train import preflight  # noqa: PLC0415 - seconds to import

    for made in _corner_configs(searched, _NETWORK_KEYS):
        try:
            preflight.check_network(made)
        except TrainingError as error:
            raise ConfigError(f"{path}: {error}") from None


def _require_batches(searched: Space, path: Path, run: Run) -> None:
    """Check that the split holds a batch of every size.

    Raises:
        ConfigError: one is larger than the split.
    """
    from lesion_triage.train import data_loading  # noqa: PLC0415 - seconds to import

    length = len(pipeline.records(run, "train"))
    for made in _corner_configs(searched, ("train.batch_size",)):
        try:
            data_loading.batch_order(made, length, 0, 1, 0)
        except TrainingError as error:
            raise ConfigError(f"{path}: {error}") from None


def _prepare_data(base: Config, root: Path) -> Run:
    """Manifest and split, which all trials take over, after checking that they can be trained on."""
    untracked = base.model_copy(update={"tracking": base.tracking.model_copy(update={"enabled": False})})
    with locks.hold_lock(root.parent / "sweeps" / "prepare.lock"):
        run = pipeline.open_run(base, root)
        tracker = Tracker(untracked, run.folder, echo)
        for name in trial.DATA_STAGES:
            pipeline.ensure_stage(pipeline.STAGES[name], run, tracker)
    return run


def _count_cases(run: Run) -> tuple[int, int]:
    """Positive and negative cases of the validation split."""
    labels: dict[str, bool] = {}
    for record in pipeline.records(run, "validation"):
        labels[record.case_id] = labels.get(record.case_id, False) or bool(record.needs_in_person)
    return sum(labels.values()), len(labels) - sum(labels.values())


def _study_key(run: Run, searched: Space) -> str:
    """Hash of all that a value depends on: another recipe, picture, split or space is another study.

    Files of weights that the space lists count by path: one may come after the study has begun.
    """
    return runs.inputs_sha256(
        training=pipeline.training_key(run), base=run.config.identity_sha256(), space=searched.document()
    )
