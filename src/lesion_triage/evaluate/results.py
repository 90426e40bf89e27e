"""From the test table and a sealed bundle to every number of the report.

Imports bundle, predictions, calibrate, config and this room's subgroups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.document import canonical_json
from lesion_triage.bundle.policy import Decision, decide
from lesion_triage.bundle.schema import Disposition
from lesion_triage.bundle.store import Bundle
from lesion_triage.calibrate.cases import Case, cases_of, positives_of, scores_of, units_of
from lesion_triage.calibrate.metrics import Bin, Sample, reliability
from lesion_triage.config import Evaluate
from lesion_triage.errors import PredictionsError
from lesion_triage.evaluate.subgroups import Outcomes, SliceResult, measure, slices_of
from lesion_triage.predictions import Predictions

EXTERNAL = "external"
"""The split of cases that the bundle's own manifest does not have."""

_SEEN_BY_THE_MODEL = ("train", "validation", "calibration")


@dataclass(frozen=True, slots=True)
class BandRow:
    """One priority band of the reading queue."""

    band: int
    lowest_score: float
    """Scores from here up to the limit of the band above."""
    cases: int
    positives: int
    abstained: int
    """Of the cases, those without a score."""


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that the report says in numbers; ``results.json``."""

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
    """Threshold, sensitivity, specificity and referral rate, had the certificate promised everyone together
    and no group; empty if the groups cost nothing."""
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
    bands: tuple[BandRow, ...]
    parity: dict[str, str | int | float]
    """How far torch and onnxruntime are apart on these photographs."""
    bootstrap_draws: int
    bootstrap_seed: int

    def to_json(self) -> str:
        """Canonical JSON text."""
        return canonical_json({"schema_version": 1, **asdict(self)})

    def flat(self) -> dict[str, float]:
        """Point values and interval ends under dotted names, for a tracking server."""
        numbers: dict[str, float] = {}
        for part in self.slices:
            prefix = f"{self.split}.{part.name}"
            numbers |= {f"{prefix}.cases": part.cases, f"{prefix}.positives": part.positives}
            for name, estimate in part.metrics.items():
                if estimate is not None:
                    numbers[f"{prefix}.{name}"] = estimate.value
                    numbers[f"{prefix}.{name}.low"] = estimate.low
                    numbers[f"{prefix}.{name}.high"] = estimate.high
        return numbers


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """The cases of a table, decided by the bundle's own policy."""

    cases: tuple[Case, ...]
    decisions: tuple[Decision, ...]
    scores: NDArray[np.float64]
    """Shape (cases,); +inf for a case without a score."""
    positive: NDArray[np.bool_]
    referred: NDArray[np.bool_]
    """Referred or abstained on."""

    @classmethod
    def by(cls, bundle: Bundle, table: Predictions) -> Decided:
        """Decide every case of ``table``.

        Raises:
            PredictionsError: the table belongs to another manifest, split or model, or to a split that the
                model or its policy was made from. Of an external table only the model must be the bundle's.
        """
        _check_origin(bundle, table)
        cases = cases_of(table.behind_gate(bundle.policy.novelty_limit))
        decisions = tuple(decide(bundle.policy, case.logits, case.history) for case in cases)
        scores = scores_of(cases, bundle.policy.calibrator, bundle.policy.aggregation)
        below = np.array([decision.disposition is Disposition.below_threshold for decision in decisions])
        thresholds = np.array([decision.threshold for decision in decisions])
        assert not (below & (scores >= thresholds)).any(), "a score that refers was decided otherwise"
        return cls(cases, decisions, scores, positives_of(cases), ~below)

    def sample(self, threshold: float) -> Sample:
        """The cases sorted by score, for the metrics."""
        return Sample.of(self.scores, self.positive, threshold)


def evaluate(
    table: Predictions,
    bundle: Bundle,
    config: Evaluate,
    parity: Mapping[str, str | int | float] | None = None,
) -> Results:
    """Measure a sealed bundle on a split that nothing was chosen by.

    Args:
        table: the bundle's own logits on that split.
        bundle: policy, certificate and header.
        config: bootstrap draws and seed.
        parity: facts to print on the agreement of torch and onnxruntime.

    Raises:
        PredictionsError: the table belongs elsewhere, or a row's outcome is unknown.
        ScoringError: a logit that is not finite.
    """
    decided = Decided.by(bundle, table)
    scores, positive, threshold = decided.scores, decided.positive, bundle.policy.threshold
    abstained = np.isposinf(scores)
    outcomes = Outcomes(scores, positive, decided.referred, units_of(decided.cases))
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
        everyone_alone=_everyone_alone(bundle, scores, positive),
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
        slices=tuple(measure(part, outcomes, config) for part in slices_of(decided.cases)),
        reliability=reliability(decided.sample(threshold)),
        bands=_bands(decided, bundle.policy.band_limits),
        parity=dict(parity or {}),
        bootstrap_draws=config.bootstrap_draws,
        bootstrap_seed=config.seed,
    )


def _everyone_alone(
    bundle: Bundle, scores: NDArray[np.float64], positive: NDArray[np.bool_]
) -> dict[str, float]:
    """What the promise to the groups costs: the same cases at the threshold that everyone together needs."""
    alone = bundle.certificate.groups[0].threshold
    if alone is None or alone == bundle.policy.threshold or not 0 < positive.sum() < positive.size:
        return {}
    referred = scores >= alone
    return {
        "threshold": alone,
        "sensitivity": float(referred[positive].mean()),
        "specificity": float((~referred[~positive]).mean()),
        "referral_rate": float(referred.mean()),
    }


def _bands(decided: Decided, limits: tuple[float, float, float]) -> tuple[BandRow, ...]:
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


def _check_origin(bundle: Bundle, table: Predictions) -> None:
    if table.split in _SEEN_BY_THE_MODEL:
        raise PredictionsError(
            f"the model or its policy was made from split '{table.split}', so it cannot be evaluated there; "
            "predict split 'test' with the sealed bundle."
        )
    own = () if table.split == EXTERNAL else ("manifest_sha256", "splits_sha256")
    for name in (*own, "model_sha256"):
        found, expected = getattr(table, name), getattr(bundle.certificate, name)
        if found != expected:
            raise PredictionsError(
                f"predictions of split '{table.split}': {name} is {found[:12]}, the bundle's certificate "
                f"says {expected[:12]}; predict again with this bundle on its own manifest and split."
            )
