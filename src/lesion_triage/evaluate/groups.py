"""Results in every subgroup, beside what the certificate says about it. Imports calibrate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.certificate import (
    ALL_UNITS,
    KNOWN_WHEN_SERVING,
    Certificate,
    Dimension,
    GroupBy,
    GroupRow,
)
from lesion_triage.bundle.policy import UNKNOWN_GROUP, age_bands, group_of
from lesion_triage.calibrate.bootstrap import Estimate
from lesion_triage.calibrate.cases import Case
from lesion_triage.calibrate.clustered_proportions import clustered_proportion, has_clusters
from lesion_triage.calibrate.metrics import (
    Proportion,
    Sample,
    auroc_with_interval,
)
from lesion_triage.config import Evaluate
from lesion_triage.evaluate.slices import (
    MINIMUM_PER_CLASS,
    Outcomes,
    bootstrap_class_rates,
    has_enough_scores,
)

Status = Literal["certified", "not_certifiable", "not_asked"]

_DEFAULT_DIMENSIONS: tuple[Dimension, ...] = (
    "sex",
    "age_band",
    "anatom_site_general",
    "fitzpatrick_skin_type",
    "source",
)
_MAX_GROUPS = 14
"""Groups shown of a dimension that the certificate was not asked about: the largest."""


@dataclass(frozen=True, slots=True)
class GroupResult:
    """One subgroup of the cases; a number is None if a class that it needs has fewer than ten cases."""

    by: str
    """A dimension of the certificate, or ``all``."""
    group: str
    status: Status
    certificate_positives: int | None
    """Positive units of the group in the calibration data, enough or not; None if not asked about."""
    minimum_positives: int | None
    """Positive units that it takes to certify the group; None for everyone, or if not asked about."""
    cases: int
    positives: int
    abstained: int
    sensitivity: Proportion | None
    """Exact interval, or from ``clustered_proportions`` if a unit has several positive cases."""
    specificity: Proportion | None
    """The same, over the negative cases: a bootstrap of 0 of 30 would have no width."""
    auroc: Estimate | None


def measure_groups(
    cases: Sequence[Case], outcomes: Outcomes, certificate: Certificate, config: Evaluate
) -> tuple[GroupResult, ...]:
    """Everyone first, then the dimensions that the certificate was asked about, then others that are known.

    Args:
        cases: all of them.
        outcomes: of the same cases, in the same order.
        certificate: of the bundle that decided them.
        config: bootstrap draws and seed.
    """
    everyone = np.ones(len(cases), dtype=np.bool_)
    rows = [
        _measure_group(
            ALL_UNITS, ALL_UNITS, "certified", certificate.positives, None, everyone, outcomes, config
        )
    ]
    asked = {dimension.by: dimension for dimension in certificate.asked}
    further = [GroupBy(by=by) for by in _DEFAULT_DIMENSIONS if by not in asked]
    for dimension in (*asked.values(), *further):
        labels = [_groups_of_case(case, dimension) for case in cases]
        membership = {
            leaf: np.array([leaf in own for own in labels], dtype=np.bool_)
            for leaf in frozenset().union(*labels)
        }
        if dimension.by in asked:
            rows += _measure_certificate_groups(dimension, membership, certificate, outcomes, config)
        elif len(set(membership) - {UNKNOWN_GROUP}) > 1:
            largest = sorted(membership, key=lambda leaf: -int(membership[leaf].sum()))[:_MAX_GROUPS]
            rows += [
                _measure_group(
                    dimension.by, leaf, "not_asked", None, None, membership[leaf], outcomes, config
                )
                for leaf in sorted(largest, key=_order(dimension))
            ]
    return tuple(rows)


def _measure_certificate_groups(
    dimension: GroupBy,
    membership: dict[str, NDArray[np.bool_]],
    certificate: Certificate,
    outcomes: Outcomes,
    config: Evaluate,
) -> Iterator[GroupResult]:
    """A result for each row of the certificate, and for each group without a positive calibration unit."""
    nobody = np.zeros_like(outcomes.positive)
    rows = [row for row in certificate.groups if row.by == dimension.by]
    seen = {leaf for row in rows for leaf in row.members}
    unseen = [leaf for leaf in membership if leaf not in seen]
    if dimension.by == "reference_class":  # in a class without positive cases none can be missed
        unseen = [leaf for leaf in unseen if outcomes.positive[membership[leaf]].any()]
    # A merged group may bear the name of a group that had no positive calibration unit: these are two.
    groups: list[tuple[str, tuple[str, ...], GroupRow | None]] = [
        *((row.group, row.members, row) for row in rows),
        *((leaf, (leaf,), None) for leaf in unseen),
    ]
    order = _order(dimension)
    for group, leaves, row in sorted(groups, key=lambda one: order(one[0])):
        members = np.logical_or.reduce([membership.get(leaf, nobody) for leaf in leaves])
        yield _measure_group(
            dimension.by,
            group,
            row.status if row else "not_certifiable",
            row.positives if row else 0,
            row.minimum_positives if row else certificate.groups[0].minimum_positives,
            members,
            outcomes,
            config,
        )


def _measure_group(
    by: str,
    group: str,
    status: Status,
    certificate_positives: int | None,
    minimum_positives: int | None,
    members: NDArray[np.bool_],
    outcomes: Outcomes,
    config: Evaluate,
) -> GroupResult:
    scores, truth = outcomes.scores[members], outcomes.positive[members]
    referred, units = outcomes.referred[members], outcomes.units[members]
    bootstrap_units = units if has_clusters(units) else None
    positives, negatives = int(truth.sum()), int((~truth).sum())
    sensitivity_result: Proportion | None = None
    specificity_result: Proportion | None = None
    auroc_result: Estimate | None = None
    if positives >= MINIMUM_PER_CLASS or negatives >= MINIMUM_PER_CLASS:
        sensitivity_estimate, specificity_estimate = bootstrap_class_rates(
            referred, truth, bootstrap_units, config
        )
        sensitivity_result = (
            clustered_proportion(referred[truth], units[truth], sensitivity_estimate)
            if positives >= MINIMUM_PER_CLASS
            else None
        )
        specificity_result = (
            clustered_proportion(~referred[~truth], units[~truth], specificity_estimate)
            if negatives >= MINIMUM_PER_CLASS
            else None
        )
    if has_enough_scores(scores, truth):
        auroc_result = auroc_with_interval(
            Sample.of(scores, truth), config.bootstrap_draws, config.seed, bootstrap_units
        )
    return GroupResult(
        by=by,
        group=group,
        status=status,
        certificate_positives=certificate_positives,
        minimum_positives=minimum_positives,
        cases=truth.size,
        positives=positives,
        abstained=int(np.count_nonzero(np.isposinf(scores))),
        sensitivity=sensitivity_result,
        specificity=specificity_result,
        auroc=auroc_result,
    )


def _groups_of_case(case: Case, dimension: GroupBy) -> frozenset[str]:
    """Groups of a case: a positive one as in the certificate, a negative one by all its photographs."""
    if dimension.by in KNOWN_WHEN_SERVING:
        return frozenset({group_of(dimension.by, dimension.age_edges_years, case.history)})
    column = "diagnosis" if dimension.by == "reference_class" else dimension.by
    deciding_rows = [row for row in case.rows if row.needs_in_person or not case.needs_in_person]
    return frozenset(getattr(row, column) or UNKNOWN_GROUP for row in deciding_rows)


def _order(dimension: GroupBy) -> Callable[[str], tuple[bool, int, str]]:
    """Sort key: age bands by age, other groups by name; unknown last."""
    bands = age_bands(dimension.age_edges_years) if dimension.by == "age_band" else ()
    ranks = {band: rank for rank, band in enumerate(bands)}
    return lambda group: (group == UNKNOWN_GROUP, ranks.get(group, len(bands)), group)
