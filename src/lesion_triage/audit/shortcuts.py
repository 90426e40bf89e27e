"""How well the table alone predicts the label: source, size, age and sex, and empty cells.

Imports data and this package. Only rows of train and validation are used, one for each unit and label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lesion_triage.audit.association import Association, associations, names_of
from lesion_triage.audit.baselines import (
    Auroc,
    auroc_interval,
    cross_fitted_auroc,
    unit_folds,
    within_fold_auroc,
)
from lesion_triage.audit.columns import Columns
from lesion_triage.audit.findings import (
    Finding,
    Measurement,
    Table,
    Verdict,
    not_estimable,
    verdict_for,
    worst,
)
from lesion_triage.audit.raw_tables import EmptyCells
from lesion_triage.calibrate.metrics import proportion
from lesion_triage.config import Audit
from lesion_triage.data.categorical import Bools, Categorical, Codes, quantile_bins

METADATA = ("sex", "anatom_site_general")
"""With ``age_approx``: what a baseline without a picture may use."""
FIELDS = ("patient_id", "sex", "age_approx", "anatom_site_general", "image_type", "fitzpatrick_skin_type")
"""Fields of a record whose emptiness is tested; those of the diagnosis are the label itself."""

_MIN_CONTRIBUTION = 0.03
"""A source that contributes this much to the AUROC is named."""
_MAX_SOURCES = 50
_FEW_ROWS = "fewer than ten positive or negative rows"


@dataclass(frozen=True)
class RowSample:
    """The representative rows, by columns."""

    columns: Columns
    rows: Codes
    config: Audit

    @classmethod
    def draw(cls, columns: Columns, config: Audit) -> RowSample:
        """Draw them."""
        return cls(columns, columns.representatives(config.seed), config)

    @property
    def positive(self) -> Bools:
        """The label of each row."""
        return np.asarray(self.columns.positive[self.rows] == 1)

    def auroc(self, columns: Sequence[Categorical]) -> Auroc:
        """Cross-fitted AUROC of columns of these rows."""
        return cross_fitted_auroc(columns, self.positive, self.folds())[0]

    def folds(self) -> Codes:
        """Fold of each row, for cross-fitting."""
        return unit_folds(self.columns.unit[self.rows], self.config.seed)


def auroc_finding(
    code: str, what: str, found: Auroc, config: Audit, subjects: tuple[str, ...] = ()
) -> Finding:
    """A finding on an AUROC that should be near one half."""
    if np.isnan(found.value):
        return not_estimable(code, f"{_FEW_ROWS} ({what})")
    verdict = verdict_for(found.low, config.warn_auroc, config.fail_auroc)
    return Finding(
        code,
        verdict,
        f"{what[0].upper()}{what[1:]} alone ranks positives above negatives with an AUROC of "
        f"{found.value:.3f} ({found.low:.3f} to "
        f"{found.high:.3f}){', mostly by ' + ', '.join(subjects) if subjects else ''}.",
        (auroc_measurement(f"AUROC of {what}", found, config),),
        subjects,
    )


def auroc_measurement(what: str, found: Auroc, config: Audit | None = None, note: str = "") -> Measurement:
    """An AUROC as an entry of the report; with ``config``, its limits are stated."""
    if np.isnan(found.value):
        return Measurement(what, None, note="not estimable")
    limit = f"interval above {config.warn_auroc:g} warns, above {config.fail_auroc:g} fails" if config else ""
    return Measurement(what, found.value, found.low, found.high, limit, note)


def source_shortcut(sampled: RowSample) -> tuple[Finding, Table]:
    """How well the source alone predicts the label, and which of the sources are responsible."""
    source = sampled.columns.categorical("source").take(sampled.rows).merge_rare(_MAX_SOURCES)
    positive, fold = sampled.positive, sampled.folds()
    found, scores = cross_fitted_auroc([source], positive, fold)
    rows: list[tuple[str | int | float | None, ...]] = []
    contributors: list[tuple[float, str]] = []
    for code in np.argsort(-np.bincount(source.codes, minlength=len(source.levels)), kind="stable"):
        here = source.codes == code
        if not here.any():
            continue
        share = proportion(int(positive[here].sum()), int(here.sum()))
        without = float("nan")
        if scores is not None:
            without = within_fold_auroc(scores[~here], positive[~here], fold[~here])
        contribution = found.value - without if np.isfinite(without) else found.value - 0.5
        others = float(positive[~here].mean()) if (~here).any() else share.value
        name = source.levels[code] or "unknown"
        rows.append(
            (name, share.trials, share.successes, share.value, share.low, share.high, *_cell_or_none(without))
        )
        if contribution >= _MIN_CONTRIBUTION and not share.low <= others <= share.high:
            contributors.append((-contribution, name))
    finding = auroc_finding("source_shortcut", "the source", found, sampled.config)
    if finding.verdict is not Verdict.PASS:
        named = tuple(name for _, name in sorted(contributors))
        finding = auroc_finding("source_shortcut", "the source", found, sampled.config, named)
    return finding, Table(
        "sources",
        "Share of positives by source, with exact 95 % intervals, on one photograph of each unit and "
        "label of train and validation; and the AUROC of the source alone without that source's rows.",
        ("source", "rows", "positives", "share", "from", "to", "AUROC without it"),
        tuple(rows),
    )


def size_shortcut(sampled: RowSample) -> Finding:
    """Width and height: their quantiles, their ratio, and the commonest exact sizes."""
    width = sampled.columns.numeric("width_px")[sampled.rows]
    height = sampled.columns.numeric("height_px")[sampled.rows]
    exact = np.unique(width * 1e6 + height, return_inverse=True)[1]
    levels = tuple(str(number) for number in range(int(exact.max(initial=-1)) + 1))
    columns = [Categorical(exact, levels), quantile_bins(width * height), quantile_bins(width / height)]
    return auroc_finding("size_shortcut", "the size in pixels", sampled.auroc(columns), sampled.config)


def metadata_columns(sampled: RowSample) -> list[Categorical]:
    """Age by decade, sex and site; unknown becomes the most common value, so that gaps reveal nothing."""
    ages = quantile_bins(sampled.columns.numeric("age_approx")[sampled.rows], 8)
    return [
        one.fill_missing()
        for one in (ages, *(sampled.columns.categorical(name).take(sampled.rows) for name in METADATA))
    ]


def metadata_baseline(sampled: RowSample) -> Finding:
    """What a model must beat. It is not a fault, so it always passes."""
    without_gaps = sampled.auroc(metadata_columns(sampled))
    gaps = [
        quantile_bins(sampled.columns.numeric("age_approx")[sampled.rows], 8),
        *(sampled.columns.categorical(name).take(sampled.rows) for name in METADATA),
    ]
    with_gaps = sampled.auroc(gaps)
    if np.isnan(without_gaps.value):
        return Finding("metadata_baseline", Verdict.PASS, "Not estimable: fewer than ten rows of a class.")
    return Finding(
        "metadata_baseline",
        Verdict.PASS,
        f"Age, sex and site alone reach an AUROC of {without_gaps.value:.3f} ({without_gaps.low:.3f} to "
        f"{without_gaps.high:.3f}); with empty cells as a category, {with_gaps.value:.3f}.",
        (
            auroc_measurement("AUROC of age, sex and site", without_gaps),
            auroc_measurement("the same, with unknown as a category of its own", with_gaps),
        ),
    )


def missingness(sampled: RowSample, tables: EmptyCells) -> tuple[Finding, tuple[Association, ...]]:
    """For every column of manifest and tables: is it empty mainly for one class?

    Args:
        sampled: the rows.
        tables: empty cells of the dataset's own tables; an unreadable table warns, since it may have gaps.
    """
    config, positive = sampled.config, sampled.positive
    gaps = {name: sampled.columns.categorical(name).take(sampled.rows).is_missing() for name in FIELDS}
    gaps |= {name: empty[sampled.rows] for name, empty in tables.empty.items()}
    found = tuple(associations(gaps, positive))
    patterns = [Categorical(gaps[one.names[0]].astype(np.intp), ("there", "")) for one in found]
    combined = sampled.auroc(patterns) if patterns else auroc_interval(0.5, 0, 0)
    associated = [one for one in found if one.verdict(config) is not Verdict.PASS]
    combined_verdict = (
        verdict_for(combined.low, config.warn_auroc, config.fail_auroc) if patterns else Verdict.PASS
    )
    verdict = worst([combined_verdict, *(one.verdict(config) for one in found)])
    names = names_of([one for one in associated if one.verdict(config) is verdict] or associated)
    all_gaps = "" if np.isnan(combined.value) else f" (AUROC of all gaps together {combined.value:.3f})"
    if not found:
        summary = f"None of {len(gaps)} columns is empty in some rows and filled in others."
    elif associated:
        one = associated[0]
        summary = (
            f"{one.names[0]} is empty for {one.share_positive:.1%} of the positives and "
            f"{one.share_negative:.1%} of the negatives; in all, empty cells predict the label in "
            f"{len(names_of(associated))} columns{all_gaps}."
        )
    elif np.isnan(combined.value):
        verdict, summary = Verdict.WARN, not_estimable("missingness", _FEW_ROWS).summary
    elif combined_verdict is not Verdict.PASS:
        summary = (
            f"The empty cells of {len(names_of(found))} columns together predict the label (AUROC "
            f"{combined.value:.3f}, {combined.low:.3f} to {combined.high:.3f}), although no single column "
            "reliably does."
        )
    else:
        summary = f"None of {len(names_of(found))} columns with gaps is empty more often for one class."
    if tables.unmatched:
        summary += f" Not checked, because no column names the pictures: {', '.join(tables.unmatched)}."
    if tables.unreadable:
        verdict = worst([verdict, Verdict.WARN])
        summary += (
            " Not checked, because it cannot be read as a UTF-8 table with a header and rows of one "
            f"length: {', '.join(tables.unreadable)}."
        )
    numbers = (
        *((auroc_measurement("AUROC of all gaps together", combined, config),) if patterns else ()),
        *(one.to_measurement(config) for one in found),
    )
    return Finding("missingness", verdict, summary, numbers, names), found


def _cell_or_none(value: float) -> tuple[float | None]:
    return (value if np.isfinite(value) else None,)
