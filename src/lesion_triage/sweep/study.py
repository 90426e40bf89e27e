"""The record of a search in Optuna's storage: drawing, pruning and claiming trials. Imports Optuna.

A trial is never started twice. If its process died, another process continues the same trial, with the same
number and values. So a search that was killed and continued ends like one that was not.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from lesion_triage import locks
from lesion_triage.bundle.files import write_atomically
from lesion_triage.errors import RunError, first_line
from lesion_triage.sweep.space import Choices, Domain, Settings

ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
LOCK = "study.lock"
"""In the folder of a study: held while trials are claimed, and while the study is created or reported."""

_FOLDER_ID, _CLAIM_TOKEN = "place", "mark"
_STORAGE_ERRORS = (
    sqlalchemy.exc.SQLAlchemyError,
    optuna.exceptions.StorageInternalError,
    optuna.exceptions.UpdateFinishedTrialError,  # a trial taken over from a machine that was still working
)


class StatelessTPESampler(BaseSampler):
    """TPE (Bergstra et al., NeurIPS 2011) whose random numbers depend on the trial's number alone.

    A sampler with a state would start again in every process, and draw its first trials again.
    """

    def __init__(self, seed: int, startup_trials: int) -> None:
        self._seed = seed
        self._startup = startup_trials

    def _sampler(self, trial: FrozenTrial, name: str = "") -> TPESampler:
        position = hashlib.blake2b(f"{self._seed}:{trial.number}:{name}".encode(), digest_size=4)
        return TPESampler(n_startup_trials=self._startup, seed=int.from_bytes(position.digest()))

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Parameters that are drawn jointly."""
        return self._sampler(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values of these."""
        return self._sampler(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of a parameter that is drawn independently."""
        sampler = self._sampler(trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)


@contextmanager
def open_study(url: str, name: str, settings: Settings, epochs: int) -> Iterator[Study]:
    """The study with this name, created if missing.

    Args:
        url: of the database, as an SQLAlchemy URL.
        name: of the study.
        settings: how the search is done.
        epochs: most epochs of a trial.

    Raises:
        RunError: the database cannot be used, now or later.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = RDBStorage(url, engine_kwargs=_connect_args(url))
    except (ImportError, *_STORAGE_ERRORS) as error:  # no driver for this database, or no database
        raise _storage_error(url, error) from None
    try:
        yield optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize",
            sampler=StatelessTPESampler(settings.seed, settings.startup_trials),
            pruner=_pruner(settings, epochs),
            load_if_exists=True,
        )
    except _STORAGE_ERRORS as error:
        raise _storage_error(url, error) from None
    finally:
        storage.engine.dispose()


def _storage_error(url: str, error: Exception) -> RunError:
    why = first_line(error.__cause__ or error)
    return RunError(
        f"the storage {_without_password(url)} cannot be used ({type(error).__name__}: {why}); what was "
        "recorded is kept, and the same command continues from there."
    )


def _connect_args(url: str) -> dict[str, Any]:
    """Several processes write to one SQLite file: let them wait for a minute, not five seconds."""
    return {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}


def _without_password(url: str) -> str:
    try:
        return sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return "that --storage names"


def _pruner(settings: Settings, epochs: int) -> BasePruner:
    """Steps are epochs, counted from 1."""
    if settings.pruner == "median":
        return MedianPruner(settings.startup_trials, n_warmup_steps=settings.spare_epochs + 1)
    if settings.pruner == "hyperband":
        return HyperbandPruner(min_resource=settings.spare_epochs + 1, max_resource=max(epochs, 1))
    return NopPruner()


@dataclass(frozen=True)
class TrialCoordinator:
    """Where the processes that share a folder agree on who runs which trial."""

    study: Study
    folder: Path
    """Of this study, on a disk visible to all of them."""
    domains: Mapping[str, Domain]
    take_over: bool = False
    """Also take over trials started in another folder: only if nobody works there any more."""

    def claim(self, wanted: int) -> tuple[Trial, IO[str]] | None:
        """The next trial: one whose process died, else a new one; None if no trial is left to start.

        Args:
            wanted: total number of ended trials in the study, whatever their outcome.

        Returns:
            The trial with all its values, and an open file that holds its lock until closed.
        """
        with locks.hold_lock(self.folder / LOCK):
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                ours = self.take_over or trial.user_attrs.get(_FOLDER_ID) == self._folder_id()
                if ours and (lock := self._lock(trial)):
                    return self._with_values(trial), lock
            if len(self.study.get_trials(deepcopy=False, states=(*ENDED, TrialState.RUNNING))) >= wanted:
                return None
            # Not study.ask(): a kill right after it would leave a trial whose folder is unknown.
            token = secrets.token_hex(8)
            attributes = {_FOLDER_ID: self._folder_id(), _CLAIM_TOKEN: token}
            self.study.add_trial(optuna.create_trial(state=TrialState.RUNNING, user_attrs=attributes))
            running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            made = next(trial for trial in running if trial.user_attrs.get(_CLAIM_TOKEN) == token)
            lock = self._lock(made)
            assert lock is not None, "nobody else has seen this trial"
            return self._with_values(made), lock

    def _lock(self, trial: FrozenTrial) -> IO[str] | None:
        return locks.try_lock(self.folder / "locks" / f"trial-{trial.number:05d}")

    def _folder_id(self) -> str:
        """A random identifier, unique to the folder; the caller holds the study's lock."""
        path = self.folder / "place"
        if not path.exists():
            write_atomically(path, secrets.token_hex(8).encode())
        return path.read_text(encoding="utf-8")

    def _with_values(self, frozen: FrozenTrial) -> Trial:
        trial = Trial(self.study, frozen._trial_id)
        for key, domain in self.domains.items():
            trial._suggest(key, _distribution(domain))  # existing values are kept
        return trial


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Choices):
        return CategoricalDistribution(domain.values)
    if domain.whole:
        step = int(domain.step or 1)
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log, step=step)
    return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
