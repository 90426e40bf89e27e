"""From the test table and a sealed bundle to every number of the report.

Imports bundle, predictions, calibrate, config and this package's subgroups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lesion_triage.bundle.document import canonical_json
from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.schema import Disposition
from lesion_triage.bundle.store import Bundle
from lesion_triage.calibrate.bootstrap import Estimate
from lesion_triage.calibrate.cases import unit_indices
from lesion_triage.calibrate.clustered_proportions import clustered_proportion, has_clusters
from lesion_triage.calibrate.curves import (
    Bin,
    Curve,
    Histogram,
    precision_recall_curve,
    reliability,
    roc_curve,
    score_histogram,
)
from lesion_triage.calibrate.decision_analysis import (
    BONFERRONI_PAIR_CONFIDENCE,
    NetBenefit,
    PredictiveValues,
    net_benefit,
    predictive_values,
)
from lesion_triage.calibrate.metrics import Proportion, Sample
from lesion_triage.config import Evaluate
from lesion_triage.data.records import Record
from lesion_triage.evaluate.decided_cases import DecidedCases
from lesion_triage.evaluate.groups import GroupResult, measure_groups
from lesion_triage.evaluate.intervals import interval_of
from lesion_triage.evaluate.metadata_baseline import MetadataBaseline, measure_metadata
from lesion_triage.evaluate.slices import (
    Outcomes,
    Slice,
    SliceResult,
    bootstrap_class_rates,
    measure_slice,
    slices_of,
)
from lesion_triage.predictions import Predictions

FORMAT = 5
"""Raised when the same predictions would give other numbers; earlier evaluations are then outdated."""
THRESHOLD_PROBABILITIES = tuple(percent / 100 for percent in range(1, 51))
PREVALENCES = (0.005, 0.0075, 0.01, 0.015, *(percent / 100 for percent in range(2, 51)))


@dataclass(frozen=True, slots=True)
class BandRow:
    """One priority band of the reading queue."""

    band: int
    lowest_score: float
    """Where the band's scores begin; they end below the limit of the band above."""
    cases: int
    positives: int
    abstained: int
    """Those of the cases that have no score."""


@dataclass(frozen=True, slots=True)
class Abstention:
    """Cases without a gradable photograph in one slice or subgroup."""

    name: str
    title: str
    abstained: Proportion
    """Exact interval, or from ``clustered_proportions`` if a unit has several cases."""
    positives_abstained: int


@dataclass(frozen=True, slots=True)
class Results:
    """Every number of the report; ``results.json``.

    A file from before a field existed lacks it. ``summary`` and every other reader must accept such files.
    """

    split: str
    unit: str
    synthetic: bool
    bundle_name: str
    bundle_sha256: str
    certificate_id: str
    manifest_sha256: str
    splits_sha256: str
    model_sha256: str
    threshold: float
    everyone_alone: dict[str, float]
    """Threshold, sensitivity, specificity and referral rate of the policy if only everyone together had been
    certified. Empty if the groups cost nothing, if everyone together has no threshold of its own, or if a
    class has no case."""
    cases: int
    positives: int
    missed: int
    """Positive cases below the threshold."""
    abstained: int
    """Cases without a gradable photograph; they count as referred."""
    positives_abstained: int
    photographs: int
    photographs_refused: dict[str, int]
    """Ungradable photographs by reason code; a photograph may have several."""
    slices: tuple[SliceResult, ...]
    reliability: tuple[Bin, ...]
    roc: Curve
    """1 - specificity and sensitivity of the whole policy."""
    precision_recall: Curve
    """Sensitivity and PPV of the whole policy."""
    histogram: Histogram
    decision_curve: tuple[NetBenefit, ...]
    """Referring by score at each threshold probability."""
    policy_decision_curve: tuple[NetBenefit, ...]
    """Referring as the certified policy does, whatever the threshold probability."""
    predictive_values: tuple[PredictiveValues, ...]
    predictive_values_exact: bool
    """Whether their simultaneous band is exact, that is, no unit has two cases of a class."""
    groups: tuple[GroupResult, ...]
    metadata: tuple[MetadataBaseline, ...]
    """Empty if no training records were given, or a class has too few cases."""
    abstentions: tuple[Abstention, ...]
    bands: tuple[BandRow, ...]
    parity: dict[str, str | int | float]
    """How much torch and onnxruntime differ on these photographs; empty if not measured."""
    bootstrap_draws: int
    bootstrap_seed: int
    queue: dict[str, Any] | None = None
    """The simulated reading queue, as ``lesion-triage queue --json`` writes it."""

    def to_json(self) -> str:
        """Canonical JSON text."""
        return canonical_json({"schema_version": 1, **asdict(self)})

    def flat(self) -> dict[str, float]:
        """Point values and interval ends under dotted names, for a tracking server."""
        return flat(asdict(self))


