"""Clinical utility of the policy: net benefit and predictive values. Imports the canvas and calibrate."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from lesion_triage.calibrate.bootstrap import Estimate
from lesion_triage.calibrate.decision_analysis import NetBenefit, PredictiveValues
from lesion_triage.evaluate.figures.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    encode_png,
    make_canvas,
    make_panels,
)


def decision_curve(by_score: Sequence[NetBenefit], by_policy: Sequence[NetBenefit]) -> bytes:
    """Net benefit against the threshold probability: score, certified policy, everybody, nobody."""
    figure, axes = make_canvas(7.4, 4.4)
    at = [row.threshold_probability for row in by_score]
    everybody = [row.refer_all.value if row.refer_all else float("nan") for row in by_score]
    _draw_band(axes, at, [row.model for row in by_score], BLUE, "-", "refer by score at this probability")
    policy = [row.model.value if row.model else float("nan") for row in by_policy]
    axes.plot(
        at, policy, color=VERMILLION, linestyle="--", linewidth=1.8, label="refer as the certified policy"
    )
    axes.plot(at, everybody, color=BLACK, linestyle="-.", linewidth=1.2, label="refer everybody")
    axes.axhline(0, color=GREY, linestyle=":", linewidth=1.5, label="refer nobody")
    shown = [(row.model.value, row.model.high) for row in by_score if row.model]
    best, highest = map(max, zip(*shown, strict=True)) if shown else (0.1, 0.1)
    axes.set(
        xlim=(0, max(at)),
        ylim=(-0.3 * max(best, 0.01), 1.04 * max(highest, 0.01)),
        xlabel="threshold probability: at p, a positive case found is worth (1 - p) / p unnecessary visits",
        ylabel="net benefit per case",
    )
    figure.legend(loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    return encode_png(figure)


def predictive_values(rows: Sequence[PredictiveValues], here: float) -> bytes:
    """PPV, and positive cases among those not referred, against the prevalence; bands are 95 %."""
    figure, (left, right) = make_panels(9.0, 4.0, 1, 2)
    at = [row.prevalence for row in rows]
    _draw_band(left, at, [row.ppv for row in rows], ORANGE, "-", "PPV")
    missed = [
        None
        if row.npv is None
        else Estimate(
            1000 * (1 - row.npv.value), 1000 * (1 - row.npv.high), 1000 * (1 - row.npv.low), row.npv.draws
        )
        for row in rows
    ]
    _draw_band(right, at, missed, BLUE, "--", "1,000 (1 - NPV)")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(
            [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5], ["0.5%", "1%", "2%", "5%", "10%", "20%", "50%"]
        )
        axes.set_xticks([], minor=True)
        axes.set(xlim=(min(at), max(at)), xlabel="prevalence: share of cases that need a visit")
        if min(at) <= here <= max(at):
            axes.axvline(here, color=GREEN, linestyle=":", linewidth=1.5, label=f"these cases, {here:.1%}")
        axes.legend(loc="upper left", fontsize=8, frameon=False)
    left.set(ylim=(0, 1), ylabel="of those referred, share that needs a visit")
    right.set_ylim(bottom=0)
    right.set_ylabel("of 1,000 not referred, how many need a visit")
    return encode_png(figure)


def _draw_band(
    axes: Axes, at: Sequence[float], found: Sequence[Estimate | None], colour: str, style: str, label: str
) -> None:
    known = [(x, one) for x, one in zip(at, found, strict=True) if one is not None]
    x = [each for each, _ in known]
    axes.fill_between(
        x,
        [one.low for _, one in known],
        [one.high for _, one in known],
        color=colour,
        alpha=0.2,
        linewidth=0,
    )
    axes.plot(x, [one.value for _, one in known], color=colour, linestyle=style, linewidth=1.8, label=label)
