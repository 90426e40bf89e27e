"""The file of a search space, checked against the configuration before anything starts.

Imports the configuration vocabulary; nothing of the search itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from lesion_triage import config_file, strict_yaml
from lesion_triage.config import Config, Section
from lesion_triage.errors import ConfigError, hint

SETTINGS = "sweep"

Scalar = bool | int | float | str
_Model = TypeVar("_Model", bound=BaseModel)


class Settings(Section):
    """How the search is done: the optional section ``sweep`` of the file."""

    pruner: Literal["median", "hyperband", "none"] = "median"
    """median: stop a trial that is below the others' median at its epoch. hyperband: successive halving."""
    startup_trials: int = Field(default=8, ge=1)
    """Number of trials drawn at random first; the median stops none before this many have ended."""
    spare_epochs: int = Field(default=2, ge=0)
    """No trial is stopped within this many first epochs: during warm-up the curve says little."""
    last_epochs: int = Field(default=3, ge=1)
    """The value of a training run is the mean validation AUROC of this many last epochs; 1: only the last."""
    seeds: int = Field(default=1, ge=1, le=20)
    """Training runs per trial, with ``seed``, ``seed`` + 1 and so on; the value is their mean."""
    seed: int = Field(default=0, ge=0)
    """Seed of the search's random draws."""


class _Interval(Section):
    """From ``low`` to ``high``, both included."""

    low: Annotated[float, Field(allow_inf_nan=False)]
    high: Annotated[float, Field(allow_inf_nan=False)]
    log: bool = False
    """Draw uniformly on a logarithmic scale."""
    step: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


@dataclass(frozen=True)
class Choices:
    """One of these values."""

    values: tuple[Scalar, ...]

    def corners(self) -> tuple[Scalar, ...]:
        """All of them."""
        return self.values


@dataclass(frozen=True)
class Interval:
    """A number from ``low`` to ``high``, both included."""

    low: float
    high: float
    log: bool
    step: float | None
    whole: bool
    """Whole numbers only."""

    def corners(self) -> tuple[Scalar, ...]:
        """Both ends."""
        return (self.low, self.high)


Domain = Choices | Interval


@dataclass(frozen=True)
class Space:
    """Which keys are searched, and how."""

    base: Config
    domains: Mapping[str, Domain]
    """By dotted key, in the order of the file."""
    settings: Settings

    def config(self, values: Mapping[str, Scalar], seed: int = 0) -> Config:
        """The configuration of one trial.

        Args:
            values: by dotted key.
            seed: number of the training run within the trial; added to the configuration's own seed.

        Raises:
            ConfigError: the values do not go together.
        """
        tree = self.base.model_dump(mode="json")
        tree["seed"] += seed
        for key, value in values.items():
            *sections, last = key.split(".")
            place = tree
            for section in sections:
                place = place[section]
            place[last] = value
        said = ", ".join(f"{key}: {value}" for key, value in values.items())
        return config_file.validated(tree, said)

    def document(self, shareable: bool = False) -> dict[str, Any]:
        """Plain values that say what is searched and how.

        Args:
            shareable: for other people: without the folders of files of weights.
        """
        domains = {
            key: [without_folder(key, value) if shareable else value for value in domain.values]
            if isinstance(domain, Choices)
            else vars(domain)
            for key, domain in self.domains.items()
        }
        return {SETTINGS: self.settings.model_dump(mode="json"), **domains}


def without_folder(key: str, value: Scalar) -> Scalar:
    """A value as it may leave this machine: of a file of weights the name, not the folder."""
    return Path(str(value)).name if key == "model.weights" else value


def read(path: Path, base: Config, seeds: int | None = None) -> Space:
    """Read a search space for this configuration.

    Args:
        path: YAML: dotted keys of the configuration, each with a list of values or with ``low`` and
            ``high``; and the section ``sweep``.
        base: the configuration that everything else is taken from.
        seeds: overrides ``sweep.seeds`` of the file; None: the file's.

    Raises:
        ConfigError: not a mapping, an unknown key, one that does not affect what is learnt, or a value that
            the configuration refuses, alone or in combination.
    """
    try:
        tree = strict_yaml.parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a search space ({error}).") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and their values, found {type(tree).__name__}.")
    said = tree.pop(SETTINGS, None) or {}
    if isinstance(said, dict) and seeds is not None:
        said = {**said, "seeds": seeds}
    settings = _parsed(Settings, said, f"{path}: {SETTINGS}")
    if not tree:
        raise ConfigError(
            f"{path}: no key to search, such as train.learning_rate: {{low: 1e-4, high: 3e-3}}."
        )
    known = dict(_leaves(base))
    domains = {
        str(key): _domain(f"{path}: '{key}'", _searchable_value(known, str(key), path), content)
        for key, content in tree.items()
    }
    space = Space(base, domains, settings)
    return Space(base, {key: _validated_domain(space, key, path) for key in domains}, settings)