def flat(content: Mapping[str, Any]) -> dict[str, float]:
    """As ``Results.flat``, from the parsed content of a ``results.json``."""
    numbers: dict[str, float] = {}
    for part in content["slices"]:
        prefix = f"{content['split']}.{part['name']}"
        assert f"{prefix}.cases" not in numbers, f"two slices are called {part['name']}"
        numbers |= {f"{prefix}.cases": part["cases"], f"{prefix}.positives": part["positives"]}
        for name in part["metrics"]:
            if (estimate := interval_of(part, name)) is not None:
                numbers[f"{prefix}.{name}"] = estimate["value"]
                numbers[f"{prefix}.{name}.low"] = estimate["low"]
                numbers[f"{prefix}.{name}.high"] = estimate["high"]
    return numbers


def evaluate(
    table: Predictions,
    bundle: Bundle,
    config: Evaluate,
    parity: Mapping[str, str | int | float] | None = None,
    training: Sequence[Record] = (),
) -> Results:
    """Measure a sealed bundle on a split that was not used to choose anything.

    Args:
        table: the bundle's own logits on that split.
        bundle: policy, certificate and header.
        config: bootstrap draws and seed.
        parity: measured agreement of torch and onnxruntime, for the report; None: not measured.
        training: labelled records on which a baseline without pictures is fitted; empty: no baseline.

    Raises:
        PredictionsError: the table belongs elsewhere, or a row's outcome is unknown.
        ScoringError: a logit that is not finite.
    """
    decided = DecidedCases.from_predictions(bundle, table)
    scores, positive, threshold = decided.scores, decided.positive, bundle.policy.threshold
    abstained = np.isposinf(scores)
    outcomes = Outcomes(scores, positive, decided.referred, unit_indices(decided.cases))
    sample, bootstrap_units, slices = (
        decided.sample(threshold),
        decided.bootstrap_units(),
        slices_of(decided.cases),
    )
    referral_sample = Sample.of(decided.referred.astype(np.float64), positive, 1.0)
    both_classes = 0 < positive.sum() < positive.size
    benefit_curves = [
        net_benefit(one, THRESHOLD_PROBABILITIES, config.bootstrap_draws, config.seed, bootstrap_units)
        if both_classes
        else ()
        for one in (sample, referral_sample)
    ]
    return Results(
        split=table.split,
        unit=bundle.certificate.unit,
        synthetic=bundle.header.synthetic,
        bundle_name=bundle.header.name,
        bundle_sha256=bundle.sha256,
        certificate_id=bundle.certificate.certificate_id(),
        manifest_sha256=table.manifest_sha256,
        splits_sha256=table.splits_sha256,
        model_sha256=table.model_sha256,
        threshold=threshold,
        everyone_alone=_everyone_alone(bundle, decided),
        cases=positive.size,
        positives=int(positive.sum()),
        missed=int(np.count_nonzero(positive & ~decided.referred)),
        abstained=int(abstained.sum()),
        positives_abstained=int((abstained & positive).sum()),
        photographs=len(table.rows),
        photographs_refused=dict(
            sorted(
                Counter(
                    code
                    for case in decided.cases
                    for row in case.rows
                    if row.logit is None
                    for code in row.quality_codes.split() or ["unknown"]
                ).items()
            )
        ),
        slices=tuple(measure_slice(part, outcomes, config) for part in slices),
        reliability=reliability(sample, outcomes.units),
        roc=roc_curve(sample),
        precision_recall=precision_recall_curve(sample),
        histogram=score_histogram(sample),
        decision_curve=benefit_curves[0],
        policy_decision_curve=benefit_curves[1],
        predictive_values=_predictive_values(outcomes, config) if both_classes else (),
        predictive_values_exact=not any(
            has_clusters(outcomes.units[members]) for members in (positive, ~positive)
        ),
        groups=measure_groups(decided.cases, outcomes, bundle.certificate, config),
        metadata=measure_metadata(training, decided.cases, outcomes, config) if training else (),
        abstentions=tuple(_abstention(part, outcomes) for part in slices if part.members.any()),
        bands=_band_rows(decided, bundle.policy.band_limits),
        parity=dict(parity or {}),
        bootstrap_draws=config.bootstrap_draws,
        bootstrap_seed=config.seed,
    )


