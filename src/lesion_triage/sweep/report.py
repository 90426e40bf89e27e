"""The outcome of a sweep: the table of its trials, the best configuration, what it means. Imports Optuna."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import optuna
import yaml
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from lesion_triage import runs
from lesion_triage.audit.baselines import auroc_interval
from lesion_triage.bundle.files import write_atomically
from lesion_triage.config import Config
from lesion_triage.console import echo
from lesion_triage.sweep.space import Scalar, Space, without_folder
from lesion_triage.sweep.study import ENDED
from lesion_triage.sweep.trial import ERROR_ATTR, OUTCOME_ATTR, SECONDS_ATTR

TABLE, BEST = "trials.csv", "best.yaml"
_MIN_COMPLETE_TRIALS = 10  # complete trials needed to report importances

MEANING = (
    "Chosen on the validation split, so its cases are no longer held out: the value above is optimistic, "
    "as the best of {count}, and a calibrator fitted on the same cases may be slightly overconfident. The "
    "certificate does not rest on them: it is issued on the calibration cases, which no trial has seen. "
    "Keep the split and its seed: another one would put cases that this choice used into calibration and "
    "test. See docs/sweep.md."
)


def write(study: Study, space: Space, folder: Path, cases: tuple[int, int]) -> FrozenTrial | None:
    """Print the table and what it means; write ``trials.csv`` and ``best.yaml`` to the folder of the study.

    Args:
        study: the search so far.
        space: what was searched.
        folder: of the study.
        cases: positive and negative cases of the validation split.

    Returns:
        The best trial; None: none is complete.
    """
    trials = study.get_trials(deepcopy=False, states=(*ENDED, TrialState.RUNNING))
    rows = [_row(trial, list(space.domains)) for trial in sorted(trials, key=_rank)]
    header = ["trial", "state", "value", "epochs", "seconds", *space.domains]
    _print([header, *rows])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_atomically(folder / TABLE, text.getvalue().encode())
    for trial in (trial for trial in trials if trial.state is TrialState.FAIL):
        echo(f"Trial {trial.number} failed, and would again: {trial.user_attrs[ERROR_ATTR]}")
    if under_way := sum(trial.state is TrialState.RUNNING for trial in trials):
        echo(f"{under_way} running in other processes.")
    if not (complete := [trial for trial in trials if trial.state is TrialState.COMPLETE]):
        echo("No trial is complete, so there is no best one.")
        return None
    best = min(complete, key=_rank)
    assert best.value is not None
    _print_importance(study, space, len(complete))
    write_atomically(folder / BEST, _yaml(study, space, best).encode())
    interval = auroc_interval(best.value, *cases)
    close = sum(trial.value is not None and trial.value >= interval.low for trial in complete)
    echo(f"Best: trial {best.number}, value {best.value:.4f}: {folder / BEST}")
    echo(
        f"The validation split has {cases[0]} positive and {cases[1]} other cases: the 95 % interval of the "
        f"best AUROC is {interval.low:.3f} to {interval.high:.3f}, and {close} of {len(complete)} complete "
        "trials are within it. Trials share their cases, so their order is more certain than that, but "
        "small differences are noise: try other seeds."
    )
    judged = (TrialState.COMPLETE, TrialState.PRUNED)
    echo(MEANING.format(count=sum(trial.state in judged for trial in trials)))
    return best


def best_config(space: Space, best: FrozenTrial) -> Config:
    """The best trial's configuration, with its first seed and with absolute paths."""
    return runs.with_absolute_paths(space.config(best.params))


def _yaml(study: Study, space: Space, best: FrozenTrial) -> str:
    values = yaml.safe_dump(best.params, sort_keys=False, default_flow_style=True, width=10_000).strip()
    return (
        f"# Chosen by `lesion-triage sweep` on the validation split, which is therefore no longer held out.\n"
        f"# Study {study.study_name}, trial {best.number}, value {best.value:.6f}: {values}\n"
        f"{best_config(space, best).to_yaml()}"
    )


def _rank(trial: FrozenTrial) -> tuple[int, float, int]:
    """Sort key: complete trials from the best down, then pruned, failed, running; ties by number."""
    order = ENDED.index(trial.state) if trial.state in ENDED else len(ENDED)
    return order, -(trial.value or 0.0), trial.number


def _row(trial: FrozenTrial, keys: Sequence[str]) -> list[str]:
    curve = trial.intermediate_values
    state = trial.user_attrs.get(OUTCOME_ATTR, "pruned") if trial.state in ENDED else "under way"
    value = "" if trial.value is None else f"{trial.value:.4f}"
    seconds = trial.user_attrs.get(SECONDS_ATTR)
    return [
        str(trial.number),
        state,
        value,
        str(max(curve, default=0)),
        "" if seconds is None else f"{seconds:.0f}",
        *(_short(without_folder(key, trial.params[key])) if key in trial.params else "" for key in keys),
    ]


def _short(value: Scalar) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_importance(study: Study, space: Space, complete: int) -> None:
    """Print the share of the variance that each key explains; with few trials it would mean nothing."""
    if complete < _MIN_COMPLETE_TRIALS or len(space.domains) < 2:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = optuna.importance.get_param_importances(study)
    listed = ", ".join(f"{key} {share:.2f}" for key, share in shares.items())
    echo(f"What distinguished good trials (PED-ANOVA, shares; only a hint with {complete} trials): {listed}.")
