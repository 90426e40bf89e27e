"""ROC and precision-recall with the certified operating point. Imports the canvas and calibrate."""

from __future__ import annotations

from lesion_triage.calibrate.curves import Curve
from lesion_triage.calibrate.metrics import Estimate, Proportion
from lesion_triage.evaluate.figures.canvas import BLACK, BLUE, GREEN, VERMILLION, canvas, ends, png

_POINT = "certified threshold, 95 % intervals"


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
    figure, axes = canvas(4.8, 4.6)
    label = "all thresholds" if auroc is None else f"all thresholds, AUROC {auroc.value:.3f}"
    axes.plot(curve.x, curve.y, color=BLUE, linewidth=1.8, label=label)
    axes.plot([0, 1], [0, 1], color=BLACK, linewidth=0.8, linestyle=":", label="chance")
    axes.axhline(
        target, color=GREEN, linewidth=1.2, linestyle="--", label=f"certified sensitivity {target:g}"
    )
    axes.errorbar(
        [1 - specificity.value],
        [sensitivity.value],
        xerr=ends(1 - specificity.value, 1 - specificity.high, 1 - specificity.low),
        yerr=ends(sensitivity.value, sensitivity.low, sensitivity.high),
        fmt="D",
        color=VERMILLION,
        markersize=6,
        capsize=3,
        label=_POINT,
    )
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="1 - specificity", ylabel="sensitivity")
    axes.set_aspect("equal")
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    return png(figure)


def precision_recall(
    curve: Curve,
    auprc: Estimate | None,
    sensitivity: Proportion,
    ppv: Estimate | None,
    prevalence: float,
    target: float,
) -> bytes:
    """PPV against sensitivity of the whole policy, in steps, with the certified operating point."""
    figure, axes = canvas(4.8, 4.6)
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
            xerr=ends(sensitivity.value, sensitivity.low, sensitivity.high),
            yerr=ends(ppv.value, ppv.low, ppv.high),
            fmt="D",
            color=VERMILLION,
            markersize=6,
            capsize=3,
            label=_POINT,
        )
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="sensitivity", ylabel="PPV (precision)")
    axes.set_aspect("equal")
    axes.legend(loc="best", fontsize=8, framealpha=0.85, edgecolor="none")
    return png(figure)
