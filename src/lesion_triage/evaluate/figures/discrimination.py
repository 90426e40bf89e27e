"""ROC and precision-recall with the certified operating point. Imports the canvas and calibrate."""

from __future__ import annotations

from lesion_triage.calibrate.curves import Curve
from lesion_triage.calibrate.metrics import Estimate, Proportion
from lesion_triage.evaluate.figures.canvas import (
    BLACK,
    BLUE,
    GREEN,
    VERMILLION,
    encode_png,
    error_bar_lengths,
    make_canvas,
)

_OPERATING_POINT_LABEL = "certified threshold, 95 % intervals"


def roc(
    curve: Curve,
    auroc: Estimate | None,
    sensitivity: Proportion,
    specificity: Proportion,
    target: float,
) -> bytes:
    """Sensitivity against 1 - specificity of the whole policy, with the certified operating point.

    Abstentions count as referred at every threshold, so the curve begins where only they are referred.
    """
    figure, axes = make_canvas(4.8, 4.6)
    label = "all thresholds" if auroc is None else f"all thresholds, AUROC {auroc.value:.3f}"
    axes.plot(curve.x, curve.y, color=BLUE, linewidth=1.8, label=label)
    axes.plot([0, 1], [0, 1], color=BLACK, linewidth=0.8, linestyle=":", label="chance")
    axes.axhline(
        target, color=GREEN, linewidth=1.2, linestyle="--", label=f"certified sensitivity {target:g}"
    )
    axes.errorbar(
        [1 - specificity.value],
        [sensitivity.value],
        xerr=error_bar_lengths(1 - specificity.value, 1 - specificity.high, 1 - specificity.low),
        yerr=error_bar_lengths(sensitivity.value, sensitivity.low, sensitivity.high),
        fmt="D",
        color=VERMILLION,
        markersize=6,
        capsize=3,
        label=_OPERATING_POINT_LABEL,
    )
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="1 - specificity", ylabel="sensitivity")
    axes.set_aspect("equal")
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    return encode_png(figure)


def precision_recall(
    curve: Curve,
    auprc: Estimate | None,
    sensitivity: Proportion,
    ppv: Proportion | None,
    prevalence: float,
    target: float,
) -> bytes:
    """PPV against sensitivity of the whole policy, in steps, with the certified operating point."""
    figure, axes = make_canvas(4.8, 4.6)
    label = "all thresholds" if auprc is None else f"all thresholds, AUPRC {auprc.value:.3f}"
    axes.step(curve.x, curve.y, where="pre", color=BLUE, linewidth=1.8, label=label)
    axes.axhline(
        prevalence, color=BLACK, linewidth=0.8, linestyle=":", label=f"everybody referred, {prevalence:.3f}"
    )
    axes.axvline(
        target, color=GREEN, linewidth=1.2, linestyle="--", label=f"certified sensitivity {target:g}"
    )
    if ppv is not None:
        axes.errorbar(
            [sensitivity.value],
            [ppv.value],
            xerr=error_bar_lengths(sensitivity.value, sensitivity.low, sensitivity.high),
            yerr=error_bar_lengths(ppv.value, ppv.low, ppv.high),
            fmt="D",
            color=VERMILLION,
            markersize=6,
            capsize=3,
            label=_OPERATING_POINT_LABEL,
        )
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="sensitivity", ylabel="PPV (precision)")
    axes.set_aspect("equal")
    axes.legend(loc="best", fontsize=8, framealpha=0.85, edgecolor="none")
    return encode_png(figure)
