"""Runs every part of the proof; its results in one value, judged and as a document. Imports this package."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from lesion_triage.console import echo
from lesion_triage.proof import (
    clusters,
    exactness,
    in_use,
    joint,
    mapie_comparison,
    pool_draws,
    splits,
    whole_policy,
)
from lesion_triage.proof.exactness import Step
from lesion_triage.proof.pool import Pool
from lesion_triage.proof.splits import Splits
from lesion_triage.proof.trial import Trial

FORMAT = 3


@dataclass(frozen=True)
class Findings:
    """All rows, in the order of the page."""

    scores_sha256: str
    positives: int
    negatives: int
    photographs: int
    """Of the positive cases."""
    draws: int
    seed: int
    in_the_pool: tuple[Trial, ...]
    in_clusters: tuple[Trial, ...]
    jointly: tuple[Trial, ...]
    whole_policy: tuple[Trial, ...]
    in_use: tuple[Trial, ...]
    over_splits: tuple[Splits, ...]
    steps: tuple[Step, ...]
    comparisons: tuple[exactness.Comparison, ...]
    peer: mapie_comparison.Comparison | None
    """None if MAPIE is not installed or was left out."""

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All rows that were simulated."""
        return self.in_the_pool + self.in_clusters + self.jointly + self.whole_policy + self.in_use

    @property
    def broken(self) -> tuple[str, ...]:
        """A sentence for each broken promise, each negative control that kept its promise, each mismatch."""
        return tuple(self._broken())

    def document(self) -> dict[str, object]:
        """All numbers, for a JSON file."""
        found = asdict(self)
        for name in ("in_the_pool", "in_clusters", "jointly", "whole_policy", "in_use"):
            found[name] = [
                {**asdict(one), "share": one.share, "limit": one.limit, "passed": one.passed}
                for one in getattr(self, name)
            ]
        return {"format": FORMAT, **found, "broken": list(self.broken)}

    def numbers(self) -> Mapping[str, float]:
        """Metrics for a tracker: the share of violations and the specificity of every row, by name."""
        kept: dict[str, float] = {"broken": len(self.broken)}
        for one in self.trials:
            name = f"{_slug(one.what)}/{one.target:g}/{one.positives}"
            kept[f"{name}/violations"] = one.share
            if one.specificity is not None:
                kept[f"{name}/specificity"] = one.specificity
        for split in self.over_splits:
            kept[f"splits/{split.target:g}/p_value"] = split.p_value
            kept[f"splits/{split.target:g}/total_variation"] = split.total_variation
        return kept

    def _broken(self) -> Iterator[str]:
        for one in self.trials:
            if not one.passed:
                yield _sentence(one)
        for split in self.over_splits:
            if not split.passed:
                yield (
                    f"real splits at {split.target:g}: misses do not fit their law (p = {split.p_value:.2g})"
                )
        for step in self.steps:
            if not step.passed:
                yield (
                    f"{step.positives} positives: {step.misses_allowed} misses allowed, published: "
                    f"{step.published}"
                )
        for comparison in self.comparisons:
            if not comparison.passed:
                yield f"{comparison.what}: differs by {comparison.largest_difference:.2g}"
        if self.peer is not None and not self.peer.passed:
            yield f"MAPIE {self.peer.version}: better somewhere, or one of the two broke its promise"


def prove(pool: Pool, draws: int, seed: int, with_peer: bool = True) -> Findings:
    """Run every part of the proof.

    Args:
        pool: held-out cases.
        draws: number of calibration sets of each size, and of splits.
        seed: the same seed gives the same findings, except for the times in the comparison with MAPIE.
        with_peer: compare with MAPIE if it is installed.

    Raises:
        PredictionsError: too few cases of a kind that a part of the proof needs.
    """
    # First, because it alone refuses a small table: before minutes of draws.
    echo(f"  {draws} splits of {pool.scores.size + pool.negatives.size} cases in two halves")
    over_splits = tuple(splits.real_splits(pool, draws, seed))
    echo(f"  {draws} calibration sets of each size from {pool.scores.size} positive cases")
    in_the_pool = tuple(pool_draws.pool_trials(pool, draws, seed))
    echo("  units with several scores, on a drawn population")
    in_clusters = tuple(clusters.cluster_trials(draws, seed))
    echo("  one certificate for several groups")
    jointly = tuple(joint.joint_trials(pool, draws, seed))
    echo("  the whole policy: gates, red flags and score")
    whole = tuple(whole_policy.whole_policy_trials(pool, draws, seed))
    echo("  a threshold in use, looked at after each case")
    used = tuple(in_use.in_use_trials(pool, draws, seed))
    echo("  published table, scipy, MAPIE")
    return Findings(
        scores_sha256=pool.sha256,
        positives=pool.scores.size,
        negatives=pool.negatives.size,
        photographs=sum(len(case.rows) for case in pool.cases),
        draws=draws,
        seed=seed,
        in_the_pool=in_the_pool,
        in_clusters=in_clusters,
        jointly=jointly,
        whole_policy=whole,
        in_use=used,
        over_splits=over_splits,
        steps=tuple(exactness.steps()),
        comparisons=tuple(exactness.comparisons()),
        peer=mapie_comparison.compare(pool, min(draws, mapie_comparison.DRAWS), seed) if with_peer else None,
    )


def _sentence(one: Trial) -> str:
    where = f"{one.what}, {one.positives} positives, target {one.target:g}"
    found = f"{one.violations} of {one.draws} draws violate it"
    if not one.agrees:
        return f"{where}: {found}, the exact law says {one.exact:.4f}"
    if one.expected == "breaks":
        return f"{where}: {found}, but a negative control must exceed {one.limit:.4f}"
    return f"{where}: {found}, expected at most {one.limit:.4f}"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
