"""Groups of positive units: formed, merged if small, and certified jointly.

Imports numpy, bundle and this package. Every choice made here depends on how many units the groups have and
never on their scores, so the theorem of ``certificate`` holds for each group given its size.

Common threshold
    Let each group g be certified alone, at confidence 1 - d, by a threshold t_g, and let t be the lowest of
    them. Let q_g be the largest threshold at which group g still reaches the target, and h the group with
    the lowest q_g. If any group falls below the target then t > q_h, hence t_h > q_h, and that has a
    probability of at most d. So the promise holds for all groups at once without splitting the error, and
    groups may overlap. The price is specificity.

Composition
    Which groups are certified or merged depends on their sizes. So the joint promise is exact given the
    composition: how many of the positive units are in each combination of groups. Given it, the set of
    certified groups is settled, and h is the lowest for groups mixed as in the sample. The units of h are
    independent but need not be of one law, so the number of its n units with a score of at most q_h is a sum
    of unequal Bernoulli variables of mean at least n (1 - target). That it is at most the m that n units are
    allowed has at most the binomial probability, since m <= n (1 - target) - 1 for a confidence of at least
    0.7 (Hoeffding 1956, Ann. Math. Stat. 27:713, theorem 4). The same holds for merged groups.

    If the composition is drawn too, each certified group that is not merged keeps its promise by itself. But
    all together may fail more often than d: with few units of a difficult group everyone looks easier, and
    just then the group is too small to be certified. In all it is at most (1 + D) d, if each unit is in one
    group of each of D dimensions and none is merged: h is everyone or in a dimension; given the sizes of its
    groups, the dimension's candidate for h is settled and fails with probability at most d.

Group thresholds
    Each of G groups has its own threshold t_g. Every group can then fail separately, so each is certified at
    confidence 1 - d / G. The groups must not overlap, and a case that belongs to none of them goes up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.certificate import ALL_UNITS, KNOWN_WHEN_SERVING, GroupBy, GroupRow, Rule
from lesion_triage.bundle.policy import UNKNOWN_GROUP, group_of
from lesion_triage.bundle.schema import Grouping
from lesion_triage.calibrate.cases import Case, lowest_score_by_unit, unit_indices
from lesion_triage.calibrate.certificate import (
    allowed_misses,
    highest_finite_score,
    minimum_positives,
    order_statistic_threshold,
    sensitivity_lower_bound,
)
from lesion_triage.errors import CalibrationError


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Positive units that the certificate looks at together."""

    by: str
    name: str
    members: tuple[str, ...]
    scores: NDArray[np.float64]
    """One per positive unit: the lowest score of its positive cases in this group; +inf if all go up."""

    @property
    def size(self) -> int:
        """Positive units."""
        return self.scores.size


@dataclass(frozen=True, slots=True)
class JointThresholds:
    """Thresholds that hold for all certified groups at once."""

    threshold: float
    """The lowest."""
    level: float
    """Confidence at which each group was certified."""
    own_thresholds: Mapping[tuple[str, str], float]
    """(by, group) -> the highest threshold that this group allows, +inf if it allows any. A group that is
    not certifiable has no entry."""
    groupings: tuple[Grouping, ...]


def positive_groups(
    cases: Sequence[Case], scores: NDArray[np.float64], dimensions: Sequence[GroupBy], minimum_units: int
) -> tuple[Group, ...]:
    """Everyone together, then the groups of each dimension; small ones are merged if a parent is declared.

    Args:
        cases: the positive cases.
        scores: of each, shape (cases,).
        dimensions: the dimensions.
        minimum_units: positive units below which a group is small.
    """
    units = unit_indices(cases)
    groups = [Group(ALL_UNITS, ALL_UNITS, (ALL_UNITS,), lowest_score_by_unit(scores, units))]
    for dimension in dimensions:
        labels = [group_labels(case, dimension) for case in cases]
        inside = {
            leaf: np.array([leaf in own for own in labels], dtype=np.bool_)
            for leaf in sorted(frozenset().union(*labels))
        }
        for name, leaves in _merge_small_groups(inside, units, dimension.parents, minimum_units).items():
            members = np.logical_or.reduce([inside[leaf] for leaf in leaves])
            groups.append(
                Group(dimension.by, name, leaves, lowest_score_by_unit(scores[members], units[members]))
            )
    return tuple(groups)


def group_labels(case: Case, dimension: GroupBy) -> frozenset[str]:
    """The groups of one positive case; several if its photographs were taken or labelled differently.

    What a platform can send with a new case is taken from the history, exactly as the server reads it. What
    only the dataset knows (class, source) is taken from the positive photographs.
    """
    if dimension.by in KNOWN_WHEN_SERVING:
        return frozenset({group_of(dimension.by, dimension.age_edges_years, case.history)})
    column = "diagnosis" if dimension.by == "reference_class" else dimension.by
    return frozenset(getattr(row, column) or UNKNOWN_GROUP for row in case.rows if row.needs_in_person)


def certify_jointly(
    groups: Sequence[Group], dimensions: Sequence[GroupBy], rule: Rule, target: float, confidence: float
) -> JointThresholds:
    """Thresholds at which every group that is large enough reaches the target, all of them together.

    Args:
        groups: from ``positive_groups``; the first is everyone.
        dimensions: the dimensions that they were made from.
        rule: see the module docstring.
        target: sensitivity.
        confidence: one-sided, joint.

    Raises:
        CalibrationError: no positive unit could be scored, a score is NaN or -inf, or no group is large
            enough for its own threshold.
    """
    everyone, parts = groups[0], groups[1:]
    ceiling = highest_finite_score(everyone.scores)
    if rule == "group_thresholds":
        _require_disjoint(everyone, parts)
        level, certified = _bonferroni_groups(parts, target, confidence)
    else:
        level = confidence
        certified = [group for group in groups if allowed_misses(group.size, target, level) is not None]
    own = {
        (group.by, group.name): order_statistic_threshold(group.scores, target, level)[0]
        for group in certified
    }
    lowest = min(*own.values(), ceiling)
    common = rule == "common_threshold"
    served = {key: lowest if common else min(value, ceiling) for key, value in own.items()}
    return JointThresholds(lowest, level, own, _groupings(groups, dimensions, rule, served))