def _searchable_value(known: Mapping[str, Any], key: str, path: Path) -> Any:
    """The configuration's own value of a key that may be searched."""
    if key not in known:
        what = hint(key, known, "docs/configuration.md lists all of them.")
        raise ConfigError(f"{path}: unknown key '{key}'; {what}")
    if key == "seed":
        raise ConfigError(f"{path}: 'seed' is not a key to search; --seeds trains each trial with several.")
    if not key.startswith(("train.", "model.")) and key != "pixels.size_px":
        raise ConfigError(
            f"{path}: '{key}' does not decide what a network learns from the same pictures; a sweep searches "
            "keys of train and model, and pixels.size_px."
        )
    return known[key]


def _domain(where: str, own: Any, content: Any) -> Domain:
    if isinstance(content, list):
        if not all(isinstance(value, Scalar) for value in content):
            raise ConfigError(f"{where}: a list holds plain values, found {content!r}.")
        if len(content) < 2:
            raise ConfigError(
                f"{where}: found {content!r}; put a key with a single value in the configuration instead."
            )
        return Choices(tuple(content))
    if not isinstance(content, dict):
        raise ConfigError(
            f"{where}: expected a list of values, or low and high, found {content!r}; put a key with a "
            "single value in the configuration instead."
        )
    if isinstance(own, bool) or not isinstance(own, int | float):
        raise ConfigError(f"{where}: low and high are for numbers; list the values instead.")
    said = _parsed(_Interval, content, where)
    whole = isinstance(own, int)
    if said.low >= said.high:
        raise ConfigError(f"{where}: low must lie below high, found {said.low:g} and {said.high:g}.")
    if said.log and (said.low <= 0 or said.step is not None):
        raise ConfigError(f"{where}: log takes a low above 0, and no step.")
    numbers = (said.low, said.high, said.step or 1.0)
    if whole and any(not number.is_integer() for number in numbers):
        raise ConfigError(f"{where}: expected whole numbers only, found {content!r}.")
    if said.step is not None and not math.isclose(
        (ratio := (said.high - said.low) / said.step), round(ratio)
    ):
        raise ConfigError(f"{where}: {said.step:g} steps do not lead from {said.low:g} to {said.high:g}.")
    if whole:
        return Interval(int(said.low), int(said.high), said.log, said.step and int(said.step), True)
    return Interval(said.low, said.high, said.log, said.step, False)


def _validated_domain(space: Space, key: str, path: Path) -> Domain:
    """The domain with each value as the configuration reads it.

    Every value is tried with every value of every other key. Pairs suffice: no rule of the configuration
    involves more than two searchable keys.
    """
    domain = space.domains[key]
    firsts = {name: other.corners()[0] for name, other in space.domains.items()}
    others = [{name: value} for name, other in space.domains.items() for value in other.corners()]
    try:
        found = [space.config({**firsts, key: value}) for value in domain.corners()]
        for value in domain.corners():
            for other in others:
                space.config({**firsts, **other, key: value})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    values = tuple(dict(_leaves(made))[key] for made in found)
    if len(set(values)) < len(values):
        raise ConfigError(f"{path}: '{key}' names a value twice: {list(domain.corners())!r}.")
    if len({_affected_recipe(made, key) for made in found}) < 2:
        raise ConfigError(f"{path}: '{key}' controls how training is run, not what is learnt; leave it out.")
    return domain if isinstance(domain, Interval) else Choices(values)


def _affected_recipe(made: Config, key: str) -> str:
    """The part of the recipe that the key's section affects."""
    return repr(made.train.recipe()) if key.startswith("train.") else repr((made.model, made.pixels))


def corners(domains: Mapping[str, Domain], keys: Sequence[str]) -> Iterator[dict[str, Scalar]]:
    """All combinations of values, or of interval ends, of those of the keys that are searched."""
    there = [key for key in keys if key in domains]
    for values in itertools.product(*(domains[key].corners() for key in there)):
        yield dict(zip(there, values, strict=True))


def _leaves(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _parsed(model: type[_Model], said: Any, where: str) -> _Model:
    try:
        return model.model_validate(said)
    except ValidationError as error:
        raise ConfigError(f"{where}: {config_file.error_sentence(error, model)}") from None
