"""One certificate for many groups: how often does any of them fall short? On the groups of real cases.

Imports numpy, ``calibrate.groups`` and this package.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.certificate import ALL_UNITS, GroupBy, Rule
from lesion_triage.calibrate.cases import Case
from lesion_triage.calibrate.certificate import minimum_positives
from lesion_triage.calibrate.groups import (
    Group,
    JointThresholds,
    certify_jointly,
    group_labels,
    positive_groups,
)
from lesion_triage.proof.exact_distributions import Floats, critical, sensitivity, specificity
from lesion_triage.proof.pool import Pool
from lesion_triage.proof.pool_draws import CONFIDENCE, TARGETS, draw
from lesion_triage.proof.trial import Trial

SIZES = (140, 300, 600)
"""Positive cases in a calibration set: with more of them, more groups are large enough to be certified."""

SEX = GroupBy(by="sex")
COMMON = (GroupBy(by="reference_class"), SEX)

_PROMISES: tuple[tuple[str, tuple[GroupBy, ...], Rule], ...] = (
    ("one threshold for every class and sex", COMMON, "common_threshold"),
    ("a threshold for each sex, sharing the error", (SEX,), "group_thresholds"),
)
_STREAM = 3
_WATCHED = 3  # draws whose groups are formed a second time, from cases

Key = tuple[str, str]


@dataclass(frozen=True, eq=False)
class Draws:
    """The thresholds of repeated joint certificates."""

    common: Floats
    """The lowest threshold, shape (draws,)."""
    served: dict[Key, Floats]
    """The threshold of each group, shape (draws,); NaN in a draw that did not certify the group."""


def joint_trials(pool: Pool, draws: int, seed: int) -> Iterator[Trial]:
    """All rows of the joint test; the rows of one size see the same draws."""
    for size in SIZES:
        drawn = draw(pool.scores.size, size, draws, (seed, _STREAM, size))
        for target in TARGETS:
            for name, wanted, rule in _PROMISES:
                found = certify_draws(pool, drawn, wanted, rule, target)
                yield _judged(pool, found, wanted, rule, name, size, target)
            yield _for_all_alone(pool, drawn, target)


def certify_draws(
    pool: Pool, drawn: NDArray[np.intp], wanted: Sequence[GroupBy], rule: Rule, target: float
) -> Draws:
    """Certify every draw jointly, as a run does.

    Args:
        pool: the population.
        drawn: indices of its members, shape (draws, size).
        wanted: the dimensions.
        rule: for the groups.
        target: sensitivity.
    """
    inside = group_masks(pool.cases, wanted)
    common = np.empty(drawn.shape[0])
    served = {key: np.full(drawn.shape[0], np.nan) for key in [(ALL_UNITS, ALL_UNITS), *inside]}
    for number, members in enumerate(drawn):
        groups = _groups(pool.scores[members], {key: mask[members] for key, mask in inside.items()})
        if number < _WATCHED:
            _check_groups(groups, pool, members, wanted, target)
        joint = certify_jointly(groups, wanted, rule, target, CONFIDENCE)
        common[number] = joint.threshold
        for key, threshold in _thresholds(joint, rule).items():
            served[key][number] = threshold
    return Draws(common, served)


def group_masks(cases: Sequence[Case], wanted: Sequence[GroupBy]) -> dict[Key, NDArray[np.bool_]]:
    """Which cases belong to each group, shape (cases,), by (dimension, group)."""
    labels = {dimension.by: [group_labels(case, dimension) for case in cases] for dimension in wanted}
    return {
        (by, name): np.array([name in own for own in of_cases])
        for by, of_cases in labels.items()
        for name in sorted(frozenset().union(*of_cases))
    }


def _groups(scores: Floats, inside: dict[Key, NDArray[np.bool_]]) -> tuple[Group, ...]:
    """As ``positive_groups``, for cases that are units of their own, but without going through the cases."""
    parts = (
        Group(by, name, (name,), np.sort(scores[mask])) for (by, name), mask in inside.items() if mask.any()
    )
    return (Group(ALL_UNITS, ALL_UNITS, (ALL_UNITS,), np.sort(scores)), *parts)


def _check_groups(
    groups: Sequence[Group], pool: Pool, members: NDArray[np.intp], wanted: Sequence[GroupBy], target: float
) -> None:
    """Assert that the shortcut of ``_groups`` gives the groups of ``positive_groups``."""
    cases = [_as_unit(pool.cases[member], number) for number, member in enumerate(members.tolist())]
    enough = minimum_positives(target, CONFIDENCE)
    expected = positive_groups(cases, pool.scores[members], wanted, enough)
    assert [(one.by, one.name, one.members) for one in groups] == [
        (one.by, one.name, one.members) for one in expected
    ]
    for ours, theirs in zip(groups, expected, strict=True):
        assert np.array_equal(ours.scores, np.sort(theirs.scores)), f"{ours.name}: other scores"


def _as_unit(case: Case, number: int) -> Case:
    """The case as a unit of its own: drawn twice, it counts as two units that happen to be alike."""
    return Case(str(number), tuple(replace(row, unit_id=str(number)) for row in case.rows))


def _thresholds(joint: JointThresholds, rule: Rule) -> dict[Key, float]:
    if rule == "common_threshold":
        return dict.fromkeys(joint.own_thresholds, joint.threshold)
    (grouping,) = joint.groupings
    return {(grouping.by, name): threshold for name, threshold in grouping.thresholds.items()}


def _judged(
    pool: Pool, found: Draws, wanted: Sequence[GroupBy], rule: Rule, name: str, size: int, target: float
) -> Trial:
    """How often any certified group is below the target in the population."""
    knowing = Draws(np.empty(1), _knowing_the_truth(pool, wanted, rule, target))
    knowing.common[0] = min(threshold[0] for threshold in knowing.served.values())
    return Trial(
        what=name,
        expected="keeps",
        positives=size,
        target=target,
        confidence=CONFIDENCE,
        draws=found.common.size,
        violations=int(np.count_nonzero(_any_short(pool, wanted, found.served, target))),
        specificity=_specificity(pool, rule, found),
        oracle=_specificity(pool, rule, knowing),
    )


def _for_all_alone(pool: Pool, drawn: NDArray[np.intp], target: float) -> Trial:
    """Negative control: a certificate for everyone together, read as one for every class and sex."""
    found = certify_draws(pool, drawn, (), "common_threshold", target)
    read_for = [(ALL_UNITS, ALL_UNITS), *group_masks(pool.cases, COMMON)]
    found = Draws(found.common, dict.fromkeys(read_for, found.common))
    name = "certificate for all, read for every class and sex"
    judged = _judged(pool, found, COMMON, "common_threshold", name, drawn.shape[1], target)
    return replace(judged, expected="breaks")


def _any_short(
    pool: Pool, wanted: Sequence[GroupBy], served: dict[Key, Floats], target: float
) -> NDArray[np.bool_]:
    """Draws after which any group that was certified is below the target, shape (draws,)."""
    inside = _everyone_and(pool, wanted)
    short = [
        ~np.isnan(thresholds) & (sensitivity(pool.scores[inside[key]], thresholds) < target)
        for key, thresholds in served.items()
    ]
    return np.asarray(np.logical_or.reduce(short))


def _knowing_the_truth(pool: Pool, wanted: Sequence[GroupBy], rule: Rule, target: float) -> dict[Key, Floats]:
    """The highest thresholds that keep the promise in the population."""
    own = {key: critical(pool.scores[mask], target) for key, mask in _everyone_and(pool, wanted).items()}
    if rule == "common_threshold":
        own = dict.fromkeys(own, min(own.values()))
    return {key: np.array([threshold]) for key, threshold in own.items()}


def _everyone_and(pool: Pool, wanted: Sequence[GroupBy]) -> dict[Key, NDArray[np.bool_]]:
    return {
        (ALL_UNITS, ALL_UNITS): np.ones(len(pool.cases), dtype=np.bool_),
        **group_masks(pool.cases, wanted),
    }


def _specificity(pool: Pool, rule: Rule, found: Draws) -> float:
    """Mean over the draws; a case that belongs to no certified group goes up."""
    if rule == "common_threshold":
        return float(specificity(pool.negatives, found.common).mean())
    below = 0.0
    for key, mask in group_masks(pool.negative_cases, (SEX,)).items():
        thresholds = found.served.get(key, np.empty(0))
        certified = thresholds[~np.isnan(thresholds)]
        below += float(mask.sum() * specificity(pool.negatives[mask], certified).sum())
    return below / (pool.negatives.size * found.common.size)
