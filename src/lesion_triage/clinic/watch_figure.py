"""The figure of ``lesion-triage watch``. Imports calibrate; matplotlib only in the function that draws."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import numpy as np

from lesion_triage.calibrate.sequential import log_evidence_below, lower_bound
from lesion_triage.calibrate.wording import format_percent

if TYPE_CHECKING:
    from lesion_triage.clinic.watch import Watch

# Okabe-Ito colours, which colour-blind readers can tell apart; markers and line styles repeat them.
BLUE, VERMILLION, BLACK = "#0072B2", "#D55E00", "#000000"

_BOUNDS = 200
"""Most moments at which the lower bound is computed."""
_LN_10 = math.log(10)


def draw(found: Watch) -> bytes:
    """What became of a certificate, as a PNG of two panels over time: lower bound, evidence against it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - optional
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"Certificate {found.certificate_id}: {found.positives} positive cases counted", fontsize=12
    )
    upper, lower = figure.subplots(2, 1, sharex=True)
    counted = found.counted
    # Without its zone, which is UTC and which numpy does not know.
    days = np.array([moment.replace(tzinfo=None) for moment in counted.arrived_at], dtype="datetime64[s]")
    confidence = format_percent(found.confidence)

    looks = np.unique(np.linspace(1, days.size, min(_BOUNDS, days.size)).astype(int))
    bounds = [lower_bound(found.confidence, counted.missed[:look], counted.share[:look]) for look in looks]
    upper.plot(
        days[looks - 1], bounds, color=BLUE, drawstyle="steps-post", label=f"lower bound, {confidence}%"
    )
    upper.axhline(found.target, color=BLACK, linestyle="--", linewidth=1, label=f"target {found.target:g}")
    missed = days[counted.missed]
    upper.plot(missed, np.full(missed.size, 0.03), "x", color=VERMILLION, label="a missed case that counts")
    upper.set(ylabel="sensitivity", ylim=(0, 1))

    evidence = log_evidence_below(found.target, counted.missed, counted.share) / _LN_10
    enough = -math.log1p(-found.confidence) / _LN_10
    lower.plot(days, evidence, color=VERMILLION, label=f"evidence that it is below {found.target:g}")
    lower.axhline(enough, color=BLACK, linestyle="--", linewidth=1, label=f"enough: {10**enough:.3g}")
    if found.failed_at is not None:
        failed_at = np.datetime64(found.failed_at.replace(tzinfo=None))
        lower.axvline(failed_at, color=BLACK, linestyle=":", linewidth=1)
    lower.set(ylabel="powers of ten", xlabel="arrival of the case, UTC")

    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.legend(loc="best", fontsize=8, framealpha=0.85, edgecolor="none")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150)
    return stream.getvalue()