def group_rows(
    groups: Sequence[Group],
    joint: JointThresholds,
    target: float,
    confidence: float,
    misses_seen: Sequence[int],
) -> tuple[GroupRow, ...]:
    """The certificate's row for each group, everyone first.

    Args:
        groups: those that were certified together.
        joint: the result of ``certify_jointly``.
        target: sensitivity.
        confidence: joint.
        misses_seen: for each group, the positive units that the policy leaves below the threshold.
    """
    rows = [_row(group, joint, target, seen) for group, seen in zip(groups, misses_seen, strict=True)]
    if (ALL_UNITS, ALL_UNITS) not in joint.own_thresholds:
        # Every positive unit is in one certified group, or goes up: what holds for each group holds for all.
        certified = [row for row in rows if row.status == "certified"]
        implied = {
            "status": "certified",
            "confidence": confidence,
            "misses_allowed": sum(row.misses_allowed or 0 for row in certified),
            "sensitivity_lower_bound": min(row.sensitivity_lower_bound or 0.0 for row in certified),
        }
        rows[0] = rows[0].model_copy(update=implied)
    return tuple(rows)


def _row(group: Group, joint: JointThresholds, target: float, misses_seen: int) -> GroupRow:
    own = joint.own_thresholds.get((group.by, group.name))
    allowed = None if own is None else allowed_misses(group.size, target, joint.level)
    return GroupRow(
        by=group.by,
        group=group.name,
        members=group.members,
        status="not_certifiable" if allowed is None else "certified",
        positives=group.size,
        positives_abstained=int(np.count_nonzero(np.isposinf(group.scores))),
        misses_seen=misses_seen,
        misses_allowed=allowed,
        threshold=own if own is not None and np.isfinite(own) else None,
        sensitivity_lower_bound=(
            None if allowed is None else sensitivity_lower_bound(group.size, allowed, joint.level)
        ),
        confidence=joint.level,
        minimum_positives=minimum_positives(target, joint.level),
    )


def _merge_small_groups(
    inside: Mapping[str, NDArray[np.bool_]],
    units: NDArray[np.intp],
    parents: Mapping[str, str],
    minimum_units: int,
) -> dict[str, tuple[str, ...]]:
    """Name of each merged group -> the groups of the data that it contains.

    While a small group has a parent, the parent absorbs it and everything else declared below the parent. A
    merged group may still be too small.
    """

    def size(leaves: tuple[str, ...]) -> int:
        return np.unique(units[np.logical_or.reduce([inside[leaf] for leaf in leaves])]).size

    groups: dict[str, tuple[str, ...]] = {leaf: (leaf,) for leaf in inside}
    while small := sorted(name for name in groups if name in parents and size(groups[name]) < minimum_units):
        parent = parents[small[0]]
        below = [name for name in groups if name == parent or _is_descendant(name, parent, parents)]
        groups[parent] = tuple(sorted(leaf for name in below for leaf in groups.pop(name)))
    return dict(sorted(groups.items()))


def _is_descendant(name: str, ancestor: str, parents: Mapping[str, str]) -> bool:
    while name in parents:
        name = parents[name]
        if name == ancestor:
            return True
    return False


def _require_disjoint(everyone: Group, parts: Sequence[Group]) -> None:
    if sum(group.size for group in parts) > everyone.size:
        raise CalibrationError(
            "some patients have positive lesions in two groups, so thresholds of each group's own would "
            "promise nothing for the patient."
        )


def _bonferroni_groups(parts: Sequence[Group], target: float, confidence: float) -> tuple[float, list[Group]]:
    """Confidence 1 - d / G of each, and the G groups: as many as can be certified, judged by size alone."""
    by_size = sorted(parts, key=lambda group: -group.size)
    for count in range(len(by_size), 0, -1):
        level = 1.0 - (1.0 - confidence) / count
        if by_size[count - 1].size >= minimum_positives(target, level):
            return level, by_size[:count]
    largest = by_size[0].size if by_size else 0
    raise CalibrationError(
        f"no group has enough positive cases for a threshold of its own: the largest has {largest}, and "
        f"certifying sensitivity {target:g} at confidence {confidence:g} takes at least "
        f"{minimum_positives(target, confidence)}."
    )


def _groupings(
    groups: Sequence[Group],
    dimensions: Sequence[GroupBy],
    rule: Rule,
    served: Mapping[tuple[str, str], float],
) -> tuple[Grouping, ...]:
    """Dimensions that the policy reads from the history: in these, a group that is not certified goes up."""
    return tuple(
        Grouping(
            by=dimension.by,  # type: ignore[arg-type]  # the configuration allows no other
            age_edges_years=dimension.age_edges_years if dimension.by == "age_band" else (),
            thresholds={
                leaf: served[group.by, group.name]
                for group in groups
                if group.by == dimension.by and (group.by, group.name) in served
                for leaf in group.members
            },
        )
        for dimension in dimensions
        if rule == "group_thresholds" or dimension.small == "route_up"
    )
