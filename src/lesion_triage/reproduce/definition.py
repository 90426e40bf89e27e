"""What an experiment is: ``experiment.yaml``, strictly validated. Imports config and the YAML reader."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from lesion_triage import strict_yaml
from lesion_triage.bundle.document import first_problem
from lesion_triage.config import Section
from lesion_triage.errors import ConfigError

DEFINITION_FILE = "experiment.yaml"

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Sentence = Annotated[str, Field(min_length=10)]
NonNegative = Annotated[float, Field(ge=0)]
KeepDocument = Annotated[bool, Field(description="whether the step's document is kept and compared")]


class Dataset(Section):
    """Pictures that an experiment needs but does not include."""

    name: Name
    """Its name in the steps."""
    folder: str = ""
    """Below ``--data-root``; empty: named like the dataset."""
    catalogue: str = ""
    """Its entry in ``lesion-triage datasets``; empty: none."""
    what: Sentence
    """Which pictures, in words."""
    optional: bool = False
    """If it is not at hand, the cells that need it are left out, and this is reported."""


class Train(Section):
    """A full run for each seed; the document is the evaluation's ``results.json``."""

    kind: Literal["train"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*(\{seed\})?$")]
    """Name of the document; ``{seed}`` stands for the seed."""
    config: str
    """Relative to the experiment's folder."""
    set: tuple[str, ...] = ()
    """Overrides, ``key=value``."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    data: Name | None = None
    """None: synthetic pictures."""
    splits: str | None = None
    """Published splits, relative to the experiment's folder, which the run's splits must equal."""
    until: Literal["train", "evaluate"] = "evaluate"
    """``train`` leaves no document: a script continues from there."""
    keep: KeepDocument = True

    @model_validator(mode="after")
    def _check_seed_in_name(self) -> Self:
        if len(self.seeds) > 1 and "{seed}" not in self.name:
            raise ValueError(f"step '{self.name}' has several seeds; end its name with {{seed}}")
        return self

    def documents(self) -> tuple[str, ...]:
        """Names of the runs and of their documents."""
        return tuple(self.name.format(seed=seed) for seed in self.seeds)


class SingleDocumentStep(Section):
    """What all steps except training have in common: one document each."""

    name: Name
    keep: KeepDocument = True

    def documents(self) -> tuple[str, ...]:
        """The one document."""
        return (self.name,)


class Transfer(SingleDocumentStep):
    """A bundle on another dataset, as in ``lesion-triage transfer``."""

    kind: Literal["transfer"]
    bundle: str
    """Name of the run whose bundle it is."""
    config: str
    set: tuple[str, ...] = ()
    data: Name | None = None
    split: Literal["all", "test"] = "all"


class Robustness(SingleDocumentStep):
    """A run's corrupted test photographs, as in ``lesion-triage robustness``."""

    kind: Literal["robustness"]
    run: str
    others: Annotated[int, Field(ge=1)] = 150
    severities: Annotated[tuple[Literal[1, 2, 3, 4, 5], ...], Field(min_length=1)] = (1, 2, 3, 4, 5)
    show: tuple[Name, ...] = ()
    """Datasets that show something else."""


class Coverage(SingleDocumentStep):
    """Calibration sets drawn from recorded scores, as in ``lesion-triage proof``."""

    kind: Literal["coverage"]
    scores: str
    draws: Annotated[int, Field(ge=100)]
    seed: int = 0
    mapie: bool = False


class Queue(SingleDocumentStep):
    """The reading queue, as in ``lesion-triage queue``."""

    kind: Literal["queue"]
    scores: str | None = None
    """Recorded cases, relative to the experiment's folder; None: drawn as the arguments say."""
    arguments: tuple[str, ...]


class Script(SingleDocumentStep):
    """A program in the experiment's folder that writes a JSON file."""

    kind: Literal["script"]
    script: str
    arguments: tuple[str, ...]
    """``{out}``: the file to write; ``{run:NAME}``, ``{data:NAME}``: folders."""
    runs: tuple[str, ...] = ()
    """Runs whose folders are appended to the arguments."""
    data: tuple[Name, ...] = ()

    def input_runs(self) -> tuple[str, ...]:
        """Every run that it is given, each once."""
        named = (name for word in self.arguments for name in re.findall(r"\{run:([^{}]*)\}", word))
        return tuple(dict.fromkeys((*self.runs, *named)))


Step = Annotated[Train | Transfer | Robustness | Coverage | Queue | Script, Field(discriminator="kind")]


class Tolerance(Section):
    """Lines of the expected table: which cells, how far they may differ from the record, and why."""

    cells: Annotated[str, Field(min_length=1)]
    """A pattern with ``*``; if several lines match a cell, the first counts."""
    within: NonNegative | None = None
    """Largest difference on any machine; None: not compared on another machine."""
    on_same_machine: NonNegative | None = None
    """Largest difference if processor, threads and packages are those of the record."""
    because: Sentence

    @model_validator(mode="after")
    def _check_any_tolerance(self) -> Self:
        if self.within is None and self.on_same_machine is None:
            raise ValueError(f"'{self.cells}' states no tolerance: give within, on_same_machine or both")
        return self


class Version(Section):
    """The experiment at one size."""

    takes: Sentence
    """How long, on what."""
    shows: Sentence
    """What agreement shows, and what it cannot."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    table: Annotated[tuple[Tolerance, ...], Field(min_length=1)]

    def documents(self) -> tuple[str, ...]:
        """Documents that are kept and compared, in order."""
        return tuple(
            name
            for step in self.steps
            for name in step.documents()
            if step.keep and not (isinstance(step, Train) and step.until == "train")
        )

    def data(self) -> frozenset[str]:
        """Datasets used by any step."""
        return frozenset(_dataset_names(self.steps))

    def tolerance(self, cell: str) -> Tolerance | None:
        """The first matching line; None: the cell is not part of the table."""
        return next((line for line in self.table if fnmatchcase(cell, line.cells)), None)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        known: set[str] = set()
        runs: set[str] = set()
        for step in self.steps:
            for wanted in _input_runs(step):
                if wanted not in runs:
                    raise ValueError(
                        f"step '{step.name}' needs the run '{wanted}', which no earlier step makes"
                    )
            for name in step.documents():
                if name in known:
                    raise ValueError(f"two documents are called '{name}'")
                known.add(name)
            if isinstance(step, Train):
                runs.update(step.documents())
        return self


VersionName = Literal["full", "quick", "drawn"]


class Experiment(Section):
    """One folder in ``experiments/``."""

    asks: Sentence
    """The question, in one sentence."""
    data: tuple[Dataset, ...] = ()
    full: Version
    quick: Version
    """Minutes on two processor cores."""
    drawn: Version | None = None
    """Replaces quick in ``--quick`` if the pictures are not at hand; None: quick needs none."""

    @model_validator(mode="after")
    def _check_data(self) -> Self:
        declared = {one.name for one in self.data}
        for name, version in self.versions().items():
            if unknown := sorted(version.data() - declared):
                raise ValueError(f"'{name}' needs {', '.join(unknown)}, which 'data' does not describe")
        if self.drawn is not None and self.drawn.data():
            raise ValueError("'drawn' is for use without pictures, but names some")
        needs = {one.name for one in self.data if not one.optional}
        if self.quick.data() & needs and self.drawn is None:
            raise ValueError("'quick' needs pictures; say under 'drawn' what is done without them")
        return self

    def versions(self) -> dict[VersionName, Version]:
        """The versions that are defined."""
        found: dict[VersionName, Version] = {"full": self.full, "quick": self.quick}
        return found if self.drawn is None else {**found, "drawn": self.drawn}

    def dataset(self, name: str) -> Dataset:
        """The definition of a dataset."""
        return next(one for one in self.data if one.name == name)


def _dataset_names(steps: tuple[Step, ...]) -> Iterator[str]:
    for step in steps:
        if isinstance(step, Train | Transfer) and step.data is not None:
            yield step.data
        elif isinstance(step, Robustness):
            yield from step.show
        elif isinstance(step, Script):
            yield from step.data


def _input_runs(step: Step) -> tuple[str, ...]:
    if isinstance(step, Transfer):
        return (step.bundle,)
    if isinstance(step, Robustness):
        return (step.run,)
    return step.input_runs() if isinstance(step, Script) else ()


def load_experiment(folder: Path) -> Experiment:
    """Read ``experiment.yaml``.

    Raises:
        ConfigError: no such folder or file, not YAML, an unknown key, or parts that do not fit together.
    """
    path = folder / DEFINITION_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: cannot be read as an experiment ({error}); name a folder that holds {DEFINITION_FILE}."
        ) from None
    content = strict_yaml.parse(text, str(path))
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_problem(error, 'the file')}.") from None
