"""Three figures as PNG bytes. Imports numpy, ``calibrate`` and this package; matplotlib where it draws.

Okabe-Ito colours, which colour-blind readers can tell apart; markers and line styles repeat the colours.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lesion_triage.calibrate.metrics import proportion
from lesion_triage.calibrate.wording import format_percent
from lesion_triage.proof.exact_distributions import Floats
from lesion_triage.proof.findings import Findings
from lesion_triage.proof.mapie_comparison import AllowedMisses
from lesion_triage.proof.splits import Splits
from lesion_triage.proof.trial import Expected, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORANGE, SKY, GREEN, BLUE, VERMILLION, BLACK = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#000000"

_STYLES: dict[Expected, tuple[str, str, str]] = {
    "keeps": (BLUE, "o", "a promise that must be kept"),
    "breaks": (VERMILLION, "s", "negative control, must break it"),
    "shown": (GREEN, "^", "shown only"),
}
_WORTH_DRAWING, _MANY = 1e-4, 20
_SHARES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


def draw(found: Findings) -> dict[str, bytes]:
    """File name -> PNG; there is no figure of MAPIE if it was not compared."""
    drawn = {"violations.png": violations(found.trials), "splits.png": splits(found.over_splits)}
    if found.peer is not None:
        drawn["mapie.png"] = misses(found.peer.by_size, found.peer.version)
    return drawn


def violations(trials: Sequence[Trial]) -> bytes:
    """Share of draws that violate each promise, with exact intervals and the allowed share."""
    targets = sorted({one.target for one in trials}, reverse=True)
    names = list(dict.fromkeys(one.what for one in trials))
    figure = _figure(12.0, 0.62 * len(names) + 1.6)
    panels = np.atleast_1d(figure.subplots(1, len(targets), sharey=True))
    for axes, target in zip(panels, targets, strict=True):
        _tidy(axes)
        for name_at, name in enumerate(names):
            of_name = [one for one in trials if one.what == name and one.target == target]
            for position, one in enumerate(of_name):
                _interval(axes, one, name_at + 0.7 * ((position + 0.5) / len(of_name) - 0.5))
        axes.axvline(trials[0].delta, color=BLACK, linewidth=1.2, linestyle="--")
        axes.set_xscale("function", functions=(_root, np.square))
        axes.set(xlim=(0, 1), xlabel="draws that violate it (square-root scale)")
        axes.set_xticks(_SHARES, [f"{share:.0%}" for share in _SHARES])
        axes.set_title(f"target {target}, confidence {format_percent(trials[0].confidence)}%", fontsize=10)
    panels[0].set_yticks(range(len(names)), [_labelled(name, trials) for name in names], fontsize=8)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    _legend_of_violations(figure, panels[0], trials)
    return _png(figure)


def splits(found: Sequence[Splits]) -> bytes:
    """Misses on the other half of the cases, beside their exact distribution."""
    figure = _figure(9.0, 3.8)
    panels = np.atleast_1d(figure.subplots(1, len(found)))
    for axes, one in zip(panels, found, strict=True):
        _tidy(axes)
        shown = 1 + max(np.flatnonzero(np.array(one.law) > _WORTH_DRAWING))
        counts, seen = np.arange(shown), np.array(one.seen[:shown]) / one.splits
        axes.bar(counts, seen, color=SKY, edgecolor=BLACK, linewidth=0.4, label=f"{one.splits:,} splits")
        axes.plot(counts, one.law[:shown], "o", color=VERMILLION, markersize=3.5, label="beta-binomial law")
        axes.set(xlabel="positive cases missed on the other half", ylabel="share of splits")
        axes.set_xticks(range(0, shown, 2 if shown < _MANY else 5))
        axes.set_title(f"target {one.target:g}: chi-square p = {one.p_value:.2f}", fontsize=10)
        axes.legend(fontsize=8, frameon=False)
    return _png(figure)


def misses(by_size: Sequence[AllowedMisses], version: str) -> bytes:
    """Misses allowed at each size, and how many fewer MAPIE allows in either configuration."""
    figure = _figure(7.4, 5.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
    sizes = [one.positives for one in by_size]
    ours = np.array([one.ours for one in by_size])
    ways = (
        ("its own recall", [one.recall for one in by_size], ORANGE, "x"),
        ("share of misses as the risk", [one.miss_rate for one in by_size], GREEN, "+"),
    )
    _tidy(above)
    _tidy(below)
    above.step(sizes, ours, where="mid", color=BLUE, linewidth=1.6, label="the certificate")
    for name, theirs, colour, marker in ways:
        above.plot(sizes, theirs, marker, color=colour, markersize=5, label=f"MAPIE {version}, {name}")
        below.plot(sizes, ours - np.array(theirs), marker, color=colour, markersize=5)
    above.set(ylabel="misses allowed", yticks=range(0, int(ours.max()) + 1, 4))
    above.set_title("sensitivity 0.95 at 95 % confidence", fontsize=10)
    above.legend(fontsize=8, frameon=False)
    below.set(xlabel="positive cases", ylabel="misses given away", ylim=(-0.4, 1.4), yticks=(0, 1))
    return _png(figure)


def _labelled(name: str, trials: Sequence[Trial]) -> str:
    """The rule, and its sizes in the order of their rows from the top."""
    sizes = sorted({one.positives for one in trials if one.what == name})
    return f"{name}\nn = {', '.join(map(str, sizes))}"


def _interval(axes: Axes, one: Trial, height: float) -> None:
    colour, marker, _ = _STYLES[one.expected]
    share = proportion(one.violations, one.draws)
    around = [[share.value - share.low], [share.high - share.value]]
    axes.errorbar(
        [share.value],
        [height],
        xerr=np.clip(around, 0, None),
        fmt=marker,
        color=colour,
        markersize=4,
        capsize=2,
        linewidth=1,
        clip_on=False,
    )
    if one.exact is not None:
        axes.plot([one.exact], [height], "|", color=BLACK, markersize=9, markeredgewidth=1.2, clip_on=False)


def _legend_of_violations(figure: Figure, axes: Axes, trials: Sequence[Trial]) -> None:
    used = {one.expected for one in trials}
    handles = [
        axes.plot([], [], marker, color=colour, label=label)[0]
        for expected, (colour, marker, label) in _STYLES.items()
        if expected in used
    ]
    handles += axes.plot([], [], "|", color=BLACK, markersize=9, label="exact probability")
    handles += axes.plot(
        [], [], "--", color=BLACK, label=f"what may break: {format_percent(trials[0].delta)}%"
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)


def _figure(width_in: float, height_in: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - only where a figure is drawn
    from matplotlib.figure import Figure as Sheet  # noqa: PLC0415

    figure = Sheet(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return stream.getvalue()


def _root(values: Floats) -> Floats:
    return np.sqrt(np.clip(values, 0, None))
