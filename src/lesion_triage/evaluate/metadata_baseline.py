"""A baseline that sees no picture, only the columns of the table. Imports data and calibrate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.bootstrap import Estimate
from lesion_triage.calibrate.cases import Case
from lesion_triage.calibrate.clustered_proportions import has_clusters
from lesion_triage.calibrate.metrics import Sample, auroc_difference, auroc_with_interval
from lesion_triage.config import Evaluate
from lesion_triage.data.categorical import Categorical
from lesion_triage.data.cell_regression import fit_probabilities, one_hot_design, unique_cells
from lesion_triage.data.records import Record
from lesion_triage.evaluate.slices import MINIMUM_PER_CLASS, Outcomes

_TEXT_COLUMNS = ("sex", "anatom_site_general")
_AGE_BANDS = 8
_MAX_LEVELS = 50


class _Row(Protocol):
    """The columns that a record and a row of a predictions table share."""

    @property
    def sex(self) -> str: ...
    @property
    def age_approx(self) -> float | None: ...
    @property
    def anatom_site_general(self) -> str: ...
    @property
    def source(self) -> str: ...


@dataclass(frozen=True, slots=True)
class MetadataBaseline:
    """A logistic regression on the table's columns, fitted on the training split and measured here."""

    name: str
    title: str
    training_cases: int
    training_positives: int
    cases: int
    """Cases with a score of the model: both are measured on these."""
    auroc: Estimate | None
    model_auroc: Estimate | None
    difference: Estimate | None
    """AUROC of the model minus that of the baseline, on the same draws."""


def measure_metadata(
    training: Sequence[Record], cases: Sequence[Case], outcomes: Outcomes, config: Evaluate
) -> tuple[MetadataBaseline, ...]:
    """How well age, sex and site predict the label, and what the source and gaps in the table add.

    Args:
        training: labelled records of the training split; they are merged into one row per lesion.
        cases: all cases of the split that is measured.
        outcomes: of the same cases, in the same order.
        config: bootstrap draws and seed.

    Returns:
        Empty if a class has fewer than ten cases in training, or among those with a score.
    """
    lesions: dict[str, list[Record]] = {}
    for record in training:
        lesions.setdefault(record.case_id, []).append(record)
    training_labels = np.array(
        [any(r.needs_in_person for r in rows) for rows in lesions.values()], dtype=np.bool_
    )
    scored = np.isfinite(outcomes.scores)
    positive, scores = outcomes.positive[scored], outcomes.scores[scored]
    if any(min(int(of.sum()), int((~of).sum())) < MINIMUM_PER_CLASS for of in (training_labels, positive)):
        return ()
    measured = [case.rows for case, has in zip(cases, scored, strict=True) if has]
    rows: list[Sequence[_Row]] = [*lesions.values(), *measured]
    units = outcomes.units[scored]
    bootstrap_units = units if has_clusters(units) else None

    def auroc_of(predicted: NDArray[np.float64]) -> Estimate | None:
        return auroc_with_interval(
            Sample.of(predicted, positive), config.bootstrap_draws, config.seed, bootstrap_units
        )

    found = []
    for name, title, columns in (
        (
            "age_sex_site",
            "Age, sex and site",
            [one.fill_missing() for one in _build_columns(rows, training_labels.size, ())],
        ),
        (
            "with_source_and_gaps",
            "The same, the source, and what is left empty",
            _build_columns(rows, training_labels.size, ("source",)),
        ),
    ):
        predicted = _fit_and_predict(columns, training_labels)
        found.append(
            MetadataBaseline(
                name=name,
                title=title,
                training_cases=training_labels.size,
                training_positives=int(training_labels.sum()),
                cases=positive.size,
                auroc=auroc_of(predicted),
                model_auroc=auroc_of(scores),
                difference=auroc_difference(
                    scores, predicted, positive, config.bootstrap_draws, config.seed, bootstrap_units
                ),
            )
        )
    return tuple(found)


def _build_columns(
    rows: Sequence[Sequence[_Row]], training: int, extra_columns: Sequence[str]
) -> list[Categorical]:
    """Age in bands by quantiles of the training cases, and the text columns; '' where unknown."""
    ages = np.array(
        [next((row.age_approx for row in case if row.age_approx is not None), np.nan) for case in rows],
        dtype=np.float64,
    )
    known = ages[:training][np.isfinite(ages[:training])]
    edges = (
        np.unique(np.quantile(known, np.linspace(0, 1, _AGE_BANDS + 1)[1:-1])) if known.size else np.zeros(0)
    )
    bands = np.where(np.isfinite(ages), np.searchsorted(edges, ages, side="right") + 1, 0).astype(np.intp)
    words = [
        Categorical.from_values(
            next((getattr(row, name) for row in case if getattr(row, name)), "") for case in rows
        )
        for name in (*_TEXT_COLUMNS, *extra_columns)
    ]
    age = Categorical(bands, ("", *(f"band {number}" for number in range(edges.size + 1))))
    return [one.merge_rare(_MAX_LEVELS) for one in (age, *words)]


def _fit_and_predict(
    columns: Sequence[Categorical], training_labels: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Fit on the first rows, whose labels are given; return the probabilities of the other rows."""
    cells, cell_of_row = unique_cells(columns)
    counts = np.zeros((2, len(cells)))
    np.add.at(counts, (training_labels.astype(np.intp), cell_of_row[: training_labels.size]), 1)
    return fit_probabilities(one_hot_design(columns, cells), counts)[cell_of_row[training_labels.size :]]
