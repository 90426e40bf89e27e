"""The figure of ``lesion-triage plan``. Imports calibrate; matplotlib only inside the function that draws."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lesion_triage.calibrate.certificate import allowed_misses, minimum_positives
from lesion_triage.calibrate.planning import MAX_POSITIVES, SampleSizeStep, binomial_cdf, forecast

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lesion_triage.clinic.plan import Plan

# Okabe-Ito colours, which colour-blind readers can tell apart; line styles and markers repeat them.
ORANGE, SKY, GREEN, BLUE, VERMILLION, BLACK = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#000000"

_STYLES = ((BLUE, "o"), (VERMILLION, "s"), (GREEN, "^"), (ORANGE, "D"))
_DRAWN_UP_TO, _DRAWN_STEPS = 1000, 300


def draw(plan: Plan) -> bytes:
    """The plan as a PNG of four panels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - optional
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"Sensitivity {plan.target:g} at confidence {plan.confidence:g}", fontsize=12)
    (steps, strength), new = figure.subplots(2, 2)
    _draw_steps(steps, plan.steps, plan.target)
    _draw_power(strength, plan)
    _draw_forecasts(new, plan)
    corners = ("upper left", "lower right", "upper right", "lower right")
    for axes, corner in zip((steps, strength, *new), corners, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.legend(loc=corner, fontsize=8, framealpha=0.85, edgecolor="none")
    for axes in (strength, *new):
        _count_axis(axes)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150)
    return stream.getvalue()


def _draw_steps(axes: Axes, steps: Sequence[SampleSizeStep], target: float) -> None:
    misses, positives = [step.misses for step in steps], [step.positives for step in steps]
    naive = [count / (1 - target) for count in misses]
    axes.plot(misses, positives, "o", color=BLUE, label="smallest number that certifies")
    axes.plot(misses, naive, ":", color=BLACK, linewidth=1, label=f"share missed = {1 - target:.2g}")
    for step in steps[:: math.ceil(len(steps) / 16)]:
        place = (step.misses, step.positives)
        axes.annotate(str(step.positives), place, (0, 6), textcoords="offset points", ha="center", fontsize=8)
    axes.set(title="How many positive cases", xlabel="misses allowed", ylabel="positive cases")
    axes.set(xlim=(-0.5, misses[-1] + 0.5), ylim=(0, positives[-1] * 1.15))
    axes.set_xticks(misses[:: math.ceil(len(misses) / 12)])


def _draw_power(axes: Axes, plan: Plan) -> None:
    known = [n for enough in plan.enough.values() for n in enough.values() if n is not None]
    counts = _counts_along_steps(plan, max(known, default=_DRAWN_UP_TO) * 1.2)
    missed = 1 - np.array(list(plan.powers))
    allowed = [allowed_misses(n, plan.target, plan.confidence) for n in counts]
    powers = [binomial_cdf(k, n, missed) for k, n in zip(allowed, counts, strict=True) if k is not None]
    curves = zip(plan.powers, np.transpose(powers), itertools.cycle(_STYLES), strict=False)
    for truth, curve, (colour, marker) in curves:
        axes.plot(counts, curve, color=colour, linewidth=1.2)
        reached = [(n, wanted) for wanted, n in plan.enough[truth].items() if n is not None]
        axes.plot(
            [n for n, _ in reached],
            [wanted for _, wanted in reached],
            marker,
            color=colour,
            markeredgecolor=BLACK,
            markersize=7,
            label=f"truth {truth:g}",
        )
    axes.plot([], [], " ", label="marker: from here on")
    for wanted in next(iter(plan.enough.values()), {}):
        axes.axhline(wanted, color=BLACK, linewidth=0.8, linestyle=":")
    axes.set(title="An existing threshold: will it be certified?", ylabel="probability", ylim=(0, 1.02))


def _draw_forecasts(panels: Sequence[Axes], plan: Plan) -> None:
    counts = _counts_along_steps(plan, max(plan.forecasts) * 1.1)
    found = [forecast(n, plan.target, plan.confidence, plan.population) for n in counts]
    forecasts = [one for one in found if one is not None]
    exact = plan.population.specificity_at(plan.target)
    curves = (
        ("sensitivity", [one.sensitivity for one in forecasts], plan.target, BLUE, SKY),
        ("specificity", [one.specificity for one in forecasts], exact, VERMILLION, ORANGE),
    )
    for axes, (name, spreads, level, colour, tint) in zip(panels, curves, strict=True):
        band = ([spread.low for spread in spreads], [spread.high for spread in spreads])
        axes.fill_between(counts, *band, color=tint, alpha=0.35, linewidth=0, label="nine draws of ten")
        axes.plot(counts, [spread.mean for spread in spreads], color=colour, linewidth=1.6, label="expected")
        label = f"at exactly the target: {level:.3g}"
        axes.axhline(level, color=BLACK, linestyle="--", linewidth=1, label=label)
        axes.set(title=f"A new threshold: {name} obtained", ylabel=name)


def _counts_along_steps(plan: Plan, top: float) -> list[int]:
    """Numbers of positive cases to draw: the beginning, middle and end of every step of the staircase."""
    counts: list[int] = []
    start = minimum_positives(plan.target, plan.confidence)
    for misses in range(1, _DRAWN_STEPS):
        following = minimum_positives(plan.target, plan.confidence, misses)
        counts += sorted({start, (start + following - 1) // 2, following - 1})
        start = following
        if start > top:
            break
    return [n for n in counts if n <= MAX_POSITIVES]


def _count_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    ticks = [base * 10**exponent for exponent in range(6) for base in (1, 2, 3, 5, 7)]
    inside = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(inside, [str(tick) for tick in inside])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("positive cases")