def _predictive_values(outcomes: Outcomes, config: Evaluate) -> tuple[PredictiveValues, ...]:
    """Of the whole policy, from its sensitivity and specificity with their intervals."""
    positive, referred, units = outcomes.positive, outcomes.referred, outcomes.units
    drawn: tuple[Estimate | None, ...] = (None, None)
    if has_clusters(units):
        drawn = bootstrap_class_rates(referred, positive, units, config, BONFERRONI_PAIR_CONFIDENCE)
    found, spared = (
        clustered_proportion(right[members], units[members], of_draws, BONFERRONI_PAIR_CONFIDENCE)
        for right, members, of_draws in zip((referred, ~referred), (positive, ~positive), drawn, strict=True)
    )
    return predictive_values(found, spared, PREVALENCES)


def _abstention(part: Slice, outcomes: Outcomes) -> Abstention:
    abstained = np.isposinf(outcomes.scores[part.members])
    return Abstention(
        name=part.name,
        title=part.title,
        abstained=clustered_proportion(abstained, outcomes.units[part.members]),
        positives_abstained=int((abstained & outcomes.positive[part.members]).sum()),
    )


def _everyone_alone(bundle: Bundle, decided: DecidedCases) -> dict[str, float]:
    """The same policy at the threshold that everyone together needs, to show what the groups cost."""
    alone, policy, positive = bundle.certificate.groups[0].threshold, bundle.policy, decided.positive
    if alone is None or (alone == policy.threshold and not policy.groupings) or len({*positive.tolist()}) < 2:
        return {}
    # Red flags are kept, so that only the groups differ.
    single = policy.model_copy(update={"threshold": alone, "groupings": ()})
    below = [
        decide(single, case.logits, case.history).disposition is Disposition.below_threshold
        for case in decided.cases
    ]
    referred = ~np.array(below)
    return {
        "threshold": alone,
        "sensitivity": float(referred[positive].mean()),
        "specificity": float((~referred[~positive]).mean()),
        "referral_rate": float(referred.mean()),
    }


def _band_rows(decided: DecidedCases, limits: tuple[float, float, float]) -> tuple[BandRow, ...]:
    bands = np.array([decision.priority_band for decision in decided.decisions])
    abstained = np.isposinf(decided.scores)
    return tuple(
        BandRow(
            band=band,
            lowest_score=lowest,
            cases=int(np.count_nonzero(bands == band)),
            positives=int(np.count_nonzero(decided.positive & (bands == band))),
            abstained=int(np.count_nonzero(abstained & (bands == band))),
        )
        for band, lowest in enumerate((*limits, 0.0), start=1)
    )
